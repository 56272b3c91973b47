"""Relative changes of rates and of means."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from s3lora.statistics.bootstrap import RESAMPLES
from s3lora.statistics.bootstrap import _bootstrap as bootstrap
from s3lora.statistics.interval import Interval, Numbers, rates, same_items, score_interval, weighted
from s3lora.statistics.student import Z


def table_of(a: ArrayLike, b: ArrayLike) -> tuple[int, int, int, int]:
    """Return how many items have a 1 in both, in a only, in b only, and in neither."""
    x, y = same_items(a, b)
    x, y = rates(x), rates(y)
    both, only_a, only_b = (int(np.sum(cell)) for cell in (x * y, x * (1 - y), (1 - x) * y))
    return both, only_a, only_b, len(x) - both - only_a - only_b


def relative_rate_change(a: ArrayLike, b: ArrayLike) -> Interval | None:
    """Return (rate b − rate a) / rate a on the same items, 0 or 1 each, with its interval; None where rate a is 0.

    Bonett and Price 2006 (Statistics in Medicine 25, 3039): Wilson's intervals of both rates among the items with a 1
    on either side, at a confidence that is adjusted so that their ratio has 95 %. A bootstrap knows no change that it
    has not seen: it would give an interval of width 0 where all items agree, however few they are.
    """
    both, only_a, only_b, _ = table_of(a, b)
    n, x, y = both + only_a + only_b, both + only_a, both + only_b
    if x == 0:
        return None
    joint = math.sqrt((only_a + only_b + 2) / ((x + 1) * (y + 1)))
    apart = sum(math.sqrt((1 - (count + 1) / (n + 2)) / (count + 1)) for count in (x, y))
    p, q = (score_interval(count / n, n, Z * joint / apart) for count in (y, x))
    return Interval((y - x) / x, p.low / q.high - 1, p.high / q.low - 1)


def relative_change(
    a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, *, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Return (mean b − mean a) / |mean a| over the same items with its bootstrap interval.

    None where mean a is 0, and for a single item, which tells nothing of its spread. The ends may be infinite.
    """
    x, y = same_items(a, b)
    x, w = weighted(x, weights)
    y, _ = weighted(y, weights)
    if len(x) < 2 or np.sum(x * w) == 0:
        return None

    def ratio(sums: Numbers) -> Numbers:
        with np.errstate(divide="ignore", invalid="ignore"):
            change: Numbers = (sums[1] - sums[0]) / np.abs(sums[0])
        # A resample without anything to lose says nothing; counted as no change where it gained nothing either.
        return np.where(np.isnan(change), 0.0, change)

    return bootstrap(np.stack([x * w, y * w]), ratio, seed, resamples)[0]
