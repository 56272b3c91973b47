"""How much of what was learned a variant has lost: (x − adapter) / (base − adapter), paired, with its uncertainty.

Every item gives two numbers: what the variant lost of it, and what the adapter had learned of it. The share is a ratio
of their sums. Its interval are all f for which the mean of lost − f · learned cannot be told from 0 (Fieller 1954,
Journal of the Royal Statistical Society B 16, 175), and the test of a budget is that of one such f: so both agree.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from s3lora.statistics.interval import (
    FEWEST,
    Clusters,
    Interval,
    Numbers,
    check,
    cluster_sums,
    rates,
    same_items,
    weighted,
)
from s3lora.statistics.student import normal_tail, quantile, tail

#: One-sided: the upper end of a 95 % interval.
LEVEL = 0.025
#: The power that is asked for.
POWER = 0.8
#: No answer is looked for beyond so many clusters.
MOST = 1_000_000

UNSEEN = "this measure does not see the adapter: base and adapter cannot be told apart by it"
WORSE = "by this measure the adapter is worse than the base: it has learned nothing that could be lost"
FEW = f"fewer than {FEWEST} items or clusters in common give no interval"


class ShareLost(NamedTuple):
    """The share of what was learned that is lost, 0 for the adapter and 1 for the base; or why there is none."""

    share: Interval | None
    reason: str


class WithinBudget(NamedTuple):
    """A one-sided test that less than a budget is lost.

    `contrast` is the mean of lost − budget · learned, below 0 where the budget is kept; `p` that of the hypothesis that
    it is not kept; `power` the chance that as many items confirm it at `LEVEL` where the share given is truly lost;
    `needed` how many clusters of items (items, without clusters) have a power of `POWER`, None for more than `MOST`.
    """

    contrast: float
    p: float
    power: float
    needed: int | None


class _Contrasts:
    """What was lost and what was learned, summed over clusters, more being worse."""

    def __init__(
        self,
        x: ArrayLike,
        adapter: ArrayLike,
        base: ArrayLike,
        better: Literal["lower", "higher"],
        rate: bool,
        weights: ArrayLike | None,
        clusters: Clusters,
    ) -> None:
        sign = 1.0 if better == "lower" else -1.0
        (variant, full), (alone, _) = same_items(x, adapter), same_items(base, adapter)
        lost, w = weighted(sign * (variant - full), weights)
        learned, _ = weighted(sign * (alone - full), weights)
        if rate:
            for values in (variant, full, alone):
                rates(values)
        rows = cluster_sums(np.stack([lost * w, learned * w, w]), clusters)
        self.clusters = rows.shape[1]
        self.mean: Numbers = rows[:2].sum(axis=1) / w.sum()
        off = (rows[:2] - self.mean[:, None] * rows[2]) / (w.sum() / self.clusters)
        squares = off @ off.T
        n = self.clusters
        if rate:
            # A rate knows no spread that it has not seen: where no item was lost, one might have been. As Bonett and
            # Price 2012 (British Journal of Mathematical and Statistical Psychology 65, 127): one more of each kind.
            size = float(np.mean(rows[2] ** 2)) / (w.sum() / n) ** 2
            squares = squares + 2 * size * np.eye(2)
            n += 2
        self.spread: Numbers = squares / max(n - 1, 1)
        self.n = n

    def contrast(self, share: float) -> tuple[float, float]:
        """Return the mean of lost − share · learned, and the standard deviation of a cluster's."""
        direction = np.array([1.0, -share])
        return float(direction @ self.mean), math.sqrt(max(0.0, float(direction @ self.spread @ direction)))


def learned_share(
    x: ArrayLike,
    adapter: ArrayLike,
    base: ArrayLike,
    weights: ArrayLike | None = None,
    clusters: Clusters = None,
    *,
    better: Literal["lower", "higher"],
    rate: bool = False,
) -> ShareLost:
    """Return the share of what was learned that a variant has lost: 0 for the adapter, 1 for the base.

    Parameters:
        x, adapter, base: one number an item, of the same items.
        weights: of the items, such as tokens; 1 by default.
        clusters: the cluster of each item.
        better: which direction of the measure is better.
        rate: whether the items are 0 or 1.

    There is none where the base is not worse than the adapter at 95 %: then `reason` says so. It may be below 0, where
    the variant is better than the adapter, and above 1. Raises ValueError for values that are no such numbers.

    >>> learned_share([1.5] * 5 + [1.0] * 5, [1.0] * 10, [3.0] * 10, better="lower").share.value
    0.125
    """
    found = _Contrasts(x, adapter, base, better, rate, weights, clusters)
    if found.clusters < FEWEST:
        return ShareLost(None, FEW)
    (lost, learned), spread = found.mean, found.spread / found.n
    t = quantile(found.n - 1, LEVEL)
    if learned**2 <= t * t * spread[1, 1]:
        return ShareLost(None, UNSEEN)
    if learned < 0:
        return ShareLost(None, WORSE)
    # (lost − f·learned)² = t²·Var(lost − f·learned) is a quadratic in f with two roots, one on each side of the share.
    a = learned**2 - t * t * spread[1, 1]
    b = lost * learned - t * t * spread[0, 1]
    c = lost**2 - t * t * spread[0, 0]
    root = math.sqrt(max(0.0, b * b - a * c))
    value = float(lost / learned)
    return ShareLost(Interval(value, min(value, float((b - root) / a)), max(value, float((b + root) / a))), "")


def within_budget(
    x: ArrayLike,
    adapter: ArrayLike,
    base: ArrayLike,
    budget: float,
    weights: ArrayLike | None = None,
    clusters: Clusters = None,
    *,
    better: Literal["lower", "higher"],
    rate: bool = False,
    truly: float = 0.0,
) -> WithinBudget:
    """Test that less than `budget` of what was learned is lost, and say how well such a test can tell.

    Parameters as for `learned_share`; `truly` is the share lost for which power and numbers are given. The spread is
    that of these items. p < `LEVEL` means the same as an interval of the share whose upper end is below the budget.
    """
    check(math.isfinite(budget) and math.isfinite(truly), "a budget is a finite number")
    found = _Contrasts(x, adapter, base, better, rate, weights, clusters)
    contrast, deviation = found.contrast(budget)
    p = 1.0
    if found.clusters >= FEWEST:
        p = _below(contrast, deviation / math.sqrt(found.n), found.n - 1)
    effect = (truly - budget) * float(found.mean[1])
    return WithinBudget(contrast, p, _power(effect, deviation, found.clusters), _needed(effect, deviation))


def _below(mean: float, error: float, degrees: float) -> float:
    """Return the one-sided p of a mean that is 0 or more."""
    if error == 0:
        return 0.0 if mean < 0 else 1.0
    return tail(-mean / error, degrees)


def _power(effect: float, deviation: float, n: int) -> float:
    """Return the chance that a mean of n numbers with such an effect is told to be below 0."""
    if n < FEWEST or effect >= 0:
        return 0.0 if n < FEWEST or effect > 0 else LEVEL
    if deviation == 0:
        return 1.0
    return normal_tail(quantile(n - 1, LEVEL) + effect / deviation * math.sqrt(n))


def _needed(effect: float, deviation: float) -> int | None:
    """Return the least n whose power is enough."""
    low, high = FEWEST - 1, FEWEST
    while _power(effect, deviation, high) < POWER:
        low, high = high, 2 * high
        if low > MOST or effect >= 0:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _power(effect, deviation, middle) < POWER else (low, middle)
    return high
