"""Many comparisons at once, and rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from s3lora.statistics.interval import Numbers, check


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order (Holm 1979, Scandinavian J. of Statistics 6, 65).

    The k-th smallest of m is multiplied by m − k + 1, and none becomes smaller than one before it. Where there
    is no effect at all, the chance that any falls below 0.05 is at most 0.05, however the tests depend on each other.

    >>> holm([0.01, 0.03, 0.02])
    [0.03, 0.04, 0.04]
    """
    found, last = [0.0] * len(values), 0.0
    for k, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        last = max(last, min(1.0, (len(values) - k) * values[i]))
        found[i] = last
    return found


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation with mean ranks for ties; None for fewer than two items or a constant."""
    check(len(x) == len(y), "spearman needs as many values on both sides")
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
