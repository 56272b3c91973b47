"""Results at a prompt: short, of a length, by path, and as plain values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import s3lora
from s3lora.report.documents import to_json
from tests.support import make_adapter

PATHS = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [make_adapter(tmp_path / name, dict.fromkeys(PATHS, (8, 6, 2)), seed=i) for i, name in enumerate("ab")]


def test_what_a_prompt_shows(folders: list[Path]) -> None:
    scan = s3lora.scan(folders[0], "svd")
    assert repr(scan) == "<Scan of a: 3 modules by svd>"
    assert repr(s3lora.select(scan, s3lora.Top(1))) == "<Plan: 1 of 3 modules, top 1 by ssi>"
    assert repr(s3lora.compare(folders)) == "<Comparison of 2 adapters: 3 modules>"
    assert repr(s3lora.compose(folders)) == "<Composition of 2 adapters: 3 modules>"


def test_a_hostile_name_is_printable(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a\x1b[31m", dict.fromkeys(PATHS, (8, 6, 2)))
    assert "\x1b" not in repr(s3lora.scan(folder))


def test_records_by_path_and_in_order(folders: list[Path]) -> None:
    for result in (s3lora.scan(folders[0]), s3lora.compare(folders), s3lora.compose(folders)):
        assert len(result) == 3
        assert [one.path for one in result] == PATHS
        assert [result[path] for path in PATHS] == list(result.modules)
        with pytest.raises(KeyError, match="elsewhere"):
            result["elsewhere"]


def test_plain_values_are_those_of_the_document(folders: list[Path]) -> None:
    for result in (s3lora.scan(folders[0]), s3lora.compare(folders), s3lora.compose(folders)):
        assert json.loads(json.dumps(result.to_dict())) == json.loads(to_json(result))
