"""What an interval is, that of a rate, and how much items tell that come in clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from s3lora.statistics.student import Z, quantile

Numbers = NDArray[np.float64]
#: The cluster of each item; items of one cluster, such as cases of one behaviour, rise and fall together.
Clusters = Sequence[str] | None
#: A mean of fewer items, or clusters of items, gets no interval: it would hold the truth too seldom.
FEWEST = 10


class Interval(NamedTuple):
    """An estimate between the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int) -> Interval:
    """Return a rate with Wilson's score interval (1927), for n ≥ 1 items."""
    check(n >= 1 and 0 <= successes <= n, "wilson needs 0 ≤ successes ≤ n and n ≥ 1")
    return score_interval(successes / n, n)


def rate_interval(values: ArrayLike, clusters: Clusters = None) -> Interval:
    """Return the rate of items that are 0 or 1 with Wilson's interval.

    Items in clusters count as so many independent ones as tell as much (`effective_size`): Dean and Pagano 2015
    (Journal of Survey Statistics and Methodology 3, 484) find that best for rates of clusters.
    """
    found = rates(values)
    return score_interval(float(np.mean(found)), effective_size(found, clusters))


def score_interval(rate: float, n: float, z: float = Z) -> Interval:
    """Return Wilson's interval of a rate in [0, 1] that was seen among n > 0 items; n need not be whole."""
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # Rounding must not take the ends off what they are exactly at rates of 0 and 1.
    return Interval(rate, 0.0 if rate == 0 else centre - half, 1.0 if rate == 1 else centre + half)


def effective_size(values: ArrayLike, clusters: Clusters) -> float:
    """Return how many independent items would tell as much of the mean as these do, at most as many as there are.

    The variance of a mean of clusters by that of as many independent items, after Kish; few clusters know their own
    variance badly, which Student's distribution makes up for (Korn and Graubard 1998, Survey Methodology 24, 193).
    Where all items are equal they tell as much as one item a cluster: nothing says that they are less alike.
    """
    x = np.asarray(values, dtype=np.float64)
    n, codes = len(x), cluster_codes(clusters, len(x))
    if codes is None:
        return float(n)
    groups = int(codes.max()) + 1
    off = x - np.mean(x)
    apart = float(np.sum(off**2)) * n / (n - 1) if n > 1 else 0.0
    if groups < 2 or apart == 0:
        return float(groups)
    together = float(np.sum(np.bincount(codes, off) ** 2)) * groups / (groups - 1)
    return n * min(1.0, apart / together if together > 0 else 1.0) * (Z / quantile(groups - 1)) ** 2


def cluster_codes(clusters: Clusters, n: int) -> NDArray[np.intp] | None:
    """Return the number of each item's cluster, by first appearance; None where every item is one of its own."""
    if clusters is None:
        return None
    check(len(clusters) == n, "clusters need one name an item")
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    return None if len(numbers) == n else codes


def cluster_sums(rows: Numbers, clusters: Clusters) -> Numbers:
    """Return the sums of each row over every cluster, (k, n) → (k, clusters)."""
    codes = cluster_codes(clusters, rows.shape[1])
    return rows if codes is None else np.stack([np.bincount(codes, row) for row in rows])


def cluster_count(clusters: Clusters, n: int) -> int:
    """Return how many independent clusters n items make."""
    return n if clusters is None else len(set(clusters))


def rates(values: ArrayLike) -> Numbers:
    """Return items that are 0 or 1 each, at least one; raises ValueError for others."""
    found = np.asarray(values, dtype=np.float64)
    check(found.ndim == 1 and len(found) > 0, "rates need a list of items, not empty")
    check(bool(np.all((found == 0) | (found == 1))), "rates are of items that are 0 or 1")
    return found


def weighted(values: ArrayLike, weights: ArrayLike | None) -> tuple[Numbers, Numbers]:
    """Return finite values with their positive weights, 1 by default; raises ValueError for others."""
    v = np.asarray(values, dtype=np.float64)
    w = np.ones_like(v) if weights is None else np.asarray(weights, dtype=np.float64)
    check(
        v.ndim == 1 and len(v) > 0 and v.shape == w.shape, "values and weights must be lists of one length, not empty"
    )
    check(
        bool(np.all(np.isfinite(v)) and np.all(w > 0) and np.all(np.isfinite(w))),
        "values must be finite, weights positive",
    )
    return v, w


def same_items(a: ArrayLike, b: ArrayLike) -> tuple[Numbers, Numbers]:
    """Return two lists of numbers of the same items; raises ValueError where they cannot be."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    check(x.shape == y.shape and x.ndim == 1 and len(x) > 0, "paired values must be lists of one length, not empty")
    return x, y


def check(holds: bool, problem: str) -> None:
    """Raise ValueError where something does not hold."""
    if not holds:
        raise ValueError(problem)
