"""Spectra of Kronecker products against those of the dense matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import INDICES, Spectra
from s3lora.spectrum.kronecker import KroneckerUpdate, kronecker_kurtosis
from s3lora.spectrum.methods import METHODS, Options
from s3lora.spectrum.moments import kurtosis
from tests.reference import dense
from tests.reference.forms import kronecker

Piece = tuple[np.ndarray, np.ndarray]  # type: ignore[type-arg]
sizes = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 6))


def piece(shape: tuple[int, int, int], seed: int, *, zero_row: bool = False) -> Piece:
    """Return (A, B) whose product has directions of very different size, and a zero row where that is asked for."""
    m, n, r = shape
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(r, n)), random.normal(size=(m, r)) * np.logspace(0, -2, r)
    if zero_row and m > 1:
        b[0] = 0.0
    return a, b


def made(first: Piece, second: Piece, scaling: float = 1.0) -> KroneckerUpdate:
    return KroneckerUpdate(FactoredUpdate(*first, scaling), FactoredUpdate(*second, 1.0))


@given(sizes, sizes, st.integers(0, 99), st.booleans())
def test_against_the_dense_matrix(
    one: tuple[int, int, int], other: tuple[int, int, int], seed: int, zero: bool
) -> None:
    first, second = piece(one, seed, zero_row=zero), piece(other, seed + 1000)
    update = made(first, second, -0.5)
    matrix = 0.5 * kronecker(first[1] @ first[0], second[1] @ second[0])
    assert update.shape == matrix.shape
    count = len(update.singular_values)
    assert count == min(one) * min(other)
    size = np.linalg.norm(matrix)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(update.singular_values, sigma[:count], atol=1e-12 * size)
    assert update.frobenius == pytest.approx(size, rel=1e-12)
    np.testing.assert_allclose(update.row_norms, np.linalg.norm(matrix, axis=1), atol=1e-12 * size)
    np.testing.assert_allclose(update.column_norms, np.linalg.norm(matrix, axis=0), atol=1e-12 * size)
    options = Options()
    for name, oracle in (("svd", dense.svd), ("mas-svd", dense.mas_svd)):
        found = METHODS[name].of(update, options)
        np.testing.assert_allclose(found, oracle(matrix, count), atol=1e-9 * size, err_msg=name)


@given(sizes, sizes, st.integers(0, 99))
def test_a_stack_is_its_modules_one_by_one(one: tuple[int, int, int], other: tuple[int, int, int], seed: int) -> None:
    pairs = [(piece(one, seed + i, zero_row=True), piece(other, seed + 50 + i)) for i in range(3)]
    pairs.append(((np.zeros((one[2], one[1])), np.ones((one[0], one[2]))), piece(other, seed)))
    stack = KroneckerUpdate(
        FactoredUpdate([a for (a, _), _ in pairs], [b for (_, b), _ in pairs], [2.0] * 4),
        FactoredUpdate([a for _, (a, _) in pairs], [b for _, (_, b) in pairs], [1.0] * 4),
    )
    assert stack.is_zero.tolist() == [False] * 3 + [True]
    assert len(stack) == 4
    for name in ("mas-svd", "svd", "spsvd"):
        values = METHODS[name].of(stack, Options())
        spectra = Spectra(values, stack)
        for i, single in enumerate(stack):
            alone = METHODS[name].of(single, Options())
            if i == 3:
                assert (len(alone), values[i].any()) == (0, False)
                continue
            assert np.array_equal(values[i], alone), name
            for index in INDICES.values():
                got, wanted = index.values(spectra)[i], index.values(Spectra(alone, single))
                assert got == wanted or (math.isnan(got) and math.isnan(wanted)), (name, index.name)


def test_spsvd_matches_the_directions_of_the_product() -> None:
    first, second = piece((4, 5, 3), 1), piece((3, 4, 2), 2)
    update = made(first, second)
    found = METHODS["spsvd"].of(update, Options())
    wanted = METHODS["spsvd"].of(update.multiplied, Options())
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    fitted = METHODS["spsvd"].of(update, Options(fit="l1"))
    np.testing.assert_allclose(fitted, METHODS["spsvd"].of(update.multiplied, Options(fit="l1")))


def test_the_released_method_sees_the_product() -> None:
    first, second = piece((2, 3, 2), 1), piece((3, 3, 3), 2)
    update = made(first, second)
    matrix = kronecker(first[1] @ first[0], second[1] @ second[0])
    assert METHODS["released"].of(update, Options())[0] == pytest.approx(dense.released(matrix), rel=1e-9)


@given(sizes, sizes, st.integers(0, 99), st.sampled_from([0.0, 1.0, 30.0]))
def test_kurtosis(one: tuple[int, int, int], other: tuple[int, int, int], seed: int, shift: float) -> None:
    (a, b), second = piece(one, seed), piece(other, seed + 1000)
    # A column of ones beside a row of ones: a mean far from zero.
    first = np.vstack([a, np.ones((1, a.shape[1]))]), np.hstack([b, np.full((len(b), 1), shift)])
    update = made(first, second, 3.0)
    matrix = kronecker(first[1] @ first[0], second[1] @ second[0])
    found = kurtosis(update)
    if matrix.size == 1 or np.ptp(matrix) < 1e-9 * np.abs(matrix).max():
        assert math.isnan(found)
    else:
        assert found == pytest.approx(dense.kurtosis(matrix), rel=1e-6, abs=1e-6)


def test_equal_entries_have_no_kurtosis() -> None:
    ones = np.ones((1, 3)), np.ones((2, 1))
    assert math.isnan(kronecker_kurtosis(made(ones, ones)))
    assert math.isnan(kronecker_kurtosis(made(ones, (np.zeros((1, 2)), np.ones((2, 1))))))


def test_what_overflows_is_an_error() -> None:
    huge = np.array([[1e200]]), np.array([[1e100]])
    with pytest.raises(FloatingPointError):
        _ = made(huge, huge).singular_values
    tiny = np.array([[1e-200]]), np.array([[1e-100]])
    assert made(tiny, tiny).is_zero
