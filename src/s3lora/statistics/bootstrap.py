"""Means and differences of means, with intervals by a bootstrap over items or clusters of items."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from s3lora.statistics.interval import Clusters, Interval, Numbers, cluster_sums, same_items, weighted
from s3lora.statistics.student import quantile

#: Percent of a normal distribution beyond Z on one side.
TAIL = 2.5
RESAMPLES = 10_000
#: Differences this small, as a share of the values, are rounding.
NOISE = 1e-12
#: Resampled items that are held in memory at once.
CHUNK = 2_000_000


def bootstrap_mean(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    clusters: Clusters = None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the mean Σwv / Σw with its expanded percentile bootstrap interval over items."""
    v, w = weighted(values, weights)
    return _bootstrap(cluster_sums(np.stack([v * w, w]), clusters), lambda sums: sums[0] / sums[1], seed, resamples)[0]


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    weights: ArrayLike | None = None,
    clusters: Clusters = None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[Interval, float]:
    """Return the mean of b − a over the same items with its bootstrap interval, and a two-sided p-value.

    p is twice the smaller share of resamples on one side of 0, with one added to both counts; but at least
    2 · 2^−k where k items or clusters differ: were there no effect, each could as well have differed the other way.
    """
    x, y = same_items(a, b)
    d, w = weighted(y - x, weights)
    noise = NOISE * max(float(np.max(np.abs(x))), float(np.max(np.abs(y))))

    def mean(sums: Numbers) -> Numbers:
        found: Numbers = sums[0] / sums[1]
        # Where differences cancel, rounding must not decide on which side of 0 a resample lies.
        return np.where(np.abs(found) <= noise, 0.0, found)

    rows = cluster_sums(np.stack([d * w, w]), clusters)
    interval, means = _bootstrap(rows, mean, seed, resamples)
    side = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    least = 2.0 ** (1 - int(np.sum(np.abs(rows[0]) > noise)))
    return interval, min(1.0, max(least, 2 * (side + 1) / (len(means) + 1)))


def _bootstrap(rows: Numbers, of: Callable[[Numbers], Numbers], seed: int, resamples: int) -> tuple[Interval, Numbers]:
    """Return a statistic of sums over items, (k, n) → (k,), with its interval, and all resamples of it.

    The number of times that each item is drawn is multinomial; the weighted sums are then one matrix product.
    """
    n = rows.shape[1]
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // n)
    parts = []
    for start in range(0, resamples, step):
        times = random.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - start))
        parts.append(of(rows @ times.T))
    found = np.concatenate(parts)
    value = float(of(rows.sum(axis=1, keepdims=True))[0])
    # The outer of two neighbours, not a mean of them, which infinite resamples do not have.
    tail = _tail(n)
    low, high = np.percentile(found, tail, method="lower"), np.percentile(found, 100 - tail, method="higher")
    return Interval(value, float(low), float(high)), found


def _tail(n: int) -> float:
    """Return the percentage of resamples to leave out at each end, 2.5 for many items and less for few.

    Hesterberg 2015 (The American Statistician 69, 371), the expanded percentile interval: resamples of n items spread
    too little by √((n − 1) / n), and a normal tail falls short of Student's. So the tail is that of a normal variable
    beyond √(n / (n − 1)) t, with Student's quantile t.
    """
    if n < 2:
        return TAIL
    t = quantile(n - 1)
    return 50 * math.erfc(math.sqrt(n / (n - 1)) * t / math.sqrt(2))
