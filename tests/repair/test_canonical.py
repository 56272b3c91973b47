from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.adapter.open import open_adapter
from s3lora.errors import NonFiniteError
from s3lora.repair.canonical import canonical, directions_of, factors_of
from tests.reference.dense import delta
from tests.repair.pairs import write_peft
from tests.support import factors

SIZES = st.integers(1, 7)
SCALINGS = st.sampled_from((2.0, 0.25, -1.5))


@given(SIZES, SIZES, SIZES, SCALINGS, st.integers(0, 1000))
def test_directions_multiply_out_to_the_update(m: int, n: int, r: int, scaling: float, seed: int) -> None:
    a, b = factors(m, n, r, dtype="float64", seed=seed)
    u, sigma, vt = directions_of(a, b, scaling)
    q = min(m, n, r)
    assert (u.shape, sigma.shape, vt.shape) == ((m, q), (q,), (q, n))
    assert np.allclose(u * sigma @ vt, delta(a, b, scaling), atol=1e-12)
    assert np.allclose(u.T @ u, np.eye(q))
    assert np.allclose(vt @ vt.T, np.eye(q))
    assert (np.diff(sigma) <= 0).all()
    assert (sigma >= 0).all()


@given(SIZES, SIZES, SIZES, SCALINGS, st.integers(0, 1000))
def test_factors_carry_the_gates_and_are_padded(m: int, n: int, r: int, scaling: float, seed: int) -> None:
    found = directions_of(*factors(m, n, r, dtype="float64", seed=seed), scaling)
    gates = np.linspace(1, 0, len(found.sigma))
    a, b = factors_of(found, scaling, gates, rank=r)
    assert (a.shape, b.shape) == ((r, n), (m, r))
    assert np.allclose(delta(a, b, scaling), found.U * (gates * found.sigma) @ found.Vt, atol=1e-12)
    assert np.allclose((a**2).sum(axis=1), (b**2).sum(axis=0)), "both sides carry √Σ"


def test_the_same_update_in_other_factors_has_the_same_directions() -> None:
    a, b = factors(9, 8, 3, dtype="float64")
    turn = np.array([[3.0, 1.0, 0.0], [0.0, -2.0, 0.5], [0.1, 0.0, 40.0]])
    for first, second in zip(
        directions_of(a, b, 2.0), directions_of(np.linalg.solve(turn, a), b @ turn, 2.0), strict=True
    ):
        assert np.allclose(first, second, atol=1e-11)


def test_an_update_of_zero_has_zero_factors() -> None:
    a, b = factors(5, 6, 2)
    for scaling, left in ((2.0, np.zeros_like(b)), (0.0, b)):
        found = directions_of(a, left, scaling)
        assert not found.sigma.any()
        assert not (np.abs(factors_of(found, scaling, rank=2)[1]) > 0).any()


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_factors_that_are_not_finite_are_told_by_their_module(tmp_path: Path, bad: float) -> None:
    a, b = factors(5, 6, 2)
    b[1, 1] = bad
    with (
        open_adapter(write_peft(tmp_path, {"layers.0.q_proj": (a, b)})) as adapter,
        pytest.raises(NonFiniteError, match=r"layers\.0\.q_proj \(5 × 6\): holds NaN or infinity"),
    ):
        canonical(adapter.modules[0])
