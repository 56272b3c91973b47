from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from s3lora.statistics import Interval, items_needed, mcnemar, paired_rate_difference, rate_interval, wilson
from s3lora.statistics.interval import effective_size
from s3lora.statistics.learned import POWER
from s3lora.statistics.rates import Z_POWER
from tests.reference import statistics as reference

#: Airway hyper-responsiveness (Bentur 2009) and complete response (Cavo 2012), the worked examples of Fagerland,
#: Lydersen and Laake, Statistical Analysis of Contingency Tables, chapter 8; there the difference is first − second.
BENTUR, CAVO = (1, 1, 7, 12), (59, 6, 16, 80)

counts = st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
tables = st.tuples(*[st.integers(0, 25)] * 4).filter(lambda table: sum(table) > 0)
clustered = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12)
quick = settings(max_examples=25)


def rate_difference(table: reference.Table) -> Interval:
    return paired_rate_difference(*reference.lists(table))


def swapped(table: reference.Table) -> reference.Table:
    both, first, second, neither = table
    return both, second, first, neither


def p_of(only_a: int, only_b: int) -> float:
    return mcnemar(*reference.lists((1, only_a, only_b, 0)))


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


@quick
@given(tables)
def test_tango_against_the_literal_version(table: reference.Table) -> None:
    found = rate_difference(table)
    assert found[1:] == pytest.approx(reference.tango(table), abs=1e-6)
    assert found.value == pytest.approx((table[2] - table[1]) / sum(table))
    assert -1 <= found.low <= found.value <= found.high <= 1
    other = rate_difference(swapped(table))
    assert found == pytest.approx((-other.value, -other.high, -other.low), abs=1e-12)


@pytest.mark.parametrize(("table", "low", "high"), [(BENTUR, -0.517, -0.026), (CAVO, -0.1240, -0.0054)])
def test_tango_of_worked_examples(table: reference.Table, low: float, high: float) -> None:
    found = rate_difference(swapped(table))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4 if table == BENTUR else 5e-5)


@pytest.mark.parametrize("table", [(1, 0, 0, 0), (0, 0, 0, 9), (9, 0, 0, 0), (0, 9, 0, 0), (5, 0, 0, 5)])
def test_tango_at_the_edge_keeps_a_width(table: reference.Table) -> None:
    found = rate_difference(table)
    assert found.high - found.low > 0.05
    assert found[1:] == pytest.approx(reference.tango(table), abs=1e-6)


@pytest.mark.parametrize("cells", [(0.45, 0.05, 0.0, 0.5), (0.5, 0.2, 0.1, 0.2), (0.8, 0.1, 0.02, 0.08)])
def test_paired_rates_cover_95_percent(cells: tuple[float, ...]) -> None:
    truth = cells[2] - cells[1]
    held = 0.0
    for table in reference.tables(18):
        chance = reference.probability(table, cells)
        # What hardly ever happens changes nothing of the sum.
        if chance >= 1e-6:
            found = rate_difference(table)
            held += chance * (found.low <= truth <= found.high)
    assert 0.93 < held <= 1


@pytest.mark.parametrize("of", [paired_rate_difference, mcnemar])
def test_rates_are_of_zeros_and_ones(of: Callable[..., object]) -> None:
    for a, b in (([0, 0.5], [1, 0.5]), ([1, 1], [2, 0]), ([math.nan], [0])):
        with pytest.raises(ValueError, match="0 or 1"):
            of(a, b)
    for a, b in (([], []), ([1], [1, 0])):
        with pytest.raises(ValueError, match="one length"):
            of(a, b)
    with pytest.raises(ValueError, match="one name an item"):
        of([1, 0], [0, 0], ["a"])


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_against_fractions(only_a: int, only_b: int) -> None:
    found = p_of(only_a, only_b)
    assert found == pytest.approx(float(reference.mid_p(only_a, only_b)), rel=1e-12)
    assert 0 < found <= 1
    assert found == p_of(only_b, only_a)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(0, 0, 1), (0, 1, 1 / 2), (0, 5, 1 / 32), (0, 6, 1 / 64), (1, 7, 10 / 256), (3, 3, 1)]
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert p_of(only_a, only_b) == p


@pytest.mark.parametrize("only_a", [1, 440, 499, 500])
def test_mcnemar_of_many_pairs(only_a: int) -> None:
    assert p_of(only_a, 1100 - only_a) == pytest.approx(float(reference.mid_p(only_a, 1100 - only_a)), rel=1e-9)


def test_mcnemar_errs_hardly_more_than_it_says() -> None:
    for n in range(1, 60):
        wrong = sum(math.comb(n, k) / 2**n for k in range(n + 1) if p_of(k, n - k) < 0.05)
        assert wrong < 0.08


@given(clustered)
def test_clusters_change_sides_as_a_whole(items: list[tuple[str, int, int]]) -> None:
    names, a, b = ([item[i] for item in items] for i in range(3))
    sums = [sum(y - x for name, x, y in items if name == one) for one in dict.fromkeys(names)]
    found = mcnemar(a, b, [str(name) for name in names])
    assert found == pytest.approx(float(reference.sign_flips(sums)), rel=1e-12)


@given(clustered)
def test_how_much_clusters_are_worth(items: list[tuple[str, int, int]]) -> None:
    names, values = [str(name) for name, *_ in items], [value for *_, value in items]
    found = effective_size(values, names)
    if len(set(names)) < len(names):
        assert found == pytest.approx(reference.effective_size(values, names), rel=1e-6)
    assert 0 < found <= len(values)
    assert effective_size(values, None) == effective_size(values, [str(i) for i in range(len(values))]) == len(values)


def test_copies_of_an_item_tell_as_much_as_the_item() -> None:
    values, names = [1, 0] * 15 + [1] * 10, [str(i) for i in range(40)]
    once, copied = rate_interval(values), rate_interval(values * 5, names * 5)
    assert copied.value == once.value
    # A little more: 40 clusters do not know their own variance.
    assert 1 < (copied.high - copied.low) / (once.high - once.low) < 1.06
    a, b = values, [1] * 10 + values[10:]
    change, other = paired_rate_difference(a, b), paired_rate_difference(a * 5, b * 5, names * 5)
    assert other.value == pytest.approx(change.value)
    assert 1 < (other.high - other.low) / (change.high - change.low) < 1.08
    assert mcnemar(a * 5, b * 5, names * 5) == mcnemar(a, b)


def test_equal_items_tell_as_much_as_one_a_cluster() -> None:
    assert rate_interval([0] * 30, ["a", "b", "c"] * 10) == wilson(0, 3)
    assert rate_interval([0] * 30) == wilson(0, 30)


@pytest.mark.parametrize("case", [(1, 0), (3, 2), (-1, 2)])
def test_wilson_of_no_counts(case: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="wilson"):
        wilson(*case)


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.3])
def test_items_needed_without_any_event_is_where_the_interval_ends_below_the_limit(limit: float) -> None:
    needed = items_needed([0] * 40, [0] * 40, limit)
    assert needed is not None
    assert reference.tango((0, 0, 0, needed))[1] < limit <= reference.tango((0, 0, 0, needed - 1))[1]


@pytest.mark.parametrize(
    ("table", "limit"),
    [((10, 2, 4, 84), 0.05), ((0, 5, 5, 90), 0.1), ((20, 20, 5, 55), 0.0), ((3, 1, 1, 95), 0.03), ((10, 12, 3, 75), 0)],
)
def test_so_many_items_confirm_in_four_of_five_draws(table: reference.Table, limit: float) -> None:
    """The exact power, over all tables that can come of what was seen, is about what was asked for."""
    n = items_needed(*reference.lists(table), limit)
    assert n is not None
    fell, rose = (table[i] / sum(table) for i in (1, 2))
    confirmed = 0.0
    for first, some in enumerate(stats.binom.pmf(np.arange(n + 1), n, fell)):
        others = stats.binom.pmf(np.arange(n - first + 1), n - first, rose / (1 - fell)) if some > 1e-4 else []
        for second, weight in enumerate(others):
            if weight > 1e-4 and rate_difference((0, first, second, n - first - second)).high < limit:
                confirmed += some * weight
    assert confirmed == pytest.approx(0.8, abs=0.05)


def test_no_number_of_items_confirms_what_is_seen_to_break_the_limit() -> None:
    lists = reference.lists((0, 0, 5, 95))
    assert items_needed(*lists, 0.05) is None
    assert items_needed(*lists, 0.06) is not None


def test_clusters_of_equal_items_need_as_many_times_the_items() -> None:
    x, y = reference.lists((10, 4, 6, 80))
    names = [str(i) for i in range(100)]
    alone = items_needed(x, y, 0.1)
    together = items_needed([*x, *x], [*y, *y], 0.1, [*names, *names])
    assert alone is not None
    # Few clusters know their variance badly, which costs a little more.
    assert together == pytest.approx(2 * alone, rel=0.05)
    assert together is not None
    assert together >= 2 * alone


def test_the_power_is_that_of_a_budget() -> None:
    assert pytest.approx(NormalDist().inv_cdf(POWER), abs=1e-15) == Z_POWER
