"""What a scan says of an adapter that s3lora wrote, and of headers that only claim so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import s3lora
from s3lora.adapter.written_by import written_by
from tests.planning import prune_to
from tests.support import make_adapter


def said(folder: Path) -> list[str]:
    with s3lora.open_adapter(folder) as adapter:
        return [note for note in adapter.warnings if "header" in note]


def test_an_adapter_says_what_s3lora_did_to_it(tmp_path: Path) -> None:
    paths = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(3)]
    source = make_adapter(tmp_path / "source", dict.fromkeys(paths, (8, 6, 2)))
    assert said(source) == []
    version = f"its header says that s3lora {s3lora.__version__}"
    pruned = prune_to(source, tmp_path / "pruned", paths[:2])
    (note,) = said(pruned)
    assert note.startswith(f"{version} pruned it: 2 modules, ")
    s3lora.restore(pruned, source, tmp_path / "restored")
    assert said(tmp_path / "restored") == []
    s3lora.resize(source, tmp_path / "resized", rank=1)
    assert said(tmp_path / "resized") == [f"{version} resized it: 3 modules, rank 1"]
    s3lora.write_sum([source, source], tmp_path / "sum")
    assert said(tmp_path / "sum") == [f"{version} made it: the sum of 2 adapters"]


@pytest.mark.parametrize(
    "story",
    [
        *("", "no JSON", "[]", "{}", '{"version": 1, "rule": "x"}', '{"version": "1"}', "[" * 9_999),
        *('{"version": "1", "rule": ["x"]}', '{"version": "1", "modules": []}'),
    ],
)
def test_what_is_no_story_says_nothing(story: str) -> None:
    assert written_by({"s3lora": story}) == ()


def test_a_claim_is_one_short_line() -> None:
    story = {"version": "1\n\x1b[31m", "repair": "gates\n" * 999, "strength": 0.5, "modules": {"a": [], "b": []}}
    (note,) = written_by({"s3lora": json.dumps(story)})
    assert len(note) < 400
    assert note.isprintable()
