"""Student's distribution, without SciPy: its tail by the incomplete beta function, its quantile by halving."""

from __future__ import annotations

import math
from functools import lru_cache

#: The 0.975 quantile of the standard normal distribution: all intervals are two-sided at 95 %.
Z = 1.959963984540054
#: Terms of the continued fraction; it needs some √n of them.
TERMS = 10_000
TINY = 1e-300


def normal_tail(z: float) -> float:
    """Return the share of a standard normal distribution above z."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def tail(t: float, degrees: float) -> float:
    """Return the share of Student's distribution above t, for degrees of freedom > 0."""
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    beyond = 0.5 * _beta(degrees / (degrees + t * t), degrees / 2, 0.5)
    return beyond if t >= 0 else 1 - beyond


@lru_cache(maxsize=4096)
def quantile(degrees: float, level: float = 0.025) -> float:
    """Return the t ≥ 0 above which a share `level` ≤ 0.5 of Student's distribution lies."""
    low, high = 0.0, 1.0
    while tail(high, degrees) > level:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, degrees) > level else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) (Abramowitz and Stegun, 26.5.8)."""
    if x <= 0 or x >= 1:
        return min(1.0, max(0.0, x))
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # Lentz's way to evaluate a continued fraction from its front.
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or TINY)
    found = d
    for m in range(1, TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or TINY)
            c = 1 + term / c or TINY
            found *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * found / a
