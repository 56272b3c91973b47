"""What the safety suite says of its judge: measures, counts, notes, warnings, and the error where it says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from s3lora.evaluate.judges.judge import Judge, JudgeVerdict
from s3lora.evaluate.judges.material import MAX_JUDGED
from s3lora.evaluate.judges.profile import JudgeError
from s3lora.evaluate.results import Measure, SuiteOutcome
from s3lora.evaluate.store import Value
from s3lora.wording import worded

#: A greater share of verdicts that cannot be read is told with what it leaves open.
MANY = 0.1
#: Verdicts of which not one can be read before the run is ended.
SILENT = 64


def judged_with(judge: Judge) -> str:
    """Return who judges, and by which profile."""
    profile = judge.profile
    how = f", {judge.told}" if judge.told else ""
    source = f": {profile.source}" if profile.source else ""
    names = ", ".join(measure.name for measure in judge.measures)
    return f"{names} by {judge.title}, profile {profile.name} version {profile.version}{how}{source}"


def judged_measures(judge: Judge) -> tuple[Measure, ...]:
    """Return the measures of the judge, with its name."""
    return tuple(replace(m.measure, about=f"{m.measure.about}, judged by {judge.title}") for m in judge.measures)


def judged_notes(judge: Judge) -> Iterator[str]:
    """Yield what a reader must know of every judge."""
    yield "an answer whose verdict cannot be read has no score; such verdicts are counted"
    yield "two judges can disagree in direction: compare scores of the same judge and profile only"
    if judge.profile.name != "rubric":
        yield f"profile {judge.profile.name}: made by what is published, and tested without the real weights"


def judged_value(verdict: JudgeVerdict) -> dict[str, Any]:
    """Return what is kept of a verdict."""
    return {**verdict.values, "judge_cut": verdict.cut}


def unjudged_value(judge: Judge) -> dict[str, Any]:
    """Return what is kept of an answer that the judge was not asked about: it misses in no count of verdicts."""
    return {**{measure.name: None for measure in judge.measures}, "judge_cut": None}


def judged_counts(judge: Judge, values: Sequence[Value]) -> dict[str, int]:
    """Return how many answers were judged, how many verdicts lack a number, by measure, and what was seen in part."""
    judged = [value for value in values if value["judge_cut"] is not None]
    missing = {f"unparsable_{m.name}": sum(value[m.name] is None for value in judged) for m in judge.measures}
    return {"judged": len(judged), **missing, "judge_cut": sum(bool(value["judge_cut"]) for value in judged)}


def judged_warnings(judge: Judge, outcome: SuiteOutcome) -> Iterator[str]:
    """Yield how many verdicts could not be read, with what that leaves open, and what the judge did not see."""
    counts = outcome.counts
    n = counts.get("judged", 0)
    for measure in judge.measures:
        missing = counts.get(f"unparsable_{measure.name}", 0)
        if not missing:
            continue
        told = f"{missing} of {n} {measure.name} verdicts of {judge.title} could not be read and count nowhere"
        if missing > MANY * n:
            known = sum(value for value in outcome.columns[measure.name].values if value is not None)
            low, high = ((known + missing * end) / n for end in (measure.least, measure.most))
            told += f": with them {low:.2f} to {high:.2f}"
        yield told
    if cut := counts.get("judge_cut", 0):
        limit = "the part that it has room for" if judge.profile.head else f"the first {MAX_JUDGED:,} characters"
        yield f"{cut} of {n} requests or answers were longer than {judge.title} sees: it judged {limit}"


def refuse_silence(judge: Judge, verdicts: Mapping[int, Value], total: int) -> None:
    """Raise JudgeError where none of the verdicts so far has any number, and they are enough, or all, to tell."""
    judged = [value for value in verdicts.values() if value["judge_cut"] is not None]
    if not judged or (len(verdicts) < total and len(judged) < SILENT):
        return
    if all(value[m.name] is None for value in judged for m in judge.measures):
        raise JudgeError(
            f"none of {len(judged)} replies of {judge.title} is a verdict by profile {judge.profile.name}",
            fix=worded("name a model that judges, or another {judge_profile}"),
        )
