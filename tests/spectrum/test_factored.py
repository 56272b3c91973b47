"""Norms and spectra from the factors against the oracle that forms ΔW."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from s3lora.spectrum import tall
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import energy, magnitude, normalised_ssi, ssi, stable_rank, weighted_ssi
from s3lora.spectrum.methods import METHODS, Options
from s3lora.spectrum.moments import kurtosis
from tests.reference import dense
from tests.spectrum.cases import (
    ILL,
    SCALING,
    WELL,
    Bounds,
    Factors,
    assert_within,
    check,
    gauge,
    gaussian,
)

QUANTITIES = ("singular_values", "row_norms", "column_norms", "row_normalised", "column_normalised", "frobenius")


@pytest.fixture(params=[None, 60], ids=["one block", "blocks of 60 numbers"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run once as it is, and once with every factor cut into many blocks (of ten rows for r = 6)."""
    if request.param:
        monkeypatch.setattr(tall, "BLOCK", request.param)
        monkeypatch.setattr(tall, "KEEP", 0)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("name", [*WELL, *ILL])
def test_every_quantity_is_within_the_proved_bound(name: str) -> None:
    A, B = {**WELL, **ILL}[name]()
    check(FactoredUpdate(A, B, SCALING), Bounds.of(A, B, SCALING))


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("name", WELL)
def test_nine_digits_where_well_conditioned(name: str) -> None:
    A, B = WELL[name]()
    update, matrix = FactoredUpdate(A, B, SCALING), dense.delta(A, B, SCALING)
    count = min(*matrix.shape, update.rank)
    close = {"rtol": 1e-9, "atol": 0}
    np.testing.assert_allclose(update.singular_values, dense.singular_values(matrix)[:count], **close)
    np.testing.assert_allclose(update.row_norms, dense.row_norms(matrix), **close)
    np.testing.assert_allclose(update.column_norms, dense.column_norms(matrix), **close)
    np.testing.assert_allclose(
        update.row_normalised, dense.singular_values(dense.row_normalised(matrix))[:count], **close
    )
    np.testing.assert_allclose(
        update.column_normalised, dense.singular_values(dense.column_normalised(matrix))[:count], **close
    )


@pytest.mark.parametrize(("condition", "gram"), [(3e2, True), (3e3, False)])
def test_both_paths_are_reached(condition: float, gram: bool) -> None:
    update = FactoredUpdate(*gauge(condition))
    assert bool(update.root_a.exact) is gram
    assert bool(update.root_b.exact) is gram


def test_neither_scale_nor_sign_of_s_matters_to_the_rest() -> None:
    A, B = gaussian(30, 20, 4)
    update, plain = FactoredUpdate(A, B, -2.5), FactoredUpdate(A, B)
    for name in ("singular_values", "row_norms", "column_norms", "frobenius"):
        np.testing.assert_allclose(getattr(update, name), 2.5 * np.asarray(getattr(plain, name)), rtol=1e-14)
    np.testing.assert_array_equal(update.row_normalised, plain.row_normalised)


@pytest.mark.parametrize("view", ["transposed", "strided", "reversed", "read-only"])
def test_views_give_what_copies_give(view: str) -> None:
    A, B = gaussian(40, 30, 5)
    views: dict[str, Factors] = {
        "transposed": (np.ascontiguousarray(A.T).T, np.ascontiguousarray(B.T).T),
        "strided": (np.repeat(A, 2, axis=1)[:, ::2], np.repeat(B, 3, axis=0)[::3]),
        "reversed": (A[::-1, ::-1][::-1, ::-1], B[::-1][::-1]),
        "read-only": (A.view(), B.view()),
    }
    a, b = views[view]
    if view == "read-only":
        a.flags.writeable = b.flags.writeable = False
    before = a.copy(), b.copy()
    for name in QUANTITIES:
        found, true = getattr(FactoredUpdate(a, b), name), getattr(FactoredUpdate(A, B), name)
        np.testing.assert_allclose(found, true, rtol=1e-13)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


@pytest.mark.parametrize("shift", [(-500, 0), (0, -500), (-500, -450), (500, -500), (500, 450), (-1000, 990), (600, 0)])
@pytest.mark.parametrize("name", ["square", "zero rows and columns", "rank above m", "cancelling rows and columns"])
def test_powers_of_two_change_nothing_but_the_unit(name: str, shift: tuple[int, int]) -> None:
    A, B = {**WELL, **ILL}[name]()
    moved = FactoredUpdate(np.ldexp(A, shift[0]), np.ldexp(B, shift[1]))
    plain, bounds = FactoredUpdate(A, B), Bounds.of(A, B)
    for quantity in ("singular_values", "row_norms", "column_norms"):
        found = np.ldexp(getattr(moved, quantity), -sum(shift))
        true = getattr(plain, quantity)
        assert_within(found, true, 2 * getattr(bounds, quantity)(true))
    for method in ("svd", "mas-svd", "spsvd"):
        found, true = METHODS[method].of(moved, Options()), METHODS[method].of(plain, Options())
        np.testing.assert_allclose(np.ldexp(found, -sum(shift)), true, rtol=1e-9, atol=1e-12 * true[0])
    assert kurtosis(moved) == pytest.approx(kurtosis(plain), rel=1e-9)


@pytest.mark.parametrize("name", ["square", "rank above n", "A ill", "both ill", "dependent components", "gauge 3e2"])
def test_bases_hold_singular_vectors_in_descending_order(name: str) -> None:
    A, B = {**WELL, **ILL}[name]()
    update, matrix = FactoredUpdate(A, B), dense.delta(A, B)
    # Q_A and Q_B are only defined by A = L·Q_A and B = Q_B·R: where they can be had, X_r·V must be orthogonal.
    for basis, root, factor, unit in (
        (update.row_normalised_basis(), update.root_a, A, dense.row_normalised(matrix)),
        (update.column_normalised_basis(), update.root_b, B.T, dense.column_normalised(matrix).T),
    ):
        np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-13)
        lengths = np.linalg.norm(root.matrix, axis=1, keepdims=True)
        vectors = (np.linalg.pinv(root.matrix / lengths) @ (factor / lengths)).T @ basis
        image = unit @ vectors
        gram = image.T @ image
        true = np.zeros(len(gram))
        sigma = dense.singular_values(unit)[: len(gram)]
        true[: len(sigma)] = sigma**2
        # Weak directions of an ill-conditioned factor are known to ε·1e10 only; the squares of σ hide what is below.
        np.testing.assert_allclose(gram, np.diag(true), atol=1e-5 * true[0] if "ill" in name else 1e-9 * true[0])


def test_rows_that_cancel_stay_zero_however_long_the_factor() -> None:
    """The rounding of R grows with N: at 150,000 it is eight times that at 4,096, and r = 2 leaves it no slack."""
    n = 150_000
    random = np.random.default_rng(0)
    A = np.repeat(np.round(random.standard_normal((1, n)) * 256) / 256, 2, axis=0)
    third = np.round(random.standard_normal((1, n)) * 256) / 256
    summed = np.vstack((A[:1], third, A[:1] + third))
    for factor, rows in ((A, [[1.0, -1.0], [-7.0, 7.0]]), (summed, [[1.0, 1.0, -1.0]])):
        B = np.vstack((rows, random.standard_normal((5, len(factor)))))
        norms = FactoredUpdate(factor, B).row_norms
        assert not norms[: len(rows)].any()
        assert norms[len(rows) :].all()


def _zero_updates() -> dict[str, tuple[Any, Any, float]]:
    A, B = gaussian(7, 5, 4)
    half = np.array([1.0, 1.0, 0.0, 0.0])
    return {
        "B = 0": (A, np.zeros_like(B), 1.0),
        "A = 0": (np.zeros_like(A), B, 1.0),
        "both": (np.zeros_like(A), np.zeros_like(B), 1.0),
        "s = 0": (A, B, 0.0),
        "bfloat16": (A.astype(ml_dtypes.bfloat16), np.zeros((7, 4), ml_dtypes.bfloat16), 2.0),
        "components of A and B that never meet": (A * half[:, None], B * (1 - half), 1.0),
        "components that cancel": (np.vstack((A, A)), np.hstack((B, -B)), 1.0),
        "below float64": (1e-200 * A, 1e-200 * B, 1.0),
        "no rank": (np.zeros((0, 5)), np.zeros((7, 0)), 1.0),
        "no rows": (A, np.zeros((0, 4)), 1.0),
        "no columns": (np.zeros((4, 0)), B, 1.0),
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", _zero_updates())
def test_a_zero_update_has_an_empty_spectrum_and_no_index(name: str, method: str) -> None:
    update = FactoredUpdate(*_zero_updates()[name])
    assert update.is_zero
    for options in (Options(), Options(rank=2), Options(fit="l1")):
        sigma = METHODS[method].of(update, options)
        assert sigma.shape == (0,)
        for index in (ssi, normalised_ssi, weighted_ssi, magnitude, stable_rank, energy):
            assert math.isnan(index(sigma))
    assert math.isnan(kurtosis(update))
    for quantity in ("row_norms", "column_norms"):
        assert np.max(getattr(update, quantity), initial=0.0) < 1e-12


def test_an_update_that_only_looks_small_is_not_zero() -> None:
    for A, B in (gaussian(4, 3, 1), gauge(1e10), WELL["scale 1e-30"](), WELL["components 1e-30 to 1e30"]()):
        assert not FactoredUpdate(A, B).is_zero


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize("side", ["A", "B"])
def test_what_is_not_finite_is_refused(side: str, dtype: Any, value: float) -> None:
    for others in (1.0, 0.0):
        factors = {"A": np.full((3, 50), others, dtype), "B": np.full((40, 3), others, dtype)}
        factors[side][-1, -1] = value
        for scaling in (1.0, 0.0):
            update = FactoredUpdate(factors["A"], factors["B"], scaling)
            for quantity in (*QUANTITIES, "is_zero"):
                with pytest.raises(FloatingPointError, match="NaN or infinity"):
                    getattr(update, quantity)
            for method in METHODS.values():
                with pytest.raises(FloatingPointError):
                    method.of(update, Options())
            with pytest.raises(FloatingPointError):
                kurtosis(update)


@pytest.mark.parametrize("scaling", [math.nan, math.inf, -math.inf])
def test_a_scaling_that_is_not_finite_is_refused(scaling: float) -> None:
    with pytest.raises(FloatingPointError, match="scaling"):
        FactoredUpdate(*gaussian(4, 3, 2), scaling)


def test_an_update_beyond_float64_is_refused() -> None:
    A, B = gaussian(6, 5, 2)
    for update in (FactoredUpdate(1e200 * A, 1e200 * B), FactoredUpdate(1e160 * A, B, 1e160)):
        for method in ("svd", "mas-svd", "spsvd"):
            with pytest.raises(FloatingPointError):
                METHODS[method].of(update, Options())


@pytest.mark.parametrize("shapes", [((3, 4), (5, 2)), ((3,), (5, 3)), ((3, 4), (3,)), ((1, 3, 4), (5, 3))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="not defined"):
        FactoredUpdate(np.zeros(shapes[0]), np.zeros(shapes[1]))
