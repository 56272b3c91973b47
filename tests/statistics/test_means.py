from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.statistics import Interval, bootstrap, bootstrap_mean, paired_difference
from s3lora.statistics.bootstrap import _tail
from tests.reference import statistics as reference

#: Enough to see what is meant, and quick.
FEW = 500

integers = st.integers(-9, 9)
numbers = st.floats(-1e3, 1e3, allow_nan=False)
weights = st.floats(0.1, 10)
pairs = st.lists(st.tuples(numbers, numbers, weights), min_size=1, max_size=8)
quick = settings(max_examples=25)


@quick
@given(st.lists(st.tuples(integers, st.integers(1, 4)), min_size=2, max_size=4), st.integers(0, 99))
def test_bootstrap_draws_from_all_resamples(items: list[tuple[int, int]], seed: int) -> None:
    values, weight = [v for v, _ in items], [w for _, w in items]
    possible = reference.resampled_means([Fraction(v) for v in values], [Fraction(w) for w in weight])
    found = bootstrap_mean(values, weight, seed=seed)
    assert found.value == pytest.approx(float(sum(v * w for v, w in items) / Fraction(sum(weight))))
    tail = reference.expanded_tail(len(items))
    # The share of 10,000 draws is known to ± 0.006 and more.
    for end, share in ((found.low, tail), (found.high, 1 - tail)):
        below = sum(mean < end - 1e-9 for mean in possible) / len(possible)
        upto = sum(mean <= end + 1e-9 for mean in possible) / len(possible)
        assert below - 0.01 < share < upto + 0.01


@quick
@given(st.lists(integers, min_size=2, max_size=4), st.integers(0, 99))
def test_p_of_the_paired_bootstrap(changes: list[int], seed: int) -> None:
    possible = reference.resampled_means([Fraction(c) for c in changes], [Fraction(1)] * len(changes))
    side = min(sum(mean <= 0 for mean in possible), sum(mean >= 0 for mean in possible)) / len(possible)
    least = 2 * 0.5 ** sum(c != 0 for c in changes)
    found, p = paired_difference([5] * len(changes), [5 + c for c in changes], seed=seed)
    assert p == pytest.approx(min(1.0, max(least, 2 * side)), abs=0.04)
    assert found.value == pytest.approx(np.mean(changes))


@pytest.mark.parametrize(("n", "least"), [(1, 1.0), (2, 0.5), (5, 1 / 16)])
def test_few_items_prove_nothing(n: int, least: float) -> None:
    assert paired_difference([0.0] * n, [1.0] * n, seed=0)[1] == least
    # Items that are as they were add nothing.
    assert paired_difference([0.5] * (n + 9), [1.0] * n + [0.5] * 9, seed=0)[1] >= least


def test_many_items_do() -> None:
    found, p = paired_difference([0.0] * 12, [1.0, 2.0] * 6, seed=0)
    assert found.low > 0
    assert p == pytest.approx(2.0**-11)
    assert paired_difference([0.0] * 30, [1.0, 2.0] * 15, seed=0)[1] == 2 / 10_001


def test_no_change_at_all() -> None:
    assert paired_difference([0.1, 0.7, 3], [0.1, 0.7, 3], seed=0) == (Interval(0, 0, 0), 1.0)


@quick
@given(st.lists(integers, min_size=2, max_size=8), st.integers(0, 9))
def test_rounding_takes_no_side(changes: list[int], seed: int) -> None:
    zeros = [0.0] * len(changes)
    whole, p = paired_difference(zeros, changes, seed=seed)
    tenths, q = paired_difference(zeros, [c / 10 for c in changes], seed=seed)
    assert p == q
    assert np.sign(whole).tolist() == np.sign(tenths).tolist()


@quick
@given(st.lists(st.tuples(integers, integers), min_size=6, max_size=12), st.integers(0, 9))
def test_the_interval_leaves_out_zero_only_where_p_is_small(items: list[tuple[int, int]], seed: int) -> None:
    a, b = zip(*items, strict=True)
    found, p = paired_difference(a, b, seed=seed)
    if sum(x != y for x, y in items) > 5 and not found.low <= 0 <= found.high:
        assert p < 0.05


def test_an_interval_of_eight_covers_95_percent() -> None:
    random = np.random.default_rng(0)
    samples = random.standard_normal((1_500, 8))
    found = [bootstrap_mean(sample, seed=i, resamples=1_000) for i, sample in enumerate(samples)]
    # That of the plain percentiles covers less.
    assert np.mean([low <= 0 <= high for _, low, high in found]) == pytest.approx(0.95, abs=0.015)


def both(items: Sequence[tuple[float, float, float]], seed: int = 0) -> list[Interval]:
    a, b, w = ([item[i] for item in items] for i in range(3))
    change, _ = paired_difference(a, b, w, seed=seed, resamples=FEW)
    return [bootstrap_mean(a, w, seed=seed, resamples=FEW), change]


@quick
@given(pairs)
def test_bootstraps_of_anything(items: list[tuple[float, float, float]]) -> None:
    a, b, w = (np.array(values) for values in zip(*items, strict=True))
    scale = 1e-9 * (1 + float(np.max(np.abs([a, b]))))
    found = both(items)
    assert found == both(items)
    assert found[0].value == pytest.approx(float(a @ w / w.sum()), abs=scale)
    assert found[1].value == pytest.approx(float((b - a) @ w / w.sum()), abs=scale)
    for interval, values in zip(found, (a, b - a), strict=False):
        assert values.min() - scale <= interval.low <= interval.high <= values.max() + scale
    # Doubled weights are the same weights.
    for one, two in zip(found, both([(x, y, 2 * u) for x, y, u in items]), strict=True):
        assert one == pytest.approx(two, rel=1e-9, abs=scale)


@quick
@given(pairs, st.randoms())
def test_the_order_of_items_says_nothing(items: list[tuple[float, float, float]], random: Any) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)
    for one, two in zip(both(items), both(shuffled), strict=True):
        assert one.value == pytest.approx(two.value, rel=1e-9, abs=1e-6)


@quick
@given(pairs)
def test_swapped_sides(items: list[tuple[float, float, float]]) -> None:
    a, b, w = (list(values) for values in zip(*items, strict=True))
    (found, p), (other, q) = paired_difference(a, b, w, seed=3), paired_difference(b, a, w, seed=3)
    assert (found.value, found.low, found.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-9)
    assert p == q


def test_seeds_and_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=31)
    found = bootstrap_mean(values, seed=1)
    assert found == bootstrap_mean(values, seed=1)
    other = bootstrap_mean(values, seed=2)
    assert found != other
    assert found == pytest.approx(other, abs=0.02)
    # What is held in memory at once must not matter.
    monkeypatch.setattr(bootstrap, "CHUNK", 31 * 999)
    assert bootstrap_mean(values, seed=1) == found


def test_bootstraps_cover_about_95_percent() -> None:
    random = np.random.default_rng(7)
    held = np.zeros(2)
    for i in range(200):
        a = random.gamma(2.0, size=30)
        b = 0.8 * a + random.normal(0.1, 0.3, size=30)
        for j, (found, true) in enumerate(
            [
                (bootstrap_mean(a, seed=i, resamples=FEW), 2.0),
                (paired_difference(a, b, seed=i, resamples=FEW)[0], -0.3),
            ]
        ):
            held[j] += found.low <= true <= found.high
    assert np.all((held / 200 > 0.89) & (held / 200 < 0.985))


@pytest.mark.parametrize("n", [4, 5, 8, 24, 100, 1000])
def test_fewer_items_have_wider_intervals(n: int) -> None:
    assert _tail(n) / 100 == pytest.approx(reference.expanded_tail(n), rel=5e-4)


@quick
@given(pairs, st.data())
def test_clusters_are_drawn_as_a_whole(items: list[tuple[float, float, float]], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=len(items), max_size=len(items)))
    a, b, w = (list(values) for values in zip(*items, strict=True))
    order = list(dict.fromkeys(names))
    mass = [sum(w[i] for i in range(len(a)) if names[i] == name) for name in order]

    def of(values: list[float]) -> list[float]:
        return [
            sum(w[i] * values[i] for i in range(len(a)) if names[i] == name) / m
            for name, m in zip(order, mass, strict=True)
        ]

    near = {"rel": 1e-9, "abs": 1e-6}
    found = bootstrap_mean(a, w, names, seed=1, resamples=FEW)
    assert found == pytest.approx(bootstrap_mean(of(a), mass, seed=1, resamples=FEW), **near)
    change, p = paired_difference(a, b, w, names, seed=1, resamples=FEW)
    other, q = paired_difference(of(a), of(b), mass, seed=1, resamples=FEW)
    assert change == pytest.approx(other, **near)
    assert 0 < min(p, q) <= max(p, q) <= 1
    # Each item a cluster of its own is no cluster at all.
    alone = [str(i) for i in range(len(a))]
    assert bootstrap_mean(a, w, alone, seed=1, resamples=FEW) == bootstrap_mean(a, w, seed=1, resamples=FEW)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: bootstrap_mean([], seed=0), "not empty"),
        (lambda: bootstrap_mean([1, 2], [1], seed=0), "one length"),
        (lambda: bootstrap_mean([1, 2], [1, 0], seed=0), "positive"),
        (lambda: bootstrap_mean([1, math.nan], seed=0), "finite"),
        (lambda: bootstrap_mean([1, 2], None, ["a"], seed=0), "one name an item"),
        (lambda: paired_difference([1, 2], [1], seed=0), "one length"),
        (lambda: paired_difference([1, 2], [1, math.inf], seed=0), "finite"),
    ],
)
def test_what_cannot_be_meant(call: Callable[[], object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        call()
