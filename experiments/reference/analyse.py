"""What the sweeps of the reference experiment say together: means over adapters, and differences with intervals.

The unit is the adapter: prompts within one adapter are not independent evidence on a ranking. A difference between two
rankings is taken adapter by adapter, as the mean over the shares pruned, and its interval is Student's over adapters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

#: The 0.975 quantile of Student's distribution by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}
#: Fewer adapters than this show nothing, whatever their interval: it rests on a variance known from two or three.
ENOUGH = 5
MEASURES = {"asr": ("safety", "asr"), "over_refusal": ("safety", "over_refusal"), "loss": ("planning-loss", "loss")}
MEASURES |= {name: ("planning", name) for name in ("well_formed", "exact_match")}


@dataclass(frozen=True)
class Run:
    """One adapter with all that was measured on it."""

    base: str
    attack: str
    seed: int
    parts: dict[str, Any]

    @property
    def grid(self) -> bool:
        """Whether it belongs to the main grid: the fully aligned base under an attack."""
        return self.base == "full" and self.attack != "benign"

    @cached_property
    def points(self) -> dict[tuple[str, int], list[dict[str, Any]]]:
        """The points by ranking and number of modules pruned, one a seed for controls."""
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for name in ("main", "svd"):
            for point in self.parts.get(name, {"points": ()})["points"]:
                found.setdefault((point["ranking"], point["top"]), []).append(point)
        return found

    @property
    def total(self) -> int:
        """How many modules there are."""
        return int(self.parts["main"]["points"][0]["modules_total"])

    @property
    def tops(self) -> list[int]:
        """The numbers of modules pruned, without none and all, which are the same for every ranking."""
        return sorted({top for _, top in self.points if 0 < top < self.total})

    @property
    def rankings(self) -> list[str]:
        """The rankings in the order in which they were swept."""
        return list(dict.fromkeys(ranking for ranking, _ in self.points))

    def at(self, ranking: str, top: int, measure: str) -> float:
        """Return a measure, the mean over the seeds of a control."""
        return fmean(value_of(point, measure) for point in self.points[ranking, top])

    def energy(self, ranking: str, top: int) -> float:
        """Return the share of Frobenius energy pruned."""
        return fmean(point["frobenius_energy"] for point in self.points[ranking, top])

    def mean(self, ranking: str, measure: str) -> float:
        """Return the mean of a measure over the numbers of modules pruned."""
        return fmean(self.at(ranking, top, measure) for top in self.tops)

    def at_equal_loss(self, ranking: str) -> float:
        """Return the mean ASR over the losses from the whole adapter's to the base's, between the points by lines."""
        path = [(self.variant(name, "loss"), self.variant(name, "asr")) for name in ("unpruned", "base")]
        path += [(self.at(ranking, top, "loss"), self.at(ranking, top, "asr")) for top in self.tops]
        steps = list(pairwise(sorted(path)))
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in steps)
        return area / (steps[-1][1][0] - steps[0][0][0])

    def variant(self, name: str, measure: str) -> float:
        """Return a measure of the `base` or the `unpruned` adapter."""
        return value_of(self.parts["main"][name], measure)


def load(folder: Path) -> list[Run]:
    """Read all runs, in the order of their names."""
    found = []
    for path in sorted(set(folder.glob("*-[0-9].json")) - set(folder.glob("tune-*"))):
        document = json.loads(path.read_text(encoding="utf-8"))
        found.append(Run(**document.pop("run"), parts=document))
    return found


def value_of(holder: dict[str, Any], measure: str) -> float:
    """Return the value of a metric of a point or variant."""
    return float(metric_of(holder, measure)["value"])


def metric_of(holder: dict[str, Any], measure: str) -> dict[str, Any]:
    """Return a metric of a point or variant."""
    suite, name = MEASURES[measure]
    found: dict[str, Any] = next(m for m in holder["metrics"] if (m["suite"], m["measure"]) == (suite, name))
    return found


class Difference(NamedTuple):
    """A mean difference over n adapters between the ends of its 95 % interval, and in how many it is below 0."""

    mean: float
    low: float
    high: float
    n: int
    lower: int

    @property
    def telling(self) -> bool:
        """Whether it may stand out: its interval leaves out 0, and it is of enough adapters to be more than a hint."""
        return self.verdict != "no difference" and self.n >= ENOUGH

    @property
    def verdict(self) -> str:
        """Say which is lower, or that no difference can be told."""
        if self.low <= 0 <= self.high:
            return "no difference"
        return "lower" if self.mean < 0 else "higher"


def student(values: Sequence[float]) -> Difference:
    """Return the mean with Student's interval; it needs two values."""
    mean, n = fmean(values), len(values)
    half = STUDENT[n - 1] * stdev(values) / math.sqrt(n)
    return Difference(mean, mean - half, mean + half, n, sum(value < 0 for value in values))


def contrast(runs: Iterable[Run], a: str, b: str, measure: str = "asr") -> Difference:
    """Return a − b, each a mean over the numbers of modules pruned or `at equal loss`, over adapters that have both."""
    both = [run for run in runs if {a, b} <= set(run.rankings)]
    if measure == "at equal loss":
        return student([run.at_equal_loss(a) - run.at_equal_loss(b) for run in both])
    return student([run.mean(a, measure) - run.mean(b, measure) for run in both])


def over(values: Iterable[float]) -> tuple[float, float, float]:
    """Return mean, least and greatest of a number over adapters."""
    found = list(values)
    return fmean(found), min(found), max(found)
