from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from s3lora.statistics import learned, learned_share, within_budget
from s3lora.statistics.student import normal_tail, quantile, tail
from tests.examples import examples
from tests.reference import statistics as reference

bits = st.integers(0, 1).map(float)
numbers = st.integers(-20, 20).map(float)


def rows(item: st.SearchStrategy[float]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    one = st.tuples(item, item, item, st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from("abcdefghijklmnop"))
    return st.lists(one, min_size=10, max_size=40)


@settings(max_examples=examples(150), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.booleans(), st.booleans(), st.data())
def test_the_share_against_the_literal_version(rate: bool, clusters: bool, data: st.DataObject) -> None:
    x, a, b, w, names = (list(column) for column in zip(*data.draw(rows(bits if rate else numbers)), strict=True))
    # Most often the adapter has learned something.
    b = [value + (0 if rate else data.draw(st.sampled_from([0, 25]))) for value in b]
    groups = names if clusters else None
    found = learned_share(x, a, b, w, groups, better="lower", rate=rate)
    units = len(set(names)) if clusters else len(x)
    if units < 10:
        assert found == (None, learned.FEW)
        return
    value, t = reference.learned_share(x, a, b, w, names if clusters else [str(i) for i in range(len(x))], rate)
    limit = reference.student_quantile(units - 1 + 2 * rate)
    # Where f is large, t is that of what was learned alone.
    far = t(-1e9)
    assert (found.share is None) == (far <= limit) or abs(far - limit) < 1e-3
    if found.share is not None:
        low, high = found.share.low, found.share.high
        assert found.share.value == pytest.approx(value)
        assert low <= value <= high
        for end, side in ((low, -1), (high, 1)):
            # Up to the end no difference can be told; beyond it can, wherever one looks.
            size = abs(end - value)
            assert size < 1e-9 or -side * t(end - side * 1e-6 * size) <= limit + 1e-3
            for step in (1e-6 * (1 + size), 0.1 * size + 1e-6, size + 1e-6, 10 * size + 1, 1e4):
                assert -side * t(end + side * step) >= limit - 1e-3
        # Turned round, what was better is worse.
        turned = learned_share(*([-v for v in c] for c in (x, a, b)), w, groups, better="higher")
        assert rate or turned.share == pytest.approx(found.share)
        for budget in (0.1, 0.5):
            test = within_budget(x, a, b, budget, w, groups, better="lower", rate=rate)
            # The interval and the test are one, but for gaps that skewness makes.
            assert test.p < learned.LEVEL or found.share.high > budget - 1e-9
            assert (test.p < learned.LEVEL) == (-t(budget) > limit) or abs(-t(budget) - limit) < 1e-3


def test_the_share_by_hand() -> None:
    adapter, base = [1.0] * 12, [3.0] * 12
    x = [1.0, 1.4] * 6
    found = learned_share(x, adapter, base, better="lower").share
    # The base is a constant 2 worse: the interval is that of the mean of 0.2, sd 0.2·√(12/11), by 2.
    half = quantile(11) * 0.2 * math.sqrt(12 / 11) / math.sqrt(12) / 2
    assert found == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert learned_share(adapter, adapter, base, better="lower").share == (0, 0, 0)
    assert learned_share(base, adapter, base, better="lower").share == (1, 1, 1)


def test_a_measure_that_does_not_see_the_adapter() -> None:
    x = [float(i % 3) for i in range(300)]
    assert learned_share(x, x, x, better="lower") == (None, learned.UNSEEN)
    other = [x[-1], *x[:-1]]
    assert learned_share(x, x, other, better="higher") == (None, learned.UNSEEN)
    worse = [value + 2 for value in x]
    assert learned_share(x, worse, x, better="lower") == (None, learned.WORSE)
    assert learned_share(x, x, worse, better="lower").reason == ""
    for reason in (learned.UNSEEN, learned.WORSE):
        assert "more data" not in reason


def test_rates_that_did_not_change_may_have_been_lost_all_the_same() -> None:
    adapter, base = [1] * 27 + [0] * 3, [0] * 30
    found = learned_share(adapter, adapter, base, better="higher", rate=True).share
    assert found is not None
    assert found.value == 0
    assert found.low < -0.05
    assert found.high > 0.05
    # A tenth is lost of 300: the interval is about ± 0.04.
    many = learned_share([1] * 243 + [0] * 57, [1] * 270 + [0] * 30, [0] * 300, better="higher", rate=True).share
    assert many is not None
    assert many.value == pytest.approx(0.1)
    assert many.high - many.low < 0.09


def test_power_and_numbers_of_a_budget() -> None:
    rng = np.random.default_rng(0)
    adapter, x = (rng.random((2, 60)) < 0.9).astype(float)
    base = np.zeros(60)
    found = within_budget(x, adapter, base, 0.1, better="higher", rate=True)
    needed = found.needed
    assert needed is not None
    assert 60 < needed < 3000
    assert found.power < learned.POWER

    def power(n: int, truly: float = 0.0) -> float:
        parts = [np.resize(part, n) for part in (x, adapter, base)]
        return within_budget(*parts, 0.1, better="higher", rate=True, truly=truly).power

    # With so many items of the same kind the power is what was asked for.
    assert power(needed) == pytest.approx(learned.POWER, abs=0.03)
    assert power(4 * needed) > 0.99
    assert power(needed, truly=0.05) < power(needed)
    assert power(needed, truly=0.1) == learned.LEVEL
    assert within_budget(x, adapter, base, 0.1, better="higher", truly=0.2).needed is None


def test_the_power_is_what_happens() -> None:
    rng = np.random.default_rng(5)
    hits, told = 0, []
    for _ in range(400):
        adapter, base, noise = rng.normal(0, 1, 40), rng.normal(2, 1, 40), rng.normal(0, 0.3, 40)
        found = within_budget(adapter + noise, adapter, base, 0.1, better="lower")
        hits += found.p < learned.LEVEL
        told.append(found.power)
    assert np.median(told) == pytest.approx(hits / 400, abs=0.06)


@pytest.mark.parametrize("degrees", [1, 2, 5, 9, 30, 299, 5000])
def test_student(degrees: int) -> None:
    assert quantile(degrees) == pytest.approx(reference.student_quantile(degrees), rel=1e-7)
    assert tail(quantile(degrees), degrees) == pytest.approx(0.025, rel=1e-9)
    assert tail(-1.3, degrees) == pytest.approx(1 - tail(1.3, degrees))


def test_student_by_tables() -> None:
    assert quantile(1) == pytest.approx(12.7062, abs=1e-4)
    assert quantile(9) == pytest.approx(2.26216, abs=1e-5)
    assert quantile(9, 0.05) == pytest.approx(1.83311, abs=1e-5)
    assert tail(3.0, 7) == pytest.approx(0.00997106, abs=1e-8)
    assert tail(math.inf, 3) == 0
    assert tail(-math.inf, 3) == 1
    assert tail(2.0, 1e7) == pytest.approx(normal_tail(2.0), rel=1e-5)


@pytest.mark.parametrize("budget", [math.nan, math.inf])
def test_a_budget_is_a_number(budget: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        within_budget([1.0], [1.0], [1.0], budget, better="lower")
    with pytest.raises(ValueError, match="0 or 1"):
        learned_share([0.5] * 10, [0.0] * 10, [1.0] * 10, better="lower", rate=True)
