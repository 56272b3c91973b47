"""Notes stand behind the results, and each of them once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from rich.console import RenderableType

from s3lora.evaluate.results import Data, SweepPoint
from s3lora.report.evaluation_text import evaluation_text
from s3lora.report.notes import once
from s3lora.report.sweep_text import sweep_text, tuning_text
from tests.report import measured
from tests.report.test_measured_text import shown


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        ([], []),
        (["few items", "few items"], ["few items"]),
        (["a: cut off", "few items", "b: cut off"], ["a and b: cut off", "few items"]),
        (["a: cut off", "b: cut off", "c: cut off"], ["a, b and c: cut off"]),
        ([f"{name}: cut off" for name in "abcde"], ["a, b, c and 2 more: cut off"]),
        (["a: 1 cut off", "b: 2 cut off"], ["a: 1 cut off", "b: 2 cut off"]),
        (["a: x: y", "a: b: x: y"], ["a and a: b: x: y"]),
        (["a: cut off", "cut off"], ["a: cut off", "cut off"]),
        (["unknown: cut off", "stranger: cut off"], ["unknown: cut off", "stranger: cut off"]),
    ],
)
def test_once(notes: list[str], told: list[str]) -> None:
    assert once(notes, ["a", "b", "c", "d", "e", "a: b"]) == told


DATA = ("harmful", "benign")
NOTES = ("harmful: 9 prompts are few", "benign: 9 prompts are few", "an empty answer counts as not refused")


def reports() -> dict[str, RenderableType]:
    data = tuple(Data(name, 9, "0" * 64) for name in DATA)
    suites = tuple(dataclasses.replace(suite, notes=NOTES, data=data) for suite in measured.SUITES)
    sweep, tuning = measured.sweep(), measured.tuning()
    return {
        "eval": evaluation_text(
            dataclasses.replace(measured.evaluation(), suites=suites, warnings=said("base", "top 30 by weighted-ssi"))
        ),
        "sweep": sweep_text(dataclasses.replace(sweep, suites=suites, warnings=said(*names(sweep.points)))),
        "tune": tuning_text(dataclasses.replace(tuning, suites=suites, warnings=said(*names(tuning.tried)))),
    }


def names(points: Sequence[SweepPoint]) -> list[str]:
    return [point.comparisons[0].variant for point in points[:2]]


def said(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}: 2 of 9 answers were cut off" for name in names)


@pytest.mark.parametrize("kind", ["eval", "sweep", "tune"])
def test_notes_follow_the_results(kind: str) -> None:
    text = shown(reports()[kind], 110)
    results, _, rest = text.partition("\nhow safety was measured\n")
    assert "asr" in results
    assert not [line for line in results.splitlines() if line.strip().startswith("note ")]
    notes = rest[rest.index("\nnote ") :]
    assert all(line.startswith(("note ", " ")) or not line for line in notes.splitlines())
    for once_only in ("harmful and benign: 9 prompts are few", "2 of 9 answers were cut off", NOTES[2]):
        assert text.count(once_only) == notes.count(once_only) == 1, once_only
    assert text.count("prompts are few") == 1
