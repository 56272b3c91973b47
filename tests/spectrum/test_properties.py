"""What must hold for every update."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from s3lora.spectrum import indices as ix
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.methods import METHODS, Options, mas_svd, spsvd, svd
from s3lora.spectrum.moments import kurtosis
from tests.examples import examples
from tests.reference import dense
from tests.spectrum.cases import Bounds, Factors, check
from tests.spectrum.strategies import gauges, gaussian_factors, integer_factors, scalings, seeds, spectra

Float = NDArray[np.float64]

FACTORED = ("svd", "mas-svd", "spsvd")


@given(integer_factors())
@settings(max_examples=examples(200))
def test_small_integers_however_deficient(factors: Factors) -> None:
    A, B = factors
    update, bounds = FactoredUpdate(A, B), Bounds.of(A, B)
    assert update.is_zero is not bool((B @ A).any())
    check(update, bounds)
    for name in FACTORED:
        sigma = METHODS[name].of(update, Options())
        assert len(sigma) == (0 if update.is_zero else min(*update.shape, update.rank))
        assert np.isfinite(sigma).all()
        assert (sigma >= 0).all()
        assert (np.diff(sigma) <= 0).all()
    found = kurtosis(update)
    if np.ptp(bounds.matrix) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(dense.kurtosis(bounds.matrix), rel=1e-9, abs=1e-9)


@given(gaussian_factors(), scalings, st.data())
def test_ssi_does_not_see_scale_order_or_gauge(factors: Factors, scaling: float, data: st.DataObject) -> None:
    A, B = factors
    R, inverse = data.draw(gauges(len(A)))
    random = np.random.default_rng(data.draw(seeds))
    twins = {
        "scaled by s": FactoredUpdate(A, B, scaling),
        "scaled in A": FactoredUpdate(scaling * A, B),
        "rows permuted": FactoredUpdate(A, random.permutation(B, axis=0)),
        "columns permuted": FactoredUpdate(random.permutation(A, axis=1), B),
        "transposed": FactoredUpdate(B.T, A.T),
        "gauge": FactoredUpdate(inverse @ A, B @ R),
    }
    plain = FactoredUpdate(A, B)
    for method in (svd, mas_svd):
        expected = ix.ssi(method(plain))
        for change, twin in twins.items():
            assert ix.ssi(method(twin)) == pytest.approx(expected, rel=1e-9), change


@given(gaussian_factors(), scalings)
def test_sigma_scales_with_the_update(factors: Factors, scaling: float) -> None:
    A, B = factors
    for method in (svd, mas_svd, spsvd):
        found, plain = method(FactoredUpdate(A, B, scaling)), method(FactoredUpdate(A, B))
        np.testing.assert_allclose(found, abs(scaling) * plain, rtol=1e-13)


@given(gaussian_factors(), st.integers(1, 8))
def test_ranges_of_what_is_measured(factors: Factors, components: int) -> None:
    update = FactoredUpdate(*factors)
    count = min(components, update.rank)
    slack = 1 + 1e-12
    for name in FACTORED:
        sigma = METHODS[name].of(update, Options(rank=components))
        assert len(sigma) == count
        assert 1 / count / slack <= ix.ssi(sigma) <= 1
        assert bool(ix.ssi(sigma) == pytest.approx(1, rel=1e-15)) is (count == 1)
    # A unit vector on either side finds no more than σ_1, and orthonormal pairs no more than ‖ΔW‖_F in all.
    scales = spsvd(update)
    assert scales[0] <= update.singular_values[0] * slack
    assert np.linalg.norm(scales) <= update.frobenius * slack
    assert update.frobenius == pytest.approx(float(np.linalg.norm(update.singular_values)), rel=1e-12)
    # m rows of length 1: the squares of the singular values of X_r add up to m.
    assert np.sum(update.row_normalised**2) == pytest.approx(update.shape[0], rel=1e-12)
    assert np.sum(update.column_normalised**2) == pytest.approx(update.shape[1], rel=1e-12)
    assert np.sum(update.row_norms**2) == pytest.approx(update.frobenius**2, rel=1e-12)
    assert np.sum(update.column_norms**2) == pytest.approx(update.frobenius**2, rel=1e-12)


@given(spectra)
def test_ranges_of_the_indices(sigma: Float) -> None:
    count, slack = len(sigma), 1 + 1e-12
    assert 1 / count / slack <= ix.ssi(sigma) <= 1
    assert 0 <= ix.normalised_ssi(sigma) <= slack
    assert 0 < ix.weighted_ssi(sigma) <= ix.magnitude(sigma) == sigma[0]
    assert 1 <= ix.stable_rank(sigma) <= count * slack
    assert 1 <= ix.effective_rank(sigma) <= count * slack
    assert 0 <= ix.spectral_entropy(sigma) <= math.log(count) * slack + 1e-15
    assert 1 / count / slack <= ix.energy(sigma) <= 1
    # Rényi entropies fall with their order: 1, 2 and ∞.
    assert ix.stable_rank(sigma) >= 1 / ix.ssi(sigma) ** 2 / count / slack
    assert ix.effective_rank(sigma) * slack >= 1 / ix.ssi(sigma)


@given(gaussian_factors(), st.floats(0.1, 10.0))
@settings(max_examples=50)
def test_kurtosis_has_no_scale_no_order_and_no_less_than_minus_two(factors: Factors, scaling: float) -> None:
    A, B = factors
    plain = kurtosis(FactoredUpdate(A, B))
    assert plain >= -2
    assert kurtosis(FactoredUpdate(A, -scaling * B)) == pytest.approx(plain, rel=1e-9, abs=1e-9)
    assert kurtosis(FactoredUpdate(B.T, A.T)) == pytest.approx(plain, rel=1e-9, abs=1e-9)
