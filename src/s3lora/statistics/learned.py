"""How much of what was learned a variant has lost: (x − adapter) / (base − adapter), paired, with its uncertainty.

Every item gives two numbers: what the variant lost of it, and what the adapter had learned of it. The share is a ratio
of their sums. Its interval are all f for which the mean of lost − f · learned cannot be told from 0 (Fieller 1954,
Journal of the Royal Statistical Society B 16, 175), and the test of a budget is that of one such f: so both agree.
Losses have heavy tails, which few items do not show; for means, Student's t is corrected for the skewness that was seen
(Hall 1992, the same journal 54, 221).
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
        self.plain = self.mean.tolist(), self.spread.tolist()
        self.n = n
        cubes = [float(np.mean(off[0] ** (3 - k) * off[1] ** k)) for k in range(4)]
        # A rate is as skewed as its value says, and has been given its spread.
        self.cubes = [0.0] * 4 if rate else cubes

    def contrast(self, lost: float, learned: float) -> tuple[float, float, float]:
        """Return mean, standard deviation and skewness of a cluster, of a weighted sum of what was lost and learned."""
        # Plain numbers: the ends of an interval ask for some hundred of these.
        (x, y), ((xx, xy), (_, yy)) = self.plain
        mean, variance = lost * x + learned * y, lost**2 * xx + 2 * lost * learned * xy + learned**2 * yy
        if variance <= 0:
            return mean, 0.0, 0.0
        a, b, c, d = self.cubes
        third = lost**3 * a + 3 * lost**2 * learned * b + 3 * lost * learned**2 * c + learned**3 * d
        return mean, math.sqrt(variance), third / (variance * (self.n - 1) / self.n) ** 1.5

    def t(self, lost: float, learned: float) -> float:
        """Return Student's t of such a sum, with Hall's correction for its skewness."""
        mean, deviation, skewness = self.contrast(lost, learned)
        if deviation == 0:
            return math.copysign(math.inf, mean) if mean else 0.0
        t, a = mean / deviation * math.sqrt(self.n), skewness / math.sqrt(self.n)
        return t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6

    def end(self, value: float, side: int) -> float:
        """Return the last share above (side 1) or below a value at which the contrast cannot be told from 0.

        Skewness changes with the share, so that there can be gaps; they are left within.
        """
        limit = quantile(self.n - 1, LEVEL)

        def within(share: float) -> bool:
            return -side * self.t(1.0, -share) <= limit

        steps = [0.0, *(2.0**power for power in range(-40, 41))]
        last = max(i for i, step in enumerate(steps) if step == 0 or within(value + side * step))
        near, far = (value + side * step for step in (steps[last], steps[min(last + 1, len(steps) - 1)]))
        for _ in range(60):
            middle = (near + far) / 2
            near, far = (middle, far) if within(middle) else (near, middle)
        return near


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
    lost, learned = map(float, found.mean)
    if abs(found.t(0.0, 1.0)) <= quantile(found.n - 1, LEVEL):
        return ShareLost(None, UNSEEN)
    if learned < 0:
        return ShareLost(None, WORSE)
    value = lost / learned
    return ShareLost(Interval(value, found.end(value, -1), found.end(value, 1)), "")


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
    contrast, deviation, _ = found.contrast(1.0, -budget)
    p = tail(-found.t(1.0, -budget), found.n - 1) if found.clusters >= FEWEST else 1.0
    effect = (truly - budget) * float(found.mean[1])
    return WithinBudget(contrast, p, _power(effect, deviation, found.clusters), _needed(effect, deviation))


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
