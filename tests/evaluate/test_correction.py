"""The judge's error carried into the rate of attacks."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.evaluate.judges.correction import band, corrected, rogan_gladen
from s3lora.evaluate.judges.measured import JudgeCounts
from s3lora.statistics import Interval

shares = st.floats(0, 1)


def counted(seen: int, refusals: int, passed: int, answers: int) -> JudgeCounts:
    """Return counts of a model: so many of its refusals were seen, and so many of its answers passed as such."""
    return JudgeCounts("model", True, seen, refusals - seen, answers - passed, passed, 0, 0)


@given(r=shares, se=shares, sp=shares)
def test_correction_undoes_what_the_judge_does(r: float, se: float, sp: float) -> None:
    seen = se * r + (1 - sp) * (1 - r)
    found = corrected(1 - seen, se, sp)
    if se + sp <= 1:
        assert found is None
    elif se + sp > 1.001:
        assert found == pytest.approx(1 - r, abs=1e-9 / (se + sp - 1))


def test_a_judge_without_errors_changes_nothing() -> None:
    assert corrected(0.3, 1, 1) == pytest.approx(0.3)
    perfect = counted(20, 20, 30, 30)
    assert band(Interval(0.3, 0.2, 0.4), [perfect]) == pytest.approx((0.2, 0.4))


def test_the_band_of_the_worst_and_the_best_model() -> None:
    confusions = [counted(195, 195, 240, 250), counted(63, 175, 249, 250), counted(0, 0, 4, 5)]
    low, high = band(Interval(0.7, 0.7, 0.7), confusions)  # type: ignore[misc]
    # (0.7 + 0.36 − 1) / (0.36 + 0.996 − 1) is the least, and the judge without a miss says (0.7 + 0) / 0.96.
    assert low == pytest.approx((0.7 + 0.36 - 1) / (0.36 + 0.996 - 1))
    assert high == pytest.approx(0.7 / 0.96)


def test_a_band_without_labels_or_with_a_judge_that_is_no_better_than_chance() -> None:
    assert band(Interval(0.5, 0.4, 0.6), []) is None
    assert band(Interval(0.5, 0.4, 0.6), [counted(0, 0, 5, 5)]) is None
    assert band(Interval(0.5, 0.4, 0.6), [counted(1, 10, 5, 10)]) == (0.0, 1.0)


@given(
    rate=shares,
    counts=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4),
)
def test_the_band_holds_every_model_s_own_correction(rate: float, counts: list[tuple[int, int]]) -> None:
    confusions = [counted(a, 20, b, 20) for a, b in counts]
    found = band(Interval(rate, rate, rate), confusions)
    assert found is not None
    for one in confusions:
        own = corrected(rate, one.tp / 20, one.tn / 20)
        assert own is None or found[0] - 1e-12 <= own <= found[1] + 1e-12


def _binomial(n: int, p: float) -> np.ndarray:
    return np.array([comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


@pytest.mark.parametrize("n", [20, 48])
@pytest.mark.parametrize("truth", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("se", "sp"), [(0.7, 0.96), (0.9, 1.0), (1.0, 0.8)])
def test_the_interval_covers_the_truth_at_every_rate(n: int, truth: float, se: float, sp: float) -> None:
    """Exactly, by summing over every outcome of the measurement and of both labelled samples of 20."""
    seen = _binomial(n, 1 - (se * (1 - truth) + (1 - sp) * truth))
    hits, passes = _binomial(20, se), _binomial(20, sp)
    covered = whole = 0.0
    for a in range(21):
        for b in range(21):
            if hits[a] * passes[b] < 1e-7:
                continue
            for k in range(n + 1):
                weight = hits[a] * passes[b] * seen[k]
                if weight < 1e-9:
                    continue
                found = rogan_gladen(k, n, counted(a, 20, b, 20))
                whole += weight
                covered += weight if found is None or found.low - 1e-12 <= truth <= found.high + 1e-12 else 0.0
    assert whole > 0.999
    assert covered / whole >= 0.945


def test_no_single_rate_without_labels_on_both_sides_or_from_a_judge_that_tells_nothing() -> None:
    assert rogan_gladen(5, 10, counted(0, 0, 5, 5)) is None
    assert rogan_gladen(5, 10, counted(5, 5, 0, 0)) is None
    assert rogan_gladen(5, 10, counted(5, 10, 5, 10)) is None
    assert rogan_gladen(5, 10, counted(2, 10, 2, 10)) is None


def test_attacks_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="attacks"):
        rogan_gladen(3, 2, counted(1, 1, 1, 1))


def test_more_labels_narrow_the_interval() -> None:
    few, many = (rogan_gladen(50, 100, counted(9 * k, 10 * k, 10 * k, 10 * k)) for k in (2, 50))
    assert few is not None
    assert many is not None
    assert many.high - many.low < few.high - few.low
    assert many.value == few.value == pytest.approx((0.5 - 0.1) / 0.9)
