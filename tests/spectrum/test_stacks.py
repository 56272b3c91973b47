"""A stack of modules: each has the very numbers that it has alone, whatever else lies beside it."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.spectrum import tall
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import INDICES, Spectra
from s3lora.spectrum.methods import METHODS, Options
from tests.spectrum.cases import ILL, WELL, gaussian

PROPERTIES = (
    *("singular_values", "row_norms", "column_norms", "row_normalised", "column_normalised", "frobenius", "is_zero"),
    *("mean_row_norm", "mean_column_norm"),
)


def neighbours(shape: tuple[int, int, int]) -> list[tuple[Any, Any]]:
    """Return factors of one shape that take every path: well and ill conditioned, zero, tiny, huge, of other dtypes."""
    m, n, r = shape
    A, B = gaussian(m, n, r, 1)
    deficient = B.copy()
    deficient[:, -1] = deficient[:, 0]
    steep = A * np.geomspace(1.0, 1e-9, r)[:, None]
    return [
        (A, B),
        (A, np.zeros_like(B)),
        (steep, B),
        (A, deficient),
        (np.ldexp(A, -500), np.ldexp(B, 400)),
        (A.astype(np.float16), B.astype(ml_dtypes.bfloat16)),
        (np.asfortranarray(A), np.ascontiguousarray(B.T).T),
        (np.stack([A, A], axis=2)[:, :, 1], np.stack([B, B], axis=2)[:, :, 1]),
        gaussian(m, n, r, 2),
    ]


@pytest.mark.parametrize("shape", [(40, 30, 5), (5, 40, 8), (300, 2, 3), (391, 1, 3), (1, 66, 8), (17, 19, 1)])
@pytest.mark.parametrize("keep", [tall.KEEP, 0])
@pytest.mark.parametrize("block", [tall.BLOCK, 60])
def test_each_has_the_numbers_it_has_alone(
    shape: tuple[int, int, int], keep: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tall, "KEEP", keep)
    monkeypatch.setattr(tall, "BLOCK", block)
    pairs = neighbours(shape)
    for order in (pairs, pairs[::-1], pairs[:2]):
        scalings = [0.5 + i for i in range(len(order))]
        stack = FactoredUpdate([a for a, _ in order], [b for _, b in order], scalings)
        alone = [FactoredUpdate(a, b, s) for (a, b), s in zip(order, scalings, strict=True)]
        for name in PROPERTIES:
            found = getattr(stack, name)
            for i, one in enumerate(alone):
                np.testing.assert_array_equal(found[i], getattr(one, name), err_msg=f"{name} of {i}")
        for method in ("svd", "mas-svd", "spsvd"):
            sigma = METHODS[method].of(stack, Options())
            values = {name: index.of(Spectra(sigma, stack)) for name, index in INDICES.items() if not index.costly}
            for i, one in enumerate(alone):
                own = METHODS[method].of(one, Options())
                np.testing.assert_array_equal(sigma[i], own if len(own) else np.zeros(sigma.shape[1]))
                for name, index in INDICES.items():
                    if not index.costly:
                        np.testing.assert_array_equal(values[name][i], index.of(Spectra(own, one)), err_msg=name)


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6)
)
def test_the_order_does_not_matter(seeds: list[int], m: int, n: int, r: int) -> None:
    pairs = [gaussian(m, n, r, seed) for seed in seeds]
    stack = FactoredUpdate([a for a, _ in pairs], [b for _, b in pairs], [1.0] * len(pairs))
    turned = FactoredUpdate([a for a, _ in pairs[::-1]], [b for _, b in pairs[::-1]], [1.0] * len(pairs))
    np.testing.assert_array_equal(
        METHODS["mas-svd"].of(stack, Options()), METHODS["mas-svd"].of(turned, Options())[::-1]
    )


@pytest.mark.parametrize("name", [*WELL, *ILL])
def test_a_module_beside_hard_ones(name: str) -> None:
    A, B = {**WELL, **ILL}[name]()
    other = gaussian(B.shape[0], A.shape[1], A.shape[0], 5)
    stack = FactoredUpdate([other[0], A, other[0]], [other[1], B, 0 * other[1]], [1.0, 0.75, 1.0])
    np.testing.assert_array_equal(stack.singular_values[0], FactoredUpdate(*other).singular_values)
    np.testing.assert_array_equal(stack.row_normalised[1], FactoredUpdate(A, B, 0.75).row_normalised)
    assert stack.is_zero.tolist() == [False, False, True]


def test_one_that_is_not_finite_fails_the_stack() -> None:
    A, B = gaussian(6, 5, 2)
    bad = B.copy()
    bad[0, 0] = np.nan
    stack = FactoredUpdate([A, A], [B, bad], [1.0, 1.0])
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        _ = stack.is_zero


def test_modules_of_other_shapes_are_no_stack() -> None:
    A, B = gaussian(6, 5, 2)
    with pytest.raises(ValueError, match="not defined"):
        FactoredUpdate([A, A], [B, gaussian(7, 5, 2)[1]], [1.0, 1.0])


def test_of_rank_0() -> None:
    A, B = np.zeros((0, 5)), np.zeros((6, 0))
    for method in ("svd", "mas-svd", "spsvd"):
        assert METHODS[method].of(FactoredUpdate([A, A], [B, B], [1.0, 1.0]), Options()).shape == (2, 0)


def test_a_sum_of_squares_beyond_float64_is_no_warning() -> None:
    A, B = np.ones((2, 5)), np.full((1, 2), 1.2e154)  # whose squares are finite
    stack = FactoredUpdate([A, A], [B, np.ones((1, 2))], [1.0, 1.0])
    np.testing.assert_allclose(stack.singular_values[:, 0], np.array([2.4e154, 2.0]) * np.sqrt(5))


@pytest.mark.parametrize(
    ("dtype", "bits", "pattern"),
    [(np.float32, np.uint32, 0x7F800001), (np.float16, np.uint16, 0x7C01), (ml_dtypes.bfloat16, np.uint16, 0x7F81)],
)
def test_a_signalling_nan_is_no_warning(dtype: Any, bits: Any, pattern: int) -> None:
    A, B = (factor.astype(dtype) for factor in gaussian(6, 5, 2))
    B.view(bits)[0, 0] = pattern
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        _ = FactoredUpdate(A, B).is_zero
    assert any(np.isnan(block).any() for block in tall.converted(B))


def test_what_the_released_script_makes_beyond_float64_is_no_warning() -> None:
    A, B = gaussian(4, 5, 2)
    with pytest.raises(FloatingPointError):
        METHODS["released"].of(FactoredUpdate(np.ldexp(A, 520), B), Options())
