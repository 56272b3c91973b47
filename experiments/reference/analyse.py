"""What the sweeps of the reference experiment say together: means over adapters, and differences with intervals.

The unit is the adapter: prompts within one adapter are not independent evidence on a ranking. A difference between two
rankings is taken adapter by adapter, as the mean over the numbers of modules pruned, and its interval is Student's over
adapters. Cost is the share of what an adapter learned over its base that is lost, by the mean loss of plans.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.differences import Difference, corrected, student

MEASURES = {name: ("safety", name) for name in ("asr", "asr_zou", "over_refusal")}
MEASURES |= {name: ("planning", name) for name in ("well_formed", "exact_match")}
MEASURES |= {"loss": ("planning-loss", "loss"), "maths": ("maths-loss", "loss"), "code": ("code-loss", "loss")}
#: The share of what was learned that is lost, and the mean ASR over all such shares: both come from the loss of plans.
LOST, EQUAL = "lost", "asr at equal share lost"


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
        if measure == LOST:
            return lost(self.at(ranking, top, "loss"), *self.ends)
        return fmean(value_of(point, measure) for point in self.points[ranking, top])

    def energy(self, ranking: str, top: int) -> float:
        """Return the share of Frobenius energy pruned."""
        return fmean(point["frobenius_energy"] for point in self.points[ranking, top])

    def mean(self, ranking: str, measure: str) -> float:
        """Return the mean of a measure over the numbers of modules pruned, or over the shares lost for `EQUAL`."""
        if measure == EQUAL:
            return self.at_equal_share(ranking)
        return fmean(self.at(ranking, top, measure) for top in self.tops)

    @property
    def ends(self) -> tuple[float, float]:
        """The loss of the whole adapter, and that of the base."""
        return self.variant("unpruned", "loss"), self.variant("base", "loss")

    def at_equal_share(self, ranking: str) -> float:
        """Return the mean ASR over the shares lost, from the whole adapter to the base, between the points by lines."""
        path = [(self.variant(name, LOST), self.variant(name, "asr")) for name in ("unpruned", "base")]
        path += [(self.at(ranking, top, LOST), self.at(ranking, top, "asr")) for top in self.tops]
        steps = list(pairwise(sorted(path)))
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in steps)
        return area / (steps[-1][1][0] - steps[0][0][0])

    def variant(self, name: str, measure: str) -> float:
        """Return a measure of the `base` or the `unpruned` adapter."""
        if measure == LOST:
            return lost(self.variant(name, "loss"), *self.ends)
        return value_of(self.parts["main"][name], measure)


def load(folder: Path) -> list[Run]:
    """Read all runs, in the order of their names."""
    found = []
    for path in sorted(set(folder.glob("*-[0-9].json")) - set(folder.glob("tune-*"))):
        document = json.loads(path.read_text(encoding="utf-8"))
        found.append(Run(**document.pop("run"), parts=document))
    return found


def lost(loss: float, adapter: float, base: float) -> float:
    """Return the share of what was learned that is lost: 0 for the adapter, 1 for the base.

    Raises ValueError where the adapter is not better than the base: then there is nothing that could be lost.
    """
    if not adapter < base:
        raise ValueError("by the loss of plans the adapter is no better than its base, so no share of it can be lost")
    return (loss - adapter) / (base - adapter)


def value_of(holder: dict[str, Any], measure: str) -> float:
    """Return the value of a metric of a point or variant."""
    return float(metric_of(holder, measure)["value"])


def metric_of(holder: dict[str, Any], measure: str) -> dict[str, Any]:
    """Return a metric of a point or variant."""
    suite, name = MEASURES[measure]
    found: dict[str, Any] = next(m for m in holder["metrics"] if (m["suite"], m["measure"]) == (suite, name))
    return found


def contrast(runs: Iterable[Run], a: str, b: str, measure: str = "asr") -> Difference:
    """Return a − b, each a mean as of `Run.mean`, over the adapters that have both."""
    both = [run for run in runs if {a, b} <= set(run.rankings)]
    return student([run.mean(a, measure) - run.mean(b, measure) for run in both])


def contrasts(runs: Sequence[Run], pairs: Sequence[tuple[str, str]], measure: str) -> list[Difference]:
    """Return the contrast of every pair, with p by Holm: corrected for the number of pairs."""
    return corrected([contrast(runs, a, b, measure) for a, b in pairs])


def over(values: Iterable[float]) -> tuple[float, float, float]:
    """Return mean, least and greatest of a number over adapters."""
    found = list(values)
    return fmean(found), min(found), max(found)
