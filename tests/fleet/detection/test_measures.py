"""AUC, rates and Brier score against their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.fleet.detection import measures
from s3lora.fleet.detection.measures import Area, area, figures
from s3lora.statistics import Z, wilson

levels = st.lists(st.integers(0, 6).map(lambda i: i / 6), min_size=1, max_size=30)


def found(positive: Any, negative: Any, seed: int = 0) -> Area:
    result = area(np.asarray(positive, dtype=float), np.asarray(negative, dtype=float), seed, resamples=200)
    assert result is not None
    return result


@settings(max_examples=80, deadline=None)
@given(positive=levels, negative=levels)
def test_the_area_is_a_share_of_pairs(positive: list[float], negative: list[float]) -> None:
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    result = found(positive, negative)
    assert result.value == pytest.approx(np.mean(pairs), abs=1e-12)
    assert 0 <= result.low <= result.value + 1e-12
    assert result.value - 1e-12 <= result.high <= 1
    turned = found(negative, positive)
    assert turned.value == pytest.approx(1 - result.value, abs=1e-12)


@pytest.mark.parametrize(("value", "m", "n"), [(0.5, 5, 5), (0.8, 10, 30), (1.0, 5, 20), (0.0, 8, 8), (0.97, 3, 200)])
def test_the_ends_of_the_score_interval_solve_its_equation(value: float, m: int, n: int) -> None:
    for end in measures._score_interval(value, m, n):
        if 0 < end < 1:
            first = (1 - end) / (2 - end) + end / (1 + end)
            variance = end * (1 - end) * (1 + ((m + n) / 2 - 1) * first) / (m * n)
            assert abs(end - value) == pytest.approx(Z * math.sqrt(variance), rel=1e-9)


def test_a_perfect_separation_of_few_is_no_certainty() -> None:
    few, many = found([1.0] * 5, [0.0] * 5), found([1.0] * 500, [0.0] * 500)
    assert few.value == many.value == few.high == 1
    assert few.low < 0.75
    assert 0.98 < many.low < 1


def test_the_interval_covers_the_truth() -> None:
    """Normal classes one deviation apart have an AUC of Φ(1/√2)."""
    truth = 0.5 * (1 + math.erf(0.5))
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        result = found(random.normal(1, 1, size=25), random.normal(0, 1, size=40), seed)
        hits += result.low <= truth <= result.high
    assert hits >= 180, "at a coverage of 95 %, fewer hits come once in a thousand times"


def test_figures_of_a_population() -> None:
    probabilities = np.array([0.9, 0.2, 0.6, 0.1, 0.4])
    labels = np.array([1, 1, 0, 0, 0])
    result = figures(probabilities, labels, probabilities > 0.5, np.full(5, 0.4), seed=0)
    assert result.false_positives is not None
    assert result.recall is not None
    assert result.brier is not None
    assert result.auc is not None
    assert (result.false_positives.count, result.false_positives.n) == (1, 3)
    assert (result.false_positives.low, result.false_positives.high) == wilson(1, 3)[1:]
    assert (result.recall.count, result.recall.n) == (1, 2)
    assert result.auc.value == pytest.approx(4 / 6)
    assert result.brier.value == pytest.approx((0.1**2 + 0.8**2 + 0.6**2 + 0.1**2 + 0.4**2) / 5)
    assert result.brier.constant == pytest.approx((2 * 0.6**2 + 3 * 0.4**2) / 5)
    assert result.brier.low <= result.brier.value <= result.brier.high


def test_what_nobody_was_asked_has_no_figure() -> None:
    nothing = figures(np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0), seed=0)
    assert nothing == measures.Figures(None, None, None, None)
    ones = figures(np.array([0.5]), np.array([1]), np.array([True]), np.array([0.5]), seed=0)
    assert ones.auc is None
    assert ones.false_positives is None
    assert ones.recall is not None
