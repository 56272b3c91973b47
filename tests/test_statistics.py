from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora import statistics
from s3lora.statistics import (
    Interval,
    _tail,
    bootstrap_mean,
    mcnemar,
    paired_difference,
    paired_rate_difference,
    relative_change,
    relative_rate_change,
    spearman,
    wilson,
)
from tests.reference import statistics as reference

#: Enough to see what is meant, and quick.
FEW = 500
#: Airway hyper-responsiveness (Bentur 2009) and complete response (Cavo 2012), the worked examples of Fagerland,
#: Lydersen and Laake, Statistical Analysis of Contingency Tables, chapter 8; there the difference is first − second.
BENTUR, CAVO = (1, 1, 7, 12), (59, 6, 16, 80)

counts = st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
tables = st.tuples(*[st.integers(0, 25)] * 4).filter(lambda table: sum(table) > 0)
integers = st.integers(-9, 9)
numbers = st.floats(-1e3, 1e3, allow_nan=False)
weights = st.floats(0.1, 10)
pairs = st.lists(st.tuples(numbers, numbers, weights), min_size=1, max_size=8)
quick = settings(max_examples=25)


def rate_difference(table: reference.Table) -> Interval:
    return paired_rate_difference(*reference.lists(table))


def rate_change(table: reference.Table) -> Interval | None:
    return relative_rate_change(*reference.lists(table))


def swapped(table: reference.Table) -> reference.Table:
    both, first, second, neither = table
    return both, second, first, neither


@given(counts)
def test_wilson_against_the_score_equation(case: tuple[int, int]) -> None:
    found = wilson(*case)
    assert found[1:] == pytest.approx(reference.wilson(*case), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1
    other = wilson(case[1] - case[0], case[1])
    assert found == pytest.approx((1 - other.value, 1 - other.high, 1 - other.low), abs=1e-12)


def test_wilson_by_hand() -> None:
    # z²/(n + z²) above 0 of 10, and 81 of 263 of Newcombe 1998 (Statistics in Medicine 17, 857): 0.2553 to 0.3662.
    assert wilson(0, 10)[:2] == (0, 0)
    assert wilson(0, 10).high == pytest.approx(3.841459 / 13.841459, abs=1e-7)
    assert wilson(10, 10).high == 1
    assert wilson(81, 263)[1:] == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("n", [10, 24, 48])
def test_wilson_covers_95_percent(n: int) -> None:
    intervals = [wilson(k, n) for k in range(n + 1)]
    covered = []
    for p in np.linspace(0.02, 0.98, 97):
        held = [k for k, found in enumerate(intervals) if found.low <= p <= found.high]
        covered.append(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in held))
    assert np.mean(covered) == pytest.approx(0.955, abs=0.006)
    assert min(covered) > 0.83


@given(tables)
def test_newcombe_against_the_literal_version(table: reference.Table) -> None:
    found = rate_difference(table)
    assert found[1:] == pytest.approx(reference.newcombe(table), abs=1e-7)
    assert found.value == pytest.approx((table[2] - table[1]) / sum(table))
    assert -1 <= found.low <= found.value <= found.high <= 1
    other = rate_difference(swapped(table))
    assert found == pytest.approx((-other.value, -other.high, -other.low), abs=1e-12)


@pytest.mark.parametrize(("table", "low", "high"), [(BENTUR, -0.507, -0.026), (CAVO, -0.1186, -0.0046)])
def test_newcombe_of_worked_examples(table: reference.Table, low: float, high: float) -> None:
    found = rate_difference(swapped(table))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4 if table == BENTUR else 5e-5)


@pytest.mark.parametrize("table", [(1, 0, 0, 0), (0, 0, 0, 9), (9, 0, 0, 0), (0, 9, 0, 0), (5, 0, 0, 5)])
def test_newcombe_at_the_edge_keeps_a_width(table: reference.Table) -> None:
    found = rate_difference(table)
    assert found.high - found.low > 0.05
    assert found[1:] == pytest.approx(reference.newcombe(table), abs=1e-7)


@given(tables.filter(lambda table: table[0] + table[1] > 0))
def test_relative_rates_against_the_literal_version(table: reference.Table) -> None:
    found = rate_change(table)
    assert found is not None
    low, high = reference.bonett_price(table)
    assert found[1:] == pytest.approx((low - 1, high - 1), rel=1e-6, abs=1e-7)
    assert found.value == (table[2] - table[1]) / (table[0] + table[1])
    assert -1 <= found.low <= found.value <= found.high < math.inf
    assert found.high > found.low
    # Items that are 0 on both sides say nothing of a ratio.
    assert rate_change((*table[:3], table[3] + 7)) == found
    other = rate_change(swapped(table))
    if other is not None and min(table[0] + table[1], table[0] + table[2]) > 0:
        assert found.low == pytest.approx(1 / (1 + other.high) - 1)


def test_relative_rates_of_a_worked_example() -> None:
    found = rate_change(swapped(CAVO))
    assert found is not None
    assert found == pytest.approx((0.8667 - 1, 0.7579 - 1, 0.9910 - 1), abs=5e-5)
    assert rate_change((0, 0, 3, 4)) is None


@pytest.mark.parametrize("cells", [(0.45, 0.05, 0.0, 0.5), (0.5, 0.2, 0.1, 0.2), (0.8, 0.1, 0.02, 0.08)])
def test_paired_rates_cover_95_percent(cells: tuple[float, ...]) -> None:
    truth = cells[2] - cells[1]
    held = [0.0, 0.0]
    for table in reference.tables(18):
        chance = reference.probability(table, cells)
        # What hardly ever happens changes nothing of the sum.
        if chance < 1e-6:
            continue
        for i, (found, true) in enumerate(
            [(rate_difference(table), truth), (rate_change(table), truth / (cells[0] + cells[1]))]
        ):
            held[i] += chance * (found is None or found.low <= true <= found.high)
    assert all(0.93 < share <= 1 for share in held)


@pytest.mark.parametrize("of", [paired_rate_difference, relative_rate_change])
def test_rates_are_of_zeros_and_ones(of: Callable[..., object]) -> None:
    for a, b in (([0, 0.5], [1, 0.5]), ([1, 1], [2, 0]), ([math.nan], [0])):
        with pytest.raises(ValueError, match="0 or 1"):
            of(a, b)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_against_fractions(only_a: int, only_b: int) -> None:
    found = mcnemar(only_a, only_b)
    assert found == pytest.approx(float(reference.mcnemar(only_a, only_b)), rel=1e-12)
    assert 0 < found <= 1
    assert found == mcnemar(only_b, only_a)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(0, 0, 1), (0, 1, 1), (0, 5, 1 / 16), (0, 6, 1 / 32), (1, 7, 18 / 256), (3, 3, 1)]
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == p


@pytest.mark.parametrize("only_a", [1, 440, 499, 500])
def test_mcnemar_where_floats_end(only_a: int) -> None:
    # The two ways of computing meet at 1,000 pairs.
    assert mcnemar(only_a, 1000 - only_a) == pytest.approx(float(reference.mcnemar(only_a, 1000 - only_a)), rel=1e-9)


def test_mcnemar_errs_no_more_than_it_says() -> None:
    for n in range(1, 60):
        wrong = sum(math.comb(n, k) / 2**n for k in range(n + 1) if mcnemar(k, n - k) < 0.05)
        assert wrong < 0.05


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


@pytest.mark.parametrize(("n", "off"), [(4, 0.06), (5, 0.03), (8, 0.005), (24, 5e-4), (100, 5e-4), (1000, 5e-4)])
def test_fewer_items_have_wider_intervals(n: int, off: float) -> None:
    assert _tail(n) / 100 == pytest.approx(reference.expanded_tail(n), rel=off)


def test_an_interval_of_eight_covers_95_percent() -> None:
    random = np.random.default_rng(0)
    samples = random.standard_normal((1_500, 8))
    found = [bootstrap_mean(sample, seed=i, resamples=1_000) for i, sample in enumerate(samples)]
    # That of the plain percentiles covers less.
    assert np.mean([low <= 0 <= high for _, low, high in found]) == pytest.approx(0.95, abs=0.015)


def all_three(items: Sequence[tuple[float, float, float]], seed: int = 0) -> list[Interval]:
    a, b, w = ([item[i] for item in items] for i in range(3))
    relative = relative_change([abs(x) + 1 for x in a], b, w, seed=seed, resamples=FEW)
    found = [
        bootstrap_mean(a, w, seed=seed, resamples=FEW),
        paired_difference(a, b, w, seed=seed, resamples=FEW)[0],
    ]
    return found if relative is None else [*found, relative]


@quick
@given(pairs)
def test_bootstraps_of_anything(items: list[tuple[float, float, float]]) -> None:
    a, b, w = (np.array(values) for values in zip(*items, strict=True))
    scale = 1e-9 * (1 + float(np.max(np.abs([a, b]))))
    found = all_three(items)
    assert found == all_three(items)
    assert found[0].value == pytest.approx(float(a @ w / w.sum()), abs=scale)
    assert found[1].value == pytest.approx(float((b - a) @ w / w.sum()), abs=scale)
    for interval, values in zip(found, (a, b - a), strict=False):
        assert values.min() - scale <= interval.low <= interval.high <= values.max() + scale
    if len(items) > 1:
        x = np.abs(a) + 1
        assert found[2].value == pytest.approx(float((b - x) @ w / (x @ w)), rel=1e-9, abs=1e-9)
    # Doubled weights are the same weights.
    for one, two in zip(found, all_three([(x, y, 2 * u) for x, y, u in items]), strict=True):
        assert one == pytest.approx(two, rel=1e-9, abs=scale)


@quick
@given(pairs, st.randoms())
def test_the_order_of_items_says_nothing(items: list[tuple[float, float, float]], random: Any) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)
    for one, two in zip(all_three(items), all_three(shuffled), strict=True):
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
    monkeypatch.setattr(statistics, "CHUNK", 31 * 999)
    assert bootstrap_mean(values, seed=1) == found


def test_bootstraps_cover_about_95_percent() -> None:
    random = np.random.default_rng(7)
    held = np.zeros(3)
    for i in range(200):
        a = random.gamma(2.0, size=30)
        b = 0.8 * a + random.normal(0.1, 0.3, size=30)
        change = relative_change(a, b, seed=i, resamples=FEW)
        assert change is not None
        for j, (found, true) in enumerate(
            [
                (bootstrap_mean(a, seed=i, resamples=FEW), 2.0),
                (paired_difference(a, b, seed=i, resamples=FEW)[0], -0.3),
                (change, -0.15),
            ]
        ):
            held[j] += found.low <= true <= found.high
    assert np.all((held / 200 > 0.89) & (held / 200 < 0.985))


def test_relative_change_by_hand() -> None:
    found = relative_change([2, 4], [1, 2], seed=0)
    assert found == (-0.5, -0.5, -0.5)
    weighted = relative_change([1, 3], [1, 6], [3, 1], seed=0)
    assert weighted is not None
    assert weighted.value == pytest.approx((3 + 6) / (3 + 3) - 1)
    assert (weighted.low, weighted.high) == (0, 1)
    negative = relative_change([-2, -4], [-1, -2], seed=0)
    assert negative is not None
    assert negative.value == 0.5
    assert relative_change([0, 0], [1, 2], seed=0) is None
    assert relative_change([-1, 1], [1, 2], seed=0) is None
    assert relative_change([1], [2], seed=0) is None


def test_relative_change_where_resamples_have_nothing_to_lose() -> None:
    # A quarter of the resamples draws the second item only: nothing became something.
    found = relative_change([1, 0], [1, 1], seed=0)
    assert found is not None
    assert (found.value, found.low, found.high) == (1, 0, math.inf)
    # Nothing stayed nothing: no change.
    lost = relative_change([1, 0], [0, 0], seed=0)
    assert lost == (-1, -1, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-5, 5)), max_size=9))
def test_spearman_by_definition(items: list[tuple[int, float]]) -> None:
    x, y = [float(a) for a, _ in items], [b for _, b in items]
    found, wanted = spearman(x, y), reference.spearman(x, y)
    assert (found is None) == (wanted is None)
    if found is not None:
        assert found == pytest.approx(wanted, abs=1e-12)
        assert -1 <= found <= 1
        assert found == spearman(y, x)
        assert spearman(x, [-b for b in y]) == pytest.approx(-found, abs=1e-12)
        assert spearman([a**3 for a in x], y) == found


def test_spearman_by_hand() -> None:
    # 1 − 6·Σd² / (n·(n² − 1)) with d = 0, 1, −1, 0; then ranks 1, 2.5, 2.5 beside 1, 2, 3.
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 5, 5], [1, 2, 3]) == pytest.approx(math.sqrt(0.75))
    assert spearman([1, 2, 3], [10, 100, 1000]) == 1
    assert spearman([1, 1], [1, 2]) is None
    assert spearman([1], [1]) is None


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: wilson(1, 0), "wilson"),
        (lambda: wilson(3, 2), "wilson"),
        (lambda: wilson(-1, 2), "wilson"),
        (lambda: mcnemar(-1, 2), "counts"),
        (lambda: spearman([1], [1, 2]), "as many"),
        (lambda: bootstrap_mean([], seed=0), "not empty"),
        (lambda: bootstrap_mean([1, 2], [1], seed=0), "one length"),
        (lambda: bootstrap_mean([1, 2], [1, 0], seed=0), "positive"),
        (lambda: bootstrap_mean([1, math.nan], seed=0), "finite"),
        (lambda: paired_difference([1, 2], [1], seed=0), "one length"),
        (lambda: paired_difference([1, 2], [1, math.inf], seed=0), "finite"),
        (lambda: paired_rate_difference([], []), "not empty"),
        (lambda: relative_change([1, 2], [1, 2], [1, -1], seed=0), "positive"),
        (lambda: relative_change([1, 2], [1, math.nan], seed=0), "finite"),
    ],
)
def test_what_cannot_be_meant(call: Callable[[], object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        call()
