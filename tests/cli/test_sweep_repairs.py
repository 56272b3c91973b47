"""`s3lora sweep` of methods of repair, from the command line to its files on the tiny model.

A tiny model refuses nothing: a list of openings takes the answers of the base for refusals (see `refusing_list`).
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from s3lora.evaluate.prompts import built_in
from tests.cli.measured import SHORT, contents, is_clean, validated
from tests.command import call
from tests.repair.subjects import made, refusing_list
from tests.tiny_adapters import MODULES

Capture = pytest.CaptureFixture[str]
SUITE = ("--suite", "safety,planning-loss", *SHORT)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return the folders of a base and of an adapter that changes its answers, and the list of refusals."""
    folder = tmp_path_factory.mktemp("sweep-repairs")
    return (*made(folder, scale=0.1), refusing_list(folder / "refusals.json"))


def words(subject: tuple[Path, Path, Path], *more: object) -> list[object]:
    base, adapter, refusals = subject
    return ["sweep", adapter, "--base", base, "--refusals", refusals, *SUITE, *more]


def test_repairs_stand_beside_rankings(subject: tuple[Path, Path, Path], tmp_path: Path, capsys: Capture) -> None:
    grid = ("--methods", "mas-svd,random,shrink,gates,patch", "--index", "ssi", "--top", "3", "--control-seeds", "2")
    places = ("--cache", tmp_path / "cache", "--output", tmp_path / "out")
    given = words(subject, *grid, "--strengths", "0.5,100%", *places)
    before = contents(subject[1])
    result = call(capsys, *given, "--format", "json")
    assert result.status == 0, result.err
    assert contents(subject[1]) == before
    assert is_clean(result, tmp_path / "out", tmp_path, *subject)
    document = validated("sweep", result.out)
    points = document["points"]
    assert [(p["ranking"], p["top"], p["strength"], p["control"]) for p in points] == [
        ("ssi (mas-svd)", 3, None, False),
        *[("random", 3, None, True)] * 2,
        *[("shrink", round(t * len(MODULES)), t, True) for t in (0.5, 1.0)],
        *[(name, round(t * len(MODULES)), t, False) for name in ("gates", "patch") for t in (0.5, 1.0)],
    ]
    named = {(p["ranking"], p["strength"]): p for p in points}
    # Half of the update has a quarter of its energy; all of it taken away is the base.
    assert named["shrink", 0.5]["frobenius_energy"] == pytest.approx(0.75, abs=1e-6)
    assert named["shrink", 1.0]["metrics"] == document["base"]["metrics"]
    assert named["shrink", 0.5]["parameters"] == 0
    # A patch of rank 2 is added to each module of rank 4.
    assert named["patch", 1.0]["parameters"] == pytest.approx(-0.5)
    losses = [[m["value"] for m in named["gates", t]["metrics"] if m["measure"] == "loss"] for t in (0.5, 1.0)]
    assert losses[0] != losses[1]
    assert {spread["ranking"] for spread in document["spreads"]} == {"random"}
    assert "gates at strength 0.5 " in named["gates", 0.5]["comparisons"][0]["sentence"]
    assert any(note.startswith("learned from: ") for note in document["warnings"])

    found = list(csv.DictReader(io.StringIO((tmp_path / "out" / "sweep.csv").read_text())))
    repaired = {(row["ranking"], row["strength"]) for row in found if row["kind"] == "repaired"}
    assert repaired == {(name, t) for name in ("shrink", "gates", "patch") for t in ("0.5", "1.0")}
    assert {row["strength"] for row in found if row["kind"] == "pruned"} == {""}
    text = " ".join(call(capsys, *given).out.split())
    assert "3 prunings and 6 repairs" in text
    assert text.index("3 of 6 pruned") < text.index("strength 0.5") < text.index("strength 1 ")
    page = (tmp_path / "out" / "report.html").read_text()
    assert ">strength 0.5</th>" in page
    assert "gates, strength 1" in page
    assert "gates, 6 pruned" not in page


def test_repairs_alone_learn_once_and_the_same(
    subject: tuple[Path, Path, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learned is kept beside the answers, so that the same sweep goes on where it was."""
    given = words(subject, "--methods", "gates", "--cache", tmp_path / "cache", "--format", "json")
    first = call(capsys, *given, "--strengths", "1")
    assert first.status == 0, first.err
    assert [(p["ranking"], p["strength"]) for p in json.loads(first.out)["points"]] == [("gates", 1.0)]
    monkeypatch.setattr("s3lora.repair.methods.gates.learn", None)
    assert call(capsys, *given, "--strengths", "1").out == first.out
    more = json.loads(call(capsys, *given).out)
    assert [p["strength"] for p in more["points"]] == [0.25, 0.5, 0.75, 1.0]
    assert more["points"][-1]["metrics"] == json.loads(first.out)["points"][0]["metrics"]


def test_what_is_measured_is_not_learned_from(
    subject: tuple[Path, Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    rows = [json.dumps({"prompt": request.text}) for request in built_in("harmful", "repair").requests]
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join(rows) + "\n")
    given = words(subject, "--harmful", own, "--strengths", "1", "--no-cache", "--format", "json")
    for method, says in (("shrink", False), ("gates", True)):
        document = json.loads(call(capsys, *given, "--methods", method).out)
        told = [note for note in document["warnings"] if "nothing is learned from what is measured" in note]
        assert [("instead of --harmful" in note) for note in told] == [True] * says
