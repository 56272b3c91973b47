"""Kurtosis without the entries of ΔW against kurtosis of its entries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from s3lora.spectrum import moments
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.moments import kurtosis
from tests.reference import dense
from tests.spectrum.cases import ILL, SCALING, WELL, Factors, gaussian


@pytest.fixture(params=["moments", "blocks"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take either path whatever the rank, and cut both into many pieces."""
    monkeypatch.setattr(moments, "EXACT_RANK", 1000 if request.param == "moments" else 0)
    monkeypatch.setattr(moments, "ENTRIES", 50)
    return str(request.param)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("name", [*WELL, *ILL])
def test_both_paths_are_the_definition(name: str) -> None:
    """A term of Σ_k b_k·a_k is rounded relative to itself; `gauge 1e10` has terms 1e10 times their sum."""
    A, B = {**WELL, **ILL}[name]()
    matrix = dense.delta(A, B, SCALING)
    found = kurtosis(FactoredUpdate(A, B, SCALING))
    if np.ptp(matrix) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(dense.kurtosis(matrix), rel=1e-4 if name == "gauge 1e10" else 1e-9, abs=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 20, 21, 33, 40])
def test_the_path_taken_by_itself(rank: int) -> None:
    A, B = gaussian(70, 60, rank)
    B[3] *= 5.0
    assert kurtosis(FactoredUpdate(A, B)) == pytest.approx(dense.kurtosis(dense.delta(A, B)), rel=1e-10)


def _shifted(mean: float) -> Factors:
    """Return factors of a Gaussian update of rank 3 whose entries all have `mean` added to them."""
    A, B = gaussian(40, 30, 3)
    return np.vstack((A, np.full((1, 30), mean))), np.hstack((B, np.ones((40, 1))))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("mean", [0.0, 1.0, 1e3, 1e6, -1e8])
def test_a_large_mean_costs_digits_once_and_not_four_times(mean: float) -> None:
    """Adding the mean rounds by ε·mean / deviation; raw moments would lose the fourth power of that ratio."""
    A, B = _shifted(mean)
    true = dense.kurtosis(dense.delta(*_shifted(0.0)))
    assert kurtosis(FactoredUpdate(A, B)) == pytest.approx(true, rel=1e-12 + 1e-14 * abs(mean))


@pytest.mark.parametrize("value", [0.1, 3.0, -1e-20])
def test_equal_entries_have_no_shape(value: float) -> None:
    for rank in (1, 3, 25):
        update = FactoredUpdate(np.full((rank, 50), value), np.full((70, rank), 0.7))
        assert math.isnan(kurtosis(update))


def test_known_values() -> None:
    signs = np.array([[1.0, -1.0, 1.0, -1.0]])
    assert kurtosis(FactoredUpdate(signs, np.ones((3, 1)))) == pytest.approx(-2.0, abs=1e-13)  # two points: the least
    one = np.zeros((1, 100))
    one[0, 0] = 1.0  # one entry of 1 in 1,000: (1 − 3pq) / (pq) − 3 + ... of a Bernoulli variable
    p = 1 / 1000
    true = (1 - 6 * p * (1 - p)) / (p * (1 - p))
    assert kurtosis(FactoredUpdate(one, np.eye(10)[:, :1])) == pytest.approx(true, rel=1e-12)
    # A product of two independent normal variables has excess kurtosis 6; a sum of many is nearly normal.
    random = np.random.default_rng(0)
    for rank, expected in ((1, 6.0), (32, 6.0 / 32)):
        A, B = random.standard_normal((rank, 4000)), random.standard_normal((4000, rank))
        assert kurtosis(FactoredUpdate(A, B)) == pytest.approx(expected, rel=0.15)
