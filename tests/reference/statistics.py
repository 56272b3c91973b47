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


def tango(table: Table) -> Ends:
    """Tango 1998: the differences second − first that the score test just rejects, all fitted by maximum likelihood."""
    _, first, second, _ = table
    n = sum(table)

    def score(difference: float) -> float:
        # The probability of "first only" that makes the table likeliest where second only − first only is given.
        least, most = max(0.0, -difference), (1 - difference) / 2
        for _ in range(200):
            p, q = least + (most - least) / 3, most - (most - least) / 3
            least, most = (p, most) if likelihood(p, difference) < likelihood(q, difference) else (least, q)
        variance = n * (2 * least + difference - difference**2)
        off = second - first - n * difference
        return off / math.sqrt(variance) if variance > 1e-12 else off and math.copysign(math.inf, off)

    def likelihood(p: float, difference: float) -> float:
        cells = ((first, p), (second, p + difference), (n - first - second, 1 - 2 * p - difference))
        return sum(k * math.log(max(cell, 1e-300)) for k, cell in cells if k)

    seen = (second - first) / n
    low = -1.0 if seen == -1 else _zero(lambda d: score(d) - Z, -1.0, seen)
    return low, 1.0 if seen == 1 else _zero(lambda d: score(d) + Z, seen, 1.0)


def mid_p(only_a: int, only_b: int) -> Fraction:
    """Add up all outcomes of so many fair coins that are less likely than this one, and half of those as likely."""
    n = only_a + only_b
    chances = [Fraction(math.comb(n, k), 2**n) for k in range(n + 1)]
    seen = chances[only_a]
    return sum((chance if chance < seen else chance / 2 for chance in chances if chance <= seen), Fraction(0)) + (
        seen / 2 if only_a == only_b else 0
    )


def sign_flips(sums: Sequence[int]) -> Fraction:
    """Try all signs of the sums of clusters; those that come as far from 0 as was seen count by half."""
    seen = abs(sum(sums))
    if seen == 0:
        return Fraction(1)
    ends = [
        abs(sum(s * size for s, size in zip(signs, sums, strict=True))) for signs in product((1, -1), repeat=len(sums))
    ]
    return Fraction(2 * sum(end > seen for end in ends) + sum(end == seen for end in ends), 2 * len(ends))


def effective_size(values: Sequence[float], clusters: Sequence[str]) -> float:
    """Return n · variance of independent items / variance of clusters, with Student's quantile for their number."""
    n, mean = len(values), sum(values) / len(values)
    sums = [sum(v - mean for v, c in zip(values, clusters, strict=True) if c == one) for one in dict.fromkeys(clusters)]
    groups = len(sums)
    apart = sum((v - mean) ** 2 for v in values) / (n - 1) / n
    if groups == 1 or apart == 0:
        return float(groups)
    together = sum(s * s for s in sums) / (groups - 1) * groups / n**2
    return n * min(1.0, apart / together if together else 1.0) * (Z / student_quantile(groups - 1)) ** 2


def learned_share(
    x: Sequence[float],
    adapter: Sequence[float],
    base: Sequence[float],
    weights: Sequence[float],
    clusters: Sequence[str],
    rate: bool,
) -> tuple[float, Callable[[float], float]]:
    """Return the share lost, and Student's t, corrected for skewness, of x − a − f(b − a) for any f."""
    names = list(dict.fromkeys(clusters))
    rows = list(zip(x, adapter, base, weights, clusters, strict=True))
    total = sum(weights)
    lost, learned = (sum(w * (row[k] - row[1]) for row in rows for w in [row[3]]) / total for k in (0, 2))
    masses = [sum(row[3] for row in rows if row[4] == name) * len(names) / total for name in names]

    def t(f: float) -> float:
        mean = lost - f * learned
        squares = cubes = 0.0
        for name in names:
            mine = [row for row in rows if row[4] == name]
            off = sum(w * (v - a - f * (b - a) - mean) for v, a, b, w, _ in mine)
            squares += (off * len(names) / total) ** 2
            cubes += (off * len(names) / total) ** 3
        n = len(names)
        skewness = 0.0 if rate or squares < 1e-24 else cubes / n / (squares / n) ** 1.5
        if rate:
            # One more cluster of the mean square of the masses in each direction of either.
            squares += 2 * (1 + f * f) * sum(m * m for m in masses) / n
            n += 2
        error = math.sqrt(squares / (n - 1) / n)
        if error < 1e-12:
            return math.copysign(math.inf, mean) if abs(mean) > 1e-12 else 0.0
        # Hall 1992, with a = skewness / √n.
        a, plain = skewness / math.sqrt(n), mean / error
        return plain + a * plain**2 / 3 + a * a * plain**3 / 27 + a / 6

    return lost / learned if learned else math.nan, t


def holm(values: Sequence[float]) -> list[float]:
    """Return for each p the least level at which Holm's procedure, step by step, rejects it."""

    def rejected(i: int, level: float) -> bool:
        for k, j in enumerate(sorted(range(len(values)), key=lambda j: values[j])):
            if values[j] * (len(values) - k) > level:
                return False
            if j == i:
                return True
        return False

    levels = sorted({min(1.0, p * k) for p in values for k in range(1, len(values) + 1)})
    return [next((level for level in levels if rejected(i, level)), 1.0) for i in range(len(values))]


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


def student_quantile(degrees: int) -> float:
    """Return the 0.975 quantile of Student's distribution, integrated numerically."""
    # With t = √ν tan θ Student's density is a power of cos θ.
    angles = np.linspace(-math.pi / 2, math.pi / 2, 400_001)
    density = np.cos(angles) ** (degrees - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(degrees) * math.tan(float(np.interp(0.975, below / below[-1], angles)))


def expanded_tail(n: int) -> float:
    """Return the share of resamples of n items beyond each end."""
    return 0.5 * math.erfc(math.sqrt(n / (n - 1)) * student_quantile(n - 1) / math.sqrt(2))
