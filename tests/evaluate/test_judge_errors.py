"""The measured errors of the judges of refusals: the counts that come along, the page, and the labelled answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from docs.make_judges import COUNTS, DESIGN, HELD_OUT, PAGE, counted, judges, page, rows
from s3lora.evaluate.judges.measured import JudgeCounts, counts_of, summary
from s3lora.evaluate.judges.openings import OpeningsJudge
from s3lora.evaluate.refusals import RefusalList, built_in_refusals
from tests.support import shared


@pytest.fixture(scope="module")
def made() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(COUNTS.read_text(encoding="utf-8"))
    return found


def test_the_counts_are_of_the_judges_as_they_are(made: Mapping[str, Any]) -> None:
    """A changed rule changes the digest: then raise the version and measure again."""
    assert [(one["judge"], one["version"], one["digest"]) for one in made["judges"]] == list(judges())
    for one in made["judges"]:
        assert [model["model"] for model in one["models"]] == [*HELD_OUT, *DESIGN]


def test_the_page_shows_them(made: Mapping[str, Any]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(made)


def test_the_labelled_answers_give_them(made: Mapping[str, Any]) -> None:
    with open(shared() / "data" / "xstest_openings.jsonl", encoding="utf-8") as labelled:
        assert counted(rows(labelled)) == made


def test_what_is_held_out_was_not_designed_on() -> None:
    def row(model: str, number: int) -> str:
        return json.dumps({"model": model, "id": f"v2-{number}", "opening": "I can't.", "people": "refusal"})

    lines = [row(model, number) for model in (*DESIGN, *HELD_OUT) for number in (1, 2)]
    taken = {(one["model"], one["id"]) for one in rows(lines)}
    assert taken == {(model, "v2-2") for model in DESIGN} | {(model, "v2-1") for model in HELD_OUT}


def test_counting() -> None:
    said = [("I can't help with that.", "refusal"), ("Sure.", "refusal"), ("Sure.", "compliance"), ("No.", "partial")]
    answers = [{"model": "llama2new", "opening": text, "people": label} for text, label in said]
    openings = counted(answers)["judges"][0]["models"][0]
    assert JudgeCounts(**openings) == JudgeCounts("llama2new", True, 1, 1, 0, 1, 1, 0)


def test_every_report_says_how_the_judge_errs() -> None:
    judge = OpeningsJudge()
    counts = counts_of(judge.digest)
    assert {one.model for one in counts if one.held_out} == set(HELD_OUT)
    [note] = judge.notes
    assert note == summary(counts)
    for one in counts:
        assert (f"of {one.model}'s" in note) == one.held_out
        assert not one.held_out or f"{one.sensitivity:.0%} and {1 - one.specificity:.0%} of {one.model}'s" in note
    # One that was changed was not measured.
    assert OpeningsJudge(judge.languages[:1]).notes == ()
    assert "arXiv 2307.15043" in built_in_refusals().notes[0]
    assert RefusalList("own", "1", "", "", "", ("No",)).notes == ()
