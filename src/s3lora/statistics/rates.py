"""Two rates on the same items: the interval of their difference, and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from s3lora.statistics.interval import (
    Clusters,
    Interval,
    Numbers,
    cluster_sums,
    effective_size,
    rates,
    same_items,
)
from s3lora.statistics.student import Z

#: A standard normal value lies below this with the power that is asked for, 0.8 (`learned.POWER`).
Z_POWER = 0.8416212335729143


def paired_rate_difference(a: ArrayLike, b: ArrayLike, clusters: Clusters = None) -> Interval:
    """Return the difference b − a of two rates on the same items, 0 or 1 each, with Tango's score interval.

    All Δ that the score test cannot tell from the difference seen (Tango 1998, Statistics in Medicine 17, 891); among
    the intervals for pairs it covers best where items are few (`benchmarks/simulate_statistics.py`). Items in clusters
    count as so many as their differences are worth.
    """
    x, y = _pairs(a, b)
    scale = effective_size(y - x, clusters) / len(x)
    n, fell, rose = (scale * float(np.sum(cell)) for cell in (np.ones_like(x), x * (1 - y), (1 - x) * y))
    seen = (rose - fell) / n

    def score(difference: float) -> float:
        """Return how many standard errors lie between what was seen and a difference."""
        variance = n * _likeliest_variance(fell / n, rose / n, difference)
        off = rose - fell - n * difference
        return off / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, off)

    low = _crossing(score, Z, -1.0, seen) if seen > -1 else -1.0
    return Interval(seen, low, _crossing(score, -Z, seen, 1.0) if seen < 1 else 1.0)


def _likeliest_variance(fell: float, rose: float, difference: float) -> float:
    """Return the variance of an item's change where the difference is given, and these shares fell and rose.

    The share that fell is then the most likely one.
    """
    b = (2 - rose + fell) * difference - rose - fell
    share = (math.sqrt(max(0.0, b * b + 8 * fell * difference * (1 - difference))) - b) / 4
    return 2 * share + difference * (1 - difference)


def items_needed(a: ArrayLike, b: ArrayLike, limit: float, clusters: Clusters = None) -> int | None:
    """Return of how many items the interval of b − a lies below a limit in [0, 1), with a power of 0.8.

    What was seen is taken for the truth: as many items rise and fall, as a share, and clusters are worth as much. None
    where the difference seen is no less than the limit. The formula is that of the score test (Nam 1997, Biometrics 53,
    1422). With no item that changed it is the number at which no event rules the limit out.

    >>> items_needed([0] * 50, [0] * 50, 0.05)
    73
    """
    x, y = _pairs(a, b)
    scale = effective_size(y - x, clusters) / len(x)
    fell, rose = float(np.mean(x * (1 - y))), float(np.mean((1 - x) * y))
    seen = rose - fell
    if seen >= limit:
        return None
    spread = math.sqrt(max(0.0, rose + fell - seen * seen))
    given = math.sqrt(max(0.0, _likeliest_variance(fell, rose, limit)))
    return math.ceil(((Z * given + Z_POWER * spread) / (limit - seen)) ** 2 / scale)


def _crossing(falling: Callable[[float], float], level: float, low: float, high: float) -> float:
    """Return where a falling function takes a value."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return (low + high) / 2


def mcnemar(a: ArrayLike, b: ArrayLike, clusters: Clusters = None) -> float:
    """Return the two-sided mid-p value of McNemar's test of items that are 0 or 1 on both sides.

    Were there no effect, each item that differs could as well have differed the other way; clusters do so as a whole.
    Of the outcomes as likely as the one seen half are counted (Fagerland, Lydersen and Laake 2013, BMC Medical Research
    Methodology 13, 91): the exact test counts all of them, and misses effects for it.

    >>> mcnemar([1] * 6, [0] * 6)
    0.015625
    """
    x, y = _pairs(a, b)
    sums = cluster_sums((y - x)[None, :], clusters)[0]
    sizes = [round(abs(size)) for size in sums[sums != 0].tolist()]
    return _mid_p(sizes, round(abs(float(np.sum(sums)))))


def _mid_p(sizes: Sequence[int], seen: int) -> float:
    """Return the mid-p of |Σ ± size| = seen where all signs are equally likely; ways are counted in whole numbers."""
    total = sum(sizes)
    if seen == 0 or total == 0:
        return 1.0
    if max(sizes) == 1:
        beyond, at = 0, 1
        for k in range((total - seen) // 2):
            beyond, at = beyond + at, at * (total - k) // (k + 1)
        return float((2 * beyond + at) / 2**total)
    ways = {0: 1}
    for size in sizes:
        found: dict[int, int] = {}
        for value, count in ways.items():
            for end in (value - size, value + size):
                found[end] = found.get(end, 0) + count
        ways = found
    beyond = sum(count for value, count in ways.items() if value > seen)
    return float((2 * beyond + ways[seen]) / 2 ** len(sizes))


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[Numbers, Numbers]:
    x, y = same_items(a, b)
    return rates(x), rates(y)
