"""What a scan says of an adapter that s3lora wrote, and of headers that only claim so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

import s3lora
from s3lora.adapter.loaders.problems import DropPart
from s3lora.adapter.written_by import written_by
from s3lora.repair.methods.registry import METHODS
from s3lora.spectrum.indices import INDICES
from tests.support import make_adapter


def said(folder: Path) -> list[str]:
    with s3lora.open_adapter(folder) as adapter:
        return [note for note in adapter.warnings if "header" in note]


def test_an_adapter_says_what_s3lora_did_to_it(tmp_path: Path) -> None:
    paths = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(3)]
    source = make_adapter(tmp_path / "source", dict.fromkeys(paths, (8, 6, 2)))
    assert said(source) == []
    version = f"its header says that s3lora {s3lora.__version__}"
    scan = s3lora.scan(source)
    pruned = s3lora.prune(source, s3lora.select(scan, s3lora.Top(2)))
    s3lora.write_pruned(pruned, scan, tmp_path / "pruned")
    assert said(tmp_path / "pruned") == [f"{version} pruned it: 2 modules, top 2 by ssi"]
    s3lora.restore(tmp_path / "pruned", source, tmp_path / "restored")
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


@pytest.mark.parametrize(
    ("story", "said_"),
    [
        (
            {"repair": "gates+patch", "strength": 0.5, "modules": {"a": [], "b": []}},
            "repaired it: 2 modules, gates+patch",
        ),
        ({"rule": "top 0", "index": "ssi", "drop": ["bias"]}, "pruned it: without bias"),
        (
            {"rule": "top 1", "index": "ssi", "drop": ["heads"], "modules": {"a": []}},
            "1 module, top 1 by ssi, without heads",
        ),
        ({"rule": "top 10; audited, and found safe", "index": "ssi"}, ""),
        ({"repair": "gates\n\x1b[31m"}, ""),
        ({"repair": "safe"}, ""),
        ({"version": "1 (safe)", "repair": "gates"}, ""),
        ({"repair": "gates", "drop": ["x"]}, ""),
        ({"version": "1.is.safe", "repair": "gates"}, ""),
        ({"version": "1.\u0661", "repair": "gates"}, ""),
        ({"rule": "top eee...", "index": "ssi", "modules": {"a": []}}, ""),
        ({"rule": "top 1", "index": "random-matched to safe", "modules": {"a": []}}, ""),
        ({"resize": "....% of the energy"}, ""),
        ({"rule": "top 0", "index": "ssi"}, ""),
        ({"sum": [1]}, ""),
        ({"sum": [1] * 1000}, "made it: the sum of 1,000 adapters"),
        ({"version": "1.2.0rc1", "resize": "99.5% of the energy"}, "s3lora 1.2.0rc1 resized it: 99.5% of the energy"),
    ],
)
def test_no_prose_of_a_stranger_is_passed_on(story: dict[str, object], said_: str) -> None:
    told = written_by({"s3lora": json.dumps({"version": "0.1.0", **story})})
    assert told == () if not said_ else said_ in told[0]


def test_whatever_s3lora_writes_is_known() -> None:
    rules = (
        s3lora.Top(7),
        s3lora.Fraction(0.25),
        s3lora.Threshold(1e-5),
        s3lora.Outlier(3.5),
        s3lora.Gap(),
        s3lora.Null(),
    )
    for rule in rules:
        for index in (*INDICES, "random", "random-matched to weighted_ssi"):
            story = {"version": s3lora.__version__, "rule": str(rule), "index": index, "modules": {"a": []}}
            assert f"1 module, {rule} by {index}" in written_by({"s3lora": json.dumps(story)})[0]
    for method in METHODS:
        assert written_by({"s3lora": json.dumps({"version": s3lora.__version__, "repair": method})})
    for part in get_args(DropPart):
        story = {"version": s3lora.__version__, "rule": "top 0", "index": "ssi", "drop": [part]}
        assert f"without {part}" in written_by({"s3lora": json.dumps(story)})[0]
