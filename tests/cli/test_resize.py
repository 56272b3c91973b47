"""`s3lora resize`: what it prints, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import pytest

from s3lora.report.schemas import schema
from tests.cli.test_card import fails, fine
from tests.command import call
from tests.rewrite.repairing import Q0, SHAPES
from tests.support import make_adapter


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_adapter(tmp_path / "adapter", SHAPES, zero_b=[Q0])


def test_text_json_and_csv_tell_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    text = fine(call(capsys, "resize", "adapter", "-o", "a", "--rank", "2"))
    assert "wrote a" in text
    assert "4 from rank 4 to 2" in text
    assert "keep it" in text
    printed = fine(call(capsys, "resize", "adapter", "-o", "b", "--rank", "2", "--format", "json"))
    record = json.loads(printed)
    jsonschema.Draft202012Validator(json.loads(schema("resize"))).validate(record)
    assert record == json.loads(Path("b/s3lora.json").read_text())
    rows = list(csv.DictReader(io.StringIO(fine(
        call(capsys, "resize", "adapter", "-o", "c", "--rank", "2", "--format", "csv")
    ))))  # fmt: skip
    assert [row["path"] for row in rows] == [module["path"] for module in record["modules"]]
    for row, module in zip(rows, record["modules"], strict=True):
        assert (row["rank_before"], row["rank"]) == ("4", "2")
        assert row["error"] == ("" if module["error"] is None else str(module["error"]))
    worst = max(record["modules"], key=lambda module: module["error"] or 0)
    assert f"{worst['error']:.3g}" in text
    assert f"{record['error']:.3g}" in text


def test_energy_is_a_share_or_a_percentage(capsys: pytest.CaptureFixture[str]) -> None:
    documents = [
        json.loads(fine(call(capsys, "resize", "adapter", "-o", name, "--energy", given, "--format", "json")))
        for name, given in (("a", "90%"), ("b", "0.9"))
    ]
    assert documents[0]["modules"] == documents[1]["modules"]
    assert documents[0]["energy"] == 0.9
    text = fine(call(capsys, "resize", "adapter", "-o", "c", "--energy", "90%"))
    assert "90% of the energy" in text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--energy", "much"), "--energy much is no share; write for example 99%"),
        (("--energy", "90"), "an energy of 90 is no share"),
        (("--energy", "nan%"), "is no share"),
        ((), "one of rank and energy"),
        (("--rank", "2", "--energy", "90%"), "one of rank and energy"),
    ],
)
def test_what_cannot_be_meant(capsys: pytest.CaptureFixture[str], given: tuple[str, ...], words: str) -> None:
    fails(call(capsys, "resize", "adapter", "-o", "new", *given), words)
    assert not Path("new").exists()


def test_commands_that_follow(capsys: pytest.CaptureFixture[str]) -> None:
    fine(call(capsys, "resize", "adapter", "-o", "smaller", "--rank", "2"))
    fine(call(capsys, "scan", "smaller"))
    fine(call(capsys, "bom", "smaller"))
    fine(call(capsys, "card", "smaller", "--print"))
    undone = call(capsys, "restore", "smaller", "--from", "adapter", "-o", "back")
    fails(undone, "was resized, which cannot be undone")
