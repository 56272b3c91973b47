"""`s3lora sweep` of methods of repair, from the command line to its files on the tiny model.

A tiny model refuses nothing: a list of openings takes the answers of the base for refusals (see `refusing_list`).
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from s3lora.errors import NothingToAuditError, UsageError
from s3lora.evaluate.prompts import built_in
from s3lora.evaluate.references import built_in_references
from s3lora.evaluate.suites import SuiteSettings, build_suites
from s3lora.evaluate.sweeping import sweep
from s3lora.repair.sweeping import repair_tasks
from tests.cli.measured import SHORT, contents, is_clean, one_line, validated
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


def test_what_is_measured_is_not_learned_from(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(
        "".join(json.dumps({"prompt": one.text}) + "\n" for one in built_in("harmful", "repair").requests[:70])
    )
    suites = build_suites(SuiteSettings(names=("safety", "planning", "maths", "summarisation"), harmful=str(own)))
    plain, apart = repair_tasks(["gates"]), repair_tasks(["gates"], measured=suites)
    before, after = plain.learning, apart.learning
    assert 0 < len(after.harmful) < len(before.harmful)
    assert not {one.text for one in built_in("harmful", "repair").requests[:70]} & {
        one.text for one in after.harmful.requests
    }
    assert after.harmless == before.harmless
    # Of the built-in tasks, summaries alone are both asked and learned from.
    summaries = {example.prompt.digest for example in built_in_references().examples}
    left = [prompt for prompt in before.task.prompts if prompt.digest not in summaries]
    assert list(after.task.prompts) == left
    assert len(left) < len(before.task)
    assert after.task.references == ()
    assert any("own.jsonl" in note for note in apart.notes)
    assert (plain.notes, repair_tasks(["shrink"], measured=suites).notes) == ((), ())


def test_all_that_could_be_learned_from_is_measured(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"prompt": one.text}) + "\n" for one in built_in("harmful", "repair").requests))
    with pytest.raises(UsageError, match="all prompts to learn from are measured"):
        repair_tasks(["gates"], measured=build_suites(SuiteSettings(names=("safety",), harmful=str(own))))


@pytest.mark.parametrize(
    ("given", "says"),
    {
        "unknown": (("--methods", "gaets"), "choose from mas-svd.*, random, random-matched, shrink, .*gates"),
        "word": (("--methods", "gates", "--strengths", "half"), "--strengths half is no strength; write 0.5 or 50%"),
        "none": (("--methods", "gates", "--strengths", ","), "--strengths names no strength"),
        "nothing": (("--methods", "gates", "--strengths", "0,0.5"), "--strengths 0 is out of range"),
        "too much": (("--methods", "shrink", "--strengths", "150%"), "--strengths 150% is out of range"),
        "signs": (("--methods", "shrink", "--strengths", "-0.5"), "--strengths -0.5 is no strength"),
        "in vain": (
            ("--methods", "mas-svd", "--strengths", "1"),
            "--strengths does nothing without a method of repair",
        ),
        "unaligned": (("--methods", "mas-svd", "--unaligned", "x"), "--unaligned does nothing without a method"),
        "weights": (("--methods", "safelora"), "safelora needs --unaligned MODEL"),
        "matched": (("--methods", "shrink,random-matched"), "random-matched needs a ranking to match"),
    }.values(),
)
def test_errors(given: tuple[str, ...], says: str, subject: tuple[Path, Path, Path], capsys: Capture) -> None:
    assert one_line(call(capsys, *words(subject, *given, "--no-cache")), says)


def test_from_python(subject: tuple[Path, Path, Path]) -> None:
    """A base that does not refuse is told before anything is measured."""
    base, adapter, _ = subject
    suites = build_suites(SuiteSettings(names=("safety",), limit=2, tokens={"safety": 12}))
    found = sweep(adapter, str(base), suites, methods=(), others=repair_tasks(["shrink", "prune"], [0.5]))
    assert [(point.ranking, point.strength, point.control) for point in found.points] == [
        ("shrink", 0.5, True),
        ("prune", 0.5, False),
    ]
    with pytest.raises(NothingToAuditError, match="there is nothing to give back"):
        sweep(adapter, str(base), suites, methods=(), others=repair_tasks(["gates"], [0.5]))
    with pytest.raises(UsageError, match="no method gaets"):
        repair_tasks(["gaets"])
    with pytest.raises(UsageError, match="a strength of 2 cannot be meant"):
        repair_tasks(["shrink"], [2.0])
