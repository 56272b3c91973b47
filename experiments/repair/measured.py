"""Strengths from the tuning part, and the numbers of one state of an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.repair.rows import Row, Shelf
from s3lora.evaluate.bench import Outcomes
from s3lora.evaluate.results import Metric
from s3lora.repair.geometry import moved
from s3lora.repair.measuring import PartBench
from s3lora.repair.methods.method import Learned
from s3lora.repair.rising import reach
from s3lora.rewrite.factors import NewFactors

#: How near to a level is near enough, as a share of it.
NEAR = 0.1
#: Strengths of a row that has several levels, at least.
THREE = 3
#: The measures that are kept of a state.
KEPT = ("asr", "asr_zou", "over_refusal", "degenerate", "degenerate_benign", "loss")
DIGITS = 6


@dataclass(frozen=True)
class Ends:
    """What base and adapter do on a part."""

    base: Outcomes
    adapter: Outcomes


def steps_of(learned: Learned) -> int | None:
    """Return into how many steps the strengths of a row that takes whole things fall; None for one that does not."""
    ranked = getattr(learned, "ranked", None)
    return None if ranked is None else len(ranked)


def whole(strength: float, steps: int | None) -> float:
    """Return the strength that is meant: rounded to whole steps.

    >>> whole(0.3, 4), whole(0.3, None)
    (0.25, 0.3)
    """
    return strength if steps is None else round(strength * steps) / steps


class Losses:
    """The share of what was learned that a row loses on a part, each strength measured once."""

    def __init__(self, bench: PartBench, ends: Ends, learned: Learned, name: str) -> None:
        """Begin with what costs nothing."""
        self.bench, self.ends, self.learned, self.name = bench, ends, learned, name
        self.steps = steps_of(learned)
        self.known: dict[float, float | None] = {0.0: 0.0}

    def __call__(self, strength: float) -> float | None:
        """Return the share at a strength; None where it cannot be told."""
        at = whole(strength, self.steps)
        if at not in self.known:
            ends = (self.ends.base, self.ends.adapter)
            self.known[at] = self.bench.utility_loss(self.learned.at(at), f"{self.name} at {at:g}", *ends)
        return self.known[at]


def find_levels(loss: Losses, levels: Sequence[float]) -> dict[float, float | None]:
    """Return the strength of each level, from below; None where none that was tried keeps to it."""
    return {level: whole(reach(loss, level, NEAR)[0], loss.steps) or None for level in levels}


def strengths_of(found: Mapping[float, float | None], known: Sequence[float], steps: int | None) -> list[float]:
    """Return the strengths to measure, ascending.

    Parameters:
        found: the strength of each level.
        known: all strengths whose loss is known; the lowest is measured where no level has one.
        steps: see `steps_of`.

    Of a row with several levels there are three, where three differ: thirds of the highest fill up.
    """
    chosen = {strength for strength in found.values() if strength}
    if not chosen:
        return [min(strength for strength in known if strength)]
    for share in (2 / 3, 1 / 3):
        part = whole(max(chosen) * share, steps)
        if len(found) > 1 and len(chosen) < THREE and part:
            chosen.add(part)
    return sorted(chosen)


def state(bench: PartBench, outcomes: Outcomes, ends: Ends | None = None, *, items: bool = False) -> dict[str, Any]:
    """Return the numbers of a state with their intervals.

    Parameters:
        bench: what measured it.
        outcomes: what it found.
        ends: where given, the share of what was learned that is lost is told too.
        items: keep which harmful prompts were not refused and which harmless ones were, as digits in their order.
    """
    metrics = bench.whole.metrics(outcomes)
    found = {metric.measure: number(metric) for metric in metrics if metric.measure in KEPT}
    if ends is not None:
        share = bench.whole.shares("", outcomes, "", ends.adapter, ends.base)[0]
        found["share"] = interval(share.value, share.low, share.high, share.n)
    if items:
        for name in ("asr", "over_refusal"):
            values = outcomes["safety"].columns[name].values
            found[name]["items"] = "".join("?" if value is None else str(int(value)) for value in values)
    return found


def number(metric: Metric) -> dict[str, Any]:
    """Return a metric as it is kept."""
    return interval(metric.value, metric.low, metric.high, metric.n)


def interval(value: float | None, low: float | None, high: float | None, n: int) -> dict[str, Any]:
    """Return a value with its interval and n, rounded so that the file stays short."""
    ends = {"value": value, "low": low, "high": high}
    return {**{name: None if end is None else round(end, DIGITS) for name, end in ends.items()}, "n": n}


def point(
    shelf: Shelf, row: Row, strength: float, bench: PartBench, ends: Ends, *, items: bool = False
) -> dict[str, Any]:
    """Return the strength of a row, and all numbers there."""
    learned = shelf.of(row)
    outcomes = bench.adapter(learned.at(strength), f"{row.name} at {strength:g}")
    steps = steps_of(learned)
    taken = {} if steps is None else {"taken": round(strength * steps), "of": steps}
    return {"strength": strength, **taken, **state(bench, outcomes, ends, items=items)}


def geometry(shelf: Shelf, factors: NewFactors) -> dict[str, float | None]:
    """Return ‖ΔW′‖ / ‖ΔW‖ and cos(ΔW′, ΔW)."""
    found = moved(shelf.subject.adapter.modules, factors)
    names = {"norm": found.norm_ratio, "cosine": found.cosine}
    return {name: None if value is None else round(value, DIGITS) for name, value in names.items()}
