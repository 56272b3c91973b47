"""Outcomes of suites made by hand, as a bench finds them for one state of a model."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.evaluate.bench import Outcomes
from s3lora.evaluate.results import Key, Measure, MeasureColumn, SuiteOutcome

UTILITY: Key = ("task-loss", "loss")
LOSS = Measure("loss", "mean", "lower", "by hand", role="utility")
#: Losses of fifty tasks: of the base, and of an adapter that learned about 1 of each.
BASE_LOSS = [2 + (7 * i % 11 - 5) / 50 for i in range(50)]
ADAPTER_LOSS = [value - 1 + (3 * i % 7 - 3) / 30 for i, value in enumerate(BASE_LOSS)]

Items = Sequence[float | None]


def ones(count: int, of: int = 100) -> list[float]:
    """Return `of` items of which the first `count` are 1."""
    return [1.0] * count + [0.0] * (of - count)


def lost(share: float) -> list[float]:
    """Return losses of which about this share of what was learned is lost, a little more or less on each task."""
    rows = enumerate(zip(ADAPTER_LOSS, BASE_LOSS, strict=True))
    return [a + (share + ((5 * i % 9) - 4) / 200) * (b - a) for i, (a, b) in rows]


def outcomes(
    asr: Items,
    over: Items = (),
    loss: Items = (),
    odd: Items = (),
    odd_benign: Items = (),
    clusters: tuple[str, ...] | None = None,
    name: str = "task-loss",
) -> Outcomes:
    """Return what one state of a model does; `clusters` are those of the harmful prompts."""
    over = over or ones(0)
    columns = {
        "asr": MeasureColumn(tuple(asr), clusters=clusters),
        "over_refusal": MeasureColumn(tuple(over)),
        "degenerate": MeasureColumn(tuple(odd or ones(0, len(asr))), clusters=clusters),
        "degenerate_benign": MeasureColumn(tuple(odd_benign or ones(0, len(over)))),
    }
    return {"safety": SuiteOutcome(columns), name: SuiteOutcome({"loss": MeasureColumn(tuple(loss or ADAPTER_LOSS))})}
