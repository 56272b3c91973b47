"""Standing among published adapters by the definitions, value by value: no sorting, no interpolation of arrays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction


def below(values: Sequence[float], owners: Sequence[int], value: float) -> Fraction:
    """Return the share of the weight below a value, half of the equal with it; each owner weighs 1 in all."""
    of = Counter(owners)
    total = sum((Fraction(1, of[owner]) for owner in owners), Fraction())
    less = sum((Fraction(1, of[o]) for v, o in zip(values, owners, strict=True) if v < value), Fraction())
    same = sum((Fraction(1, of[o]) for v, o in zip(values, owners, strict=True) if v == value), Fraction())
    return (less + same / 2) / total


def quantile(values: Sequence[float], owners: Sequence[int], share: float) -> float:
    """Return where the share of the weight below is `share`, by a straight line between the two values beside it."""
    known = {value: float(below(values, owners, value)) for value in values}
    under = max((value for value in known if known[value] <= share), default=None)
    over = min((value for value in known if known[value] >= share), default=None)
    if under is None or over is None or under == over:
        return min(known) if under is None else max(known) if over is None else under
    return under + (over - under) * (share - known[under]) / (known[over] - known[under])


def percentile(value: float, quantiles: Sequence[float], grid: Sequence[float]) -> float:
    """Return the share that a value stands at, in percent: within the grid, in the middle of equal quantiles."""
    equal = [share for share, one in zip(grid, quantiles, strict=True) if one == value]
    if equal:
        return 100 * sum(equal) / len(equal)
    less = [(one, i) for i, one in enumerate(quantiles) if one < value]
    more = [(one, i) for i, one in enumerate(quantiles) if one > value]
    if not less or not more:
        first = quantiles[0] if not less else quantiles[-1]
        shares = [share for share, one in zip(grid, quantiles, strict=True) if one == first]
        return 100 * sum(shares) / len(shares)
    ends = []
    for near in (max(less)[0], min(more)[0]):
        shares = [share for share, one in zip(grid, quantiles, strict=True) if one == near]
        ends.append((near, sum(shares) / len(shares)))
    (low, a), (high, b) = ends
    return 100 * (a + (b - a) * (value - low) / (high - low))


def wilson(share: float, sources: int) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % interval in percent (Wilson 1927, with z = 1.96 to more digits)."""
    z, n = 1.959963984540054, sources
    p = round(share * n) / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * (middle - half), 100 * (middle + half)
