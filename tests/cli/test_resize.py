"""`s3lora resize`: what it prints, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from s3lora.report.schemas import schema
from tests.cli.test_card import fails, fine
from tests.command import call
from tests.rewrite.repairing import Q0, Q1, SHAPES, V0
from tests.rewrite.test_resize import spread
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


def test_the_scan_suggests_ranks_and_resize_gives_them(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spread(tmp_path / "spread", {Q0: [9, 0.1, 0.1, 0], V0: [1, 1, 1, 1], Q1: [2, 2, 0, 0]})
    scanned = json.loads(fine(call(capsys, "scan", "spread", "--format", "json")))
    ranks = {module["path"]: module["energy_rank"] for module in scanned["modules"]}
    assert ranks == {Q0: 1, V0: 4, Q1: 2}
    resized = fine(call(capsys, "resize", "spread", "-o", "new", "--energy", "99%", "--format", "json"))
    assert {module["path"]: module["rank"] for module in json.loads(resized)["modules"]} == ranks
    above = {module["path"]: module["null_rank"] for module in scanned["modules"]}
    assert above == {Q0: 1, V0: 0, Q1: 0}
    line = "ranks 1-4 hold 99% of each update in 58% of the size: resize --energy 99%"
    assert f"{line}\n0-1 directions of each stand above noise" in fine(call(capsys, "scan", "spread"))
    page = fine(call(capsys, "scan", "spread", "--format", "html"))
    assert f"{line}; 0-1 directions of each stand above noise." in page
    fine(call(capsys, "resize", "spread", "-o", "one", "--rank", "1"))
    assert "resize --energy" not in fine(call(capsys, "scan", "one")), "nothing is left to save"
    records = json.loads(fine(call(capsys, "scan", "adapter", "--format", "json")))["modules"]
    assert {record["path"] for record in records if record["energy_rank"] is None} == {Q0}, "a zero update"


def test_no_rank_is_suggested_where_it_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    magnitude = {f"{Q0}.lora_magnitude_vector.weight": np.ones(48, np.float32)}
    make_adapter(tmp_path / "dora", SHAPES, config={"use_dora": True}, heads=magnitude)
    scanned = json.loads(fine(call(capsys, "scan", "dora", "--format", "json")))
    assert {module["energy_rank"] for module in scanned["modules"] if module["path"] == Q0} == {None}
    assert "resize --energy" not in fine(call(capsys, "scan", "dora"))
