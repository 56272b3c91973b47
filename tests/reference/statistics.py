"""Slow, literal versions of the statistics, from their definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from statistics import NormalDist

import numpy as np

Z = NormalDist().inv_cdf(0.975)

#: Items with a 1 in both, in the first only, in the second only, and in neither.
Table = tuple[int, int, int, int]
Ends = tuple[float, float]


def lists(table: Table) -> tuple[list[int], list[int]]:
    """Write a table out as two lists of 0 and 1."""
    both, first, second, neither = table
    return [1] * (both + first) + [0] * (second + neither), [1] * both + [0] * first + [1] * second + [0] * neither


def tables(n: int) -> list[Table]:
    """List all tables of n items."""
    return [
        (a, b, c, n - a - b - c) for a in range(n + 1) for b in range(n + 1 - a) for c in range(n + 1 - a - b)
    ]  # fmt: skip


def probability(table: Table, cells: Sequence[float]) -> float:
    """Return the multinomial probability of a table."""
    ways = math.factorial(sum(table)) / math.prod(map(math.factorial, table))
    return ways * math.prod(cell**count for cell, count in zip(cells, table, strict=True))


def _zero(function: Callable[[float], float], low: float, high: float) -> float:
    """Halve until the change of sign is found."""
    rising = function(high) > 0
    for _ in range(200):
        middle = (low + high) / 2
        if (function(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def wilson(successes: int, n: int, z: float = Z) -> Ends:
    """Return the p on both sides of p̂ at which the score test is just rejected: (p̂ − p)² = z²·p·(1 − p)/n."""
    rate = successes / n

    def score(p: float) -> float:
        return (rate - p) ** 2 - z * z * p * (1 - p) / n

    low = 0.0 if successes == 0 else _zero(score, 0.0, rate)
    return low, 1.0 if successes == n else _zero(score, rate, 1.0)


def newcombe(table: Table) -> Ends:
    """Newcombe 1998, method 10, for second − first, with the letters of the paper: the second rate is its p₁."""
    a, c, b, d = table
    n = a + b + c + d
    p1, p2 = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = wilson(a + b, n), wilson(a + c, n)
    q = (a + b) * (c + d) * (a + c) * (b + d)
    if q == 0:
        phi = 0.0
    elif a * d - b * c > n / 2:
        phi = (a * d - b * c - n / 2) / math.sqrt(q)
    elif a * d - b * c >= 0:
        phi = 0.0
    else:
        phi = (a * d - b * c) / math.sqrt(q)
    down = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    up = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    return p1 - p2 - math.sqrt(down), p1 - p2 + math.sqrt(up)


def bonett_price(table: Table) -> Ends:
    """Bonett and Price 2006 for second / first."""
    n11, n01, n10, _ = table
    n = n11 + n10 + n01
    first, second = n11 + n01, n11 + n10
    a = math.sqrt((n10 + n01 + 2) / ((second + 1) * (first + 1)))
    b = math.sqrt((1 - (second + 1) / (n + 2)) / (second + 1))
    c = math.sqrt((1 - (first + 1) / (n + 2)) / (first + 1))
    z = a / (b + c) * Z
    (l1, u1), (l2, u2) = wilson(second, n, z), wilson(first, n, z)
    return l1 / u2, u1 / l2


def mcnemar(only_a: int, only_b: int) -> Fraction:
    """Add up all outcomes of so many fair coins that are no likelier than this one."""
    n = only_a + only_b
    chances = [Fraction(math.comb(n, k), 2**n) for k in range(n + 1)]
    return sum((chance for chance in chances if chance <= chances[only_a]), Fraction(0))


def resampled_means(values: Sequence[Fraction], weights: Sequence[Fraction]) -> list[Fraction]:
    """Return the weighted mean of each of the nⁿ resamples, sorted: all that a bootstrap can draw, equally likely."""
    found = []
    for drawn in product(range(len(values)), repeat=len(values)):
        weight = sum((weights[i] for i in drawn), Fraction(0))
        found.append(sum((weights[i] * values[i] for i in drawn), Fraction(0)) / weight)
    return sorted(found)


def ranks(values: Sequence[float]) -> list[Fraction]:
    """Return the rank of each value, from 1; equal ones share the mean of theirs."""
    return [Fraction(2 * sum(v < x for v in values) + sum(v == x for v in values) + 1, 2) for x in values]


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Pearson's correlation of the ranks."""
    p, q = ranks(x), ranks(y)
    n = len(p)
    if n < 2:
        return None
    mean_p, mean_q = sum(p) / n, sum(q) / n
    both = sum((a - mean_p) * (b - mean_q) for a, b in zip(p, q, strict=True))
    one, two = sum((a - mean_p) ** 2 for a in p), sum((b - mean_q) ** 2 for b in q)
    return None if one * two == 0 else float(both) / math.sqrt(one * two)


def expanded_tail(n: int) -> float:
    """Return the share of resamples of n items beyond each end, with Student's distribution integrated numerically."""
    # With t = √(n − 1) tan θ Student's density is a power of cos θ.
    angles = np.linspace(-math.pi / 2, math.pi / 2, 400_001)
    density = np.cos(angles) ** (n - 2)
    beyond = 1 - np.cumsum(density) / np.sum(density)
    t = math.sqrt(n - 1) * math.tan(angles[np.argmax(beyond < 0.025)])
    return 0.5 * math.erfc(math.sqrt(n / (n - 1)) * t / math.sqrt(2))
