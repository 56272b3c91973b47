"""Intervals, paired tests and rank correlation: small, exact where that is possible, seeded where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

#: The 0.975 quantile of the standard normal distribution: all intervals are two-sided at 95 %.
Z = 1.959963984540054
TAIL = 2.5
RESAMPLES = 10_000
#: Resampled items that are held in memory at once.
CHUNK = 2_000_000


class Interval(NamedTuple):
    """An estimate between the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int) -> Interval:
    """Return a rate with Wilson's score interval (1927), for n ≥ 1 items."""
    _check(n >= 1 and 0 <= successes <= n, "wilson needs 0 ≤ successes ≤ n and n ≥ 1")
    p = successes / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    # Rounding must not take the ends off what they are exactly at rates of 0 and 1.
    return Interval(p, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def paired_rate_difference(a: ArrayLike, b: ArrayLike) -> Interval:
    """Return the difference b − a of two rates on the same items, 0 or 1 each, with Newcombe's interval.

    Newcombe 1998 (Statistics in Medicine 17, 2635), method 10: Wilson's intervals of both rates, joined by the
    correlation φ of the pairs, which is corrected for continuity where it is positive.
    """
    x, y = _same_items(a, b)
    n = len(x)
    both, only_x = float(np.sum(x * y)), float(np.sum(x * (1 - y)))
    only_y, neither = float(np.sum(y * (1 - x))), float(np.sum((1 - x) * (1 - y)))
    p, q = wilson(round(np.sum(y)), n), wilson(round(np.sum(x)), n)
    margins = (both + only_x) * (only_y + neither) * (both + only_y) * (only_x + neither)
    cross = both * neither - only_x * only_y
    corrected = max(cross - n / 2, 0.0) if cross > 0 else cross
    phi = corrected / math.sqrt(margins) if margins > 0 else 0.0

    def reach(mine: float, other: float) -> float:
        return math.sqrt(max(0.0, mine * mine - 2 * phi * mine * other + other * other))

    difference = p.value - q.value
    low = difference - reach(p.value - p.low, q.high - q.value)
    high = difference + reach(p.high - p.value, q.value - q.low)
    return Interval(difference, max(-1.0, low), min(1.0, high))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's test, exact (binomial), from the pairs that differ."""
    _check(only_a >= 0 and only_b >= 0, "mcnemar needs counts")
    n, least = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, float(2 * tail / 2**n) if n < 1000 else 2 * math.exp(math.log(tail) - n * math.log(2)))


def bootstrap_mean(
    values: ArrayLike, weights: ArrayLike | None = None, *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean Σwv / Σw with its percentile bootstrap interval over items."""
    v, w = _weighted(values, weights)
    return _bootstrap(np.stack([v * w, w]), lambda sums: sums[0] / sums[1], seed, resamples)[0]


def paired_difference(
    a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, *, seed: int, resamples: int = RESAMPLES
) -> tuple[Interval, float]:
    """Return the mean of b − a over the same items with its percentile bootstrap interval, and a two-sided p-value.

    p is twice the smaller share of resamples on one side of 0, with one added to both counts.
    """
    x, y = _same_items(a, b)
    d, w = _weighted(y - x, weights)
    interval, means = _bootstrap(np.stack([d * w, w]), lambda sums: sums[0] / sums[1], seed, resamples)
    side = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    return interval, min(1.0, 2 * (side + 1) / (len(means) + 1))


def relative_change(
    a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, *, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Return (mean b − mean a) / |mean a| over the same items with its bootstrap interval; None where mean a is 0."""
    x, y = _same_items(a, b)
    x, w = _weighted(x, weights)
    if np.sum(x * w) == 0:
        return None

    def ratio(sums: Float) -> Float:
        with np.errstate(divide="ignore", invalid="ignore"):
            change: Float = (sums[1] - sums[0]) / np.abs(sums[0])
        # A resample without anything to lose says nothing; counted as no change where it gained nothing either.
        return np.where(np.isnan(change), 0.0, change)

    return _bootstrap(np.stack([x * w, y * w]), ratio, seed, resamples)[0]


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation with mean ranks for ties; None for fewer than two items or a constant."""
    _check(len(x) == len(y), "spearman needs as many values on both sides")
    if len(x) < 2 or min(x) == max(x) or min(y) == max(y):
        return None
    p, q = _ranks(x), _ranks(y)
    p, q = p - p.mean(), q - q.mean()
    return float(np.clip(p @ q / math.sqrt(float(p @ p) * float(q @ q)), -1.0, 1.0))


def _ranks(values: Sequence[float]) -> Float:
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Float = (last - (counts - 1) / 2)[inverse]
    return means


def _bootstrap(rows: Float, of: Callable[[Float], Float], seed: int, resamples: int) -> tuple[Interval, Float]:
    """Return a statistic of sums over items, (k, n) → (k,), with its percentile interval, and all resamples of it.

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
    low, high = np.percentile(found, [TAIL, 100 - TAIL])
    return Interval(value, float(low), float(high)), found


def _weighted(values: ArrayLike, weights: ArrayLike | None) -> tuple[Float, Float]:
    v = np.asarray(values, dtype=np.float64)
    w = np.ones_like(v) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(
        v.ndim == 1 and len(v) > 0 and v.shape == w.shape, "values and weights must be lists of one length, not empty"
    )
    _check(
        bool(np.all(np.isfinite(v)) and np.all(w > 0) and np.all(np.isfinite(w))),
        "values must be finite, weights positive",
    )
    return v, w


def _same_items(a: ArrayLike, b: ArrayLike) -> tuple[Float, Float]:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    _check(x.shape == y.shape and x.ndim == 1 and len(x) > 0, "paired values must be lists of one length, not empty")
    return x, y


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
