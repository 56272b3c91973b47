"""Intervals, paired tests and rank correlation: small, exact where that is possible, seeded where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]

#: The 0.975 quantile of the standard normal distribution: all intervals are two-sided at 95 %.
Z = 1.959963984540054
#: Percent of a normal distribution beyond Z on one side.
TAIL = 2.5
RESAMPLES = 10_000
#: Differences this small, as a share of the values, are rounding.
NOISE = 1e-12
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
    return _wilson(successes, n, Z)


def _wilson(successes: int, n: int, z: float) -> Interval:
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Rounding must not take the ends off what they are exactly at rates of 0 and 1.
    return Interval(p, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def paired_rate_difference(a: ArrayLike, b: ArrayLike) -> Interval:
    """Return the difference b − a of two rates on the same items, 0 or 1 each, with Newcombe's interval.

    Newcombe 1998 (Statistics in Medicine 17, 2635), method 10: Wilson's intervals of both rates, joined by the
    correlation φ of the pairs, which is corrected for continuity where it is positive.
    """
    both, only_x, only_y, neither = _pairs(a, b)
    n = both + only_x + only_y + neither
    p, q = wilson(both + only_y, n), wilson(both + only_x, n)
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


def relative_rate_change(a: ArrayLike, b: ArrayLike) -> Interval | None:
    """Return (rate b − rate a) / rate a on the same items, 0 or 1 each, with its interval; None where rate a is 0.

    Bonett and Price 2006 (Statistics in Medicine 25, 3039): Wilson's intervals of both rates among the items with a 1
    on either side, at a confidence that is adjusted so that their ratio has 95 %. A bootstrap knows no change that it
    has not seen: it would give an interval of width 0 where all items agree, however few they are.
    """
    both, only_a, only_b, _ = _pairs(a, b)
    n, x, y = both + only_a + only_b, both + only_a, both + only_b
    if x == 0:
        return None
    joint = math.sqrt((only_a + only_b + 2) / ((x + 1) * (y + 1)))
    apart = sum(math.sqrt((1 - (count + 1) / (n + 2)) / (count + 1)) for count in (x, y))
    p, q = (_wilson(count, n, Z * joint / apart) for count in (y, x))
    return Interval((y - x) / x, p.low / q.high - 1, p.high / q.low - 1)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's test, exact (binomial), from the pairs that differ."""
    _check(only_a >= 0 and only_b >= 0, "mcnemar needs counts")
    only_a, only_b = int(only_a), int(only_b)  # counts of NumPy's types overflow below
    n, least = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, float(2 * tail / 2**n) if n < 1000 else 2 * math.exp(math.log(tail) - n * math.log(2)))


def bootstrap_mean(
    values: ArrayLike, weights: ArrayLike | None = None, *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean Σwv / Σw with its expanded percentile bootstrap interval over items."""
    v, w = _weighted(values, weights)
    return _bootstrap(np.stack([v * w, w]), lambda sums: sums[0] / sums[1], seed, resamples)[0]


def paired_difference(
    a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, *, seed: int, resamples: int = RESAMPLES
) -> tuple[Interval, float]:
    """Return the mean of b − a over the same items with its bootstrap interval, and a two-sided p-value.

    p is twice the smaller share of resamples on one side of 0, with one added to both counts; but at least
    2 · 2^−k where k items differ: were there no effect, each of them could as well have differed the other way.
    """
    x, y = _same_items(a, b)
    d, w = _weighted(y - x, weights)
    noise = NOISE * max(float(np.max(np.abs(x))), float(np.max(np.abs(y))))

    def mean(sums: Numbers) -> Numbers:
        found: Numbers = sums[0] / sums[1]
        # Where differences cancel, rounding must not decide on which side of 0 a resample lies.
        return np.where(np.abs(found) <= noise, 0.0, found)

    interval, means = _bootstrap(np.stack([d * w, w]), mean, seed, resamples)
    side = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    least = 2.0 ** (1 - int(np.sum(np.abs(d) > noise)))
    return interval, min(1.0, max(least, 2 * (side + 1) / (len(means) + 1)))


def relative_change(
    a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, *, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Return (mean b − mean a) / |mean a| over the same items with its bootstrap interval.

    None where mean a is 0, and for a single item, which tells nothing of its spread. The ends may be infinite.
    """
    x, y = _same_items(a, b)
    x, w = _weighted(x, weights)
    y, _ = _weighted(y, weights)
    if len(x) < 2 or np.sum(x * w) == 0:
        return None

    def ratio(sums: Numbers) -> Numbers:
        with np.errstate(divide="ignore", invalid="ignore"):
            change: Numbers = (sums[1] - sums[0]) / np.abs(sums[0])
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


def _ranks(values: Sequence[float]) -> Numbers:
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Numbers = (last - (counts - 1) / 2)[inverse]
    return means


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
    beyond √(n / (n − 1)) t, with Student's quantile t by its series in 1 / (n − 1) (Abramowitz and Stegun, 26.7.5).
    """
    if n < 2:
        return TAIL
    series = (
        (1, 1, 4),
        (5, 16, 3, 96),
        (3, 19, 17, -15, 384),
        (79, 776, 1482, -1920, -945, 92160),
    )
    t = Z
    for power, (*factors, divisor) in enumerate(series, 1):
        degree = 2 * len(factors) - 1
        term = sum(factor * Z ** (degree - 2 * i) for i, factor in enumerate(factors)) / divisor
        t += term / (n - 1) ** power
    return 50 * math.erfc(math.sqrt(n / (n - 1)) * t / math.sqrt(2))


def _weighted(values: ArrayLike, weights: ArrayLike | None) -> tuple[Numbers, Numbers]:
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


def _same_items(a: ArrayLike, b: ArrayLike) -> tuple[Numbers, Numbers]:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    _check(x.shape == y.shape and x.ndim == 1 and len(x) > 0, "paired values must be lists of one length, not empty")
    return x, y


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[int, int, int, int]:
    """Return how many items have a 1 in both, in a only, in b only, and in neither."""
    x, y = _same_items(a, b)
    _check(bool(np.all((x == 0) | (x == 1)) and np.all((y == 0) | (y == 1))), "rates are of items that are 0 or 1")
    counts = np.bincount((2 * (1 - x) + (1 - y)).astype(np.int64), minlength=4)
    return int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3])


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
