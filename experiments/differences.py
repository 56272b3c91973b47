"""Differences over a few adapters, and which of them may stand out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from s3lora.statistics import holm
from s3lora.statistics.student import quantile, tail

#: Fewer adapters than this show nothing, whatever their interval: it rests on a variance known from two or three.
ENOUGH = 5
#: What p must be below.
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A mean difference over n adapters between the ends of its 95 % interval, and in how many it is below 0.

    `p` is that of no difference; where several were compared, corrected for their number.
    """

    mean: float
    low: float
    high: float
    n: int
    lower: int
    p: float

    @property
    def telling(self) -> bool:
        """Whether it may stand out: p is small enough, and it is of enough adapters to be more than a hint."""
        return self.p < LEVEL and self.n >= ENOUGH

    @property
    def verdict(self) -> str:
        """Say which is lower, or that no difference can be told."""
        if self.low <= 0 <= self.high:
            return "no difference"
        return "lower" if self.mean < 0 else "higher"

    @property
    def text(self) -> str:
        """Say the difference with its interval, in bold where it may stand out."""
        said = f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"
        return f"**{said}**" if self.telling else said

    @property
    def p_text(self) -> str:
        """Say p, which is no smaller than what a reader can use."""
        return "< 0.001" if self.p < 0.001 else f"{self.p:.3f}"


def student(values: Sequence[float]) -> Difference:
    """Return the mean with Student's interval; it needs two values."""
    mean, n = fmean(values), len(values)
    error = stdev(values) / math.sqrt(n)
    half = quantile(n - 1) * error
    t = abs(mean) / error if error else math.inf if mean else 0.0
    return Difference(mean, mean - half, mean + half, n, sum(value < 0 for value in values), 2 * tail(t, n - 1))


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """Return differences with p by Holm: corrected for how many they are."""
    by_holm = holm([difference.p for difference in found])
    return [replace(difference, p=p) for difference, p in zip(found, by_holm, strict=True)]
