"""Factors that are easy, and factors that are not, with the error that can be proved for each quantity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from s3lora.spectrum.factored import FactoredUpdate
from tests.reference import dense

Float = NDArray[np.float64]
Factors = tuple[NDArray[Any], NDArray[Any]]  # A (r, n), B (m, r)

EPSILON = float(np.finfo(np.float64).eps)
SCALING = 0.75


def gaussian(m: int, n: int, r: int, seed: int = 0) -> Factors:
    random = np.random.default_rng((m, n, r, seed))
    return random.standard_normal((r, n)), random.standard_normal((m, r))


def orthogonal(size: int, seed: int) -> Float:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def conditioned(rank: int, condition: float, seed: int) -> tuple[Float, Float]:
    """Return R (rank × rank) with the given condition, and R⁻¹."""
    left, right = orthogonal(rank, seed), orthogonal(rank, seed + 1)
    sizes = np.geomspace(1.0, 1.0 / condition, rank)
    return left * sizes @ right, right.T / sizes @ left.T


def gauge(condition: float, m: int = 48, n: int = 40, r: int = 6) -> Factors:
    """Return R⁻¹·A and B·R: the same ΔW as A and B, but for the rounding of the factors."""
    A, B = gaussian(m, n, r)
    R, inverse = conditioned(r, condition, 7)
    return inverse @ A, B @ R


def _ill(left: bool, right: bool) -> Factors:
    A, B = gaussian(48, 40, 6)
    R, _ = conditioned(6, 1e10, 3)
    S, _ = conditioned(6, 1e10, 5)
    return (S @ A if left else A), (B @ R if right else B)


def _components(low: float, high: float) -> Factors:
    """Return factors whose six components have sizes from `low` to `high`, cancelling out in ΔW."""
    A, B = gaussian(48, 40, 6)
    sizes = np.geomspace(low, high, 6)
    return A * sizes[:, None], B / sizes


def _zeros() -> Factors:
    A, B = gaussian(48, 40, 6)
    B[::5] = 0.0
    A[:, 3::4] = 0.0
    return A, B


def _cancelling(m: int = 48, n: int = 40) -> Factors:
    """Return factors in which two components agree, so that rows 0–2 and columns 0–2 of ΔW cancel exactly."""
    A, B = gaussian(m, n, 6)
    A, B = np.round(A * 64) / 64, np.round(B * 64) / 64
    A[1] = A[0]
    B[0], B[1], B[2] = 0.0, 0.0, 0.0
    B[0, :2], B[1, :2], B[2, :2] = (1.0, -1.0), (-7.0, 7.0), (0.125, -0.125)
    B[:, 3] = B[:, 2]
    A[:, 0:3] = 0.0
    A[2, 0:3], A[3, 0:3] = (1.0, -3.0, 0.5), (-1.0, 3.0, -0.5)
    return A, B


def _dependent() -> Factors:
    """Return factors in which one component is the sum of two others: ΔW has rank 4, not 6."""
    A, B = gaussian(48, 40, 6)
    A, B = np.round(A * 64) / 64, np.round(B * 64) / 64
    A[5] = A[0] + A[1]
    B[:, 4] = B[:, 2] - B[:, 3]
    return A, B


def _duplicates() -> Factors:
    A, B = gaussian(48, 40, 6)
    return np.repeat(A[:, ::4], 4, axis=1), np.repeat(B[::4], 4, axis=0)


def _scaled(a: float, b: float) -> Factors:
    A, B = gaussian(48, 40, 6)
    return A * a, B * b


def _uneven_rows() -> Factors:
    """Return factors whose rows and columns of ΔW span eighty orders of magnitude, as float32 allows."""
    A, B = gaussian(48, 40, 6)
    return A * np.geomspace(1e-20, 1e20, 40), B * np.geomspace(1e20, 1e-20, 48)[:, None]


def _low_precision(dtype: Any) -> Factors:
    A, B = gaussian(48, 40, 6)
    return A.astype(dtype), B.astype(dtype)


#: Each ΔW's spectrum is known to nine digits from the factors.
WELL: dict[str, Callable[[], Factors]] = {
    "square": lambda: gaussian(40, 40, 4),
    "tall": lambda: gaussian(90, 20, 5),
    "wide": lambda: gaussian(15, 80, 5),
    "rank-1": lambda: gaussian(30, 20, 1),
    "rank-32": lambda: gaussian(120, 100, 32),
    "zero rows and columns": _zeros,
    "duplicated rows and columns": _duplicates,
    "scale 1e-30": lambda: _scaled(1e-30, 1e-30),
    "scale 1e30": lambda: _scaled(1e30, 1e30),
    "scale 1e-150 and 1e150": lambda: _scaled(1e-150, 1e150),
    "scale 1e120 and 1e-90": lambda: _scaled(1e120, 1e-90),
    "uneven rows and columns": _uneven_rows,
    "components 1e-10 to 1e10": lambda: _components(1e-10, 1e10),
    "components 1e-30 to 1e30": lambda: _components(1e-30, 1e30),
    "gauge 3e2": lambda: gauge(3e2),
    "gauge 3e3": lambda: gauge(3e3),
    "float32": lambda: _low_precision(np.float32),
    "float16": lambda: _low_precision(np.float16),
    "bfloat16": lambda: _low_precision(ml_dtypes.bfloat16),
    "float8_e4m3fn": lambda: _low_precision(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": lambda: _low_precision(ml_dtypes.float8_e5m2),
    "gauge 3e4": lambda: gauge(3e4),
    "gauge 1e5": lambda: gauge(1e5),
}

#: Only `Bounds` holds here; exact deficiency leaves singular values that are zero.
ILL: dict[str, Callable[[], Factors]] = {
    "rank above m": lambda: gaussian(5, 40, 8),
    "rank above n": lambda: gaussian(40, 5, 8),
    "rank above both": lambda: gaussian(4, 3, 7),
    "one entry": lambda: gaussian(1, 1, 3),
    "A ill": lambda: _ill(True, False),
    "B ill": lambda: _ill(False, True),
    "both ill": lambda: _ill(True, True),
    "gauge 1e10": lambda: gauge(1e10),
    "cancelling rows and columns": _cancelling,
    "dependent components": _dependent,
}


@dataclass(frozen=True)
class Bounds:
    """The error that the docstring of `factored` proves, for one update; the oracle's own rounding is below it.

    c is the worst case of a sum of N products and of Householder QR, N·r for factors N × r. The bounds in use:

        |δσ_k|       ≤ c·ε·(Σ_j ‖b_j‖·‖a_j‖ + (κ_A² + κ_B²)·σ_k)
        |δρ_i|       ≤ c·ε·(Σ_j |b_ij|·‖a_j‖ + κ_A²·ρ_i)                           =: c·ε·η_i·ρ_i
        |δσ_k(X_r)|  ≤ c·ε·(2·√Σ_i η_i² + σ_1(X_r)²/σ_k(X_r))

    with κ_A = 0 where the root of A comes from QR. The last term is that of the Gram matrix of X_r; where σ_k is below
    σ_1/1000, QR takes over and it is √r·σ_1 instead. Columns are the same with A and B exchanged.
    """

    constant: float
    matrix: Float
    A: Float
    B: Float
    gram_a: float
    gram_b: float

    @staticmethod
    def of(A: NDArray[Any], B: NDArray[Any], scaling: float = 1.0) -> Bounds:
        """Return the bounds for these factors, which are first scaled by powers of two so that their squares exist."""
        update = FactoredUpdate(A, B)
        a, b = A.astype(np.float64), B.astype(np.float64)
        return Bounds(
            constant=EPSILON * max(*update.shape, 1) * update.rank,
            matrix=dense.delta(A, B, scaling),
            A=a * scaling,
            B=b,
            gram_a=_condition(a) ** 2 if update.root_a.exact else 0.0,
            gram_b=_condition(b) ** 2 if update.root_b.exact else 0.0,
        )

    def singular_values(self, true: Float) -> Float:
        terms = float(_lengths(self.B.T) @ _lengths(self.A))
        return self.constant * (terms + (self.gram_a + self.gram_b) * true)

    def row_norms(self, true: Float) -> Float:
        return self.constant * (np.abs(self.B) @ _lengths(self.A) + self.gram_a * true)

    def column_norms(self, true: Float) -> Float:
        return self.constant * (np.abs(self.A.T) @ _lengths(self.B.T) + self.gram_b * true)

    def row_normalised(self, true: Float) -> Float:
        norms = dense.row_norms(self.matrix)
        return self._normalised(self.row_norms(norms), norms, true)

    def column_normalised(self, true: Float) -> Float:
        norms = dense.column_norms(self.matrix)
        return self._normalised(self.column_norms(norms), norms, true)

    def _normalised(self, errors: Float, norms: Float, true: Float) -> Float:
        kept = norms > 0
        directions = 2 * _length(errors[kept] / norms[kept])
        top = true[0]
        qr = true < 1e-3 * top
        return directions + self.constant * np.where(qr, len(true) ** 0.5 * top, top**2 / np.where(qr, 1.0, true))


def _lengths(rows: Float) -> Float:
    return np.array([_length(row) for row in rows])


def _length(values: Float) -> float:
    peak = float(np.abs(values).max(initial=0.0))
    return peak * float(np.linalg.norm(values / peak)) if peak > 0 else 0.0


def _condition(factor: Float) -> float:
    peak = np.abs(factor).max(initial=0.0)
    sigma = np.linalg.svd(factor / peak, compute_uv=False) if peak > 0 else np.ones(1)
    return float(sigma[0] / sigma[-1])


def check(update: FactoredUpdate, bounds: Bounds) -> None:
    """Compare every quantity of `update` with the oracle."""
    matrix = bounds.matrix
    count = min(*matrix.shape, update.rank)
    sigma = dense.singular_values(matrix)[:count]
    assert_within(update.singular_values, sigma, bounds.singular_values(sigma))
    frobenius = np.array([_length(matrix.ravel())])
    # ‖ΔW‖_F errs by at most the norm of the errors of the σ_k.
    assert_within(np.array([update.frobenius]), frobenius, count * bounds.singular_values(frobenius))
    rows, columns = dense.row_norms(matrix), dense.column_norms(matrix)
    assert_within(update.row_norms, rows, bounds.row_norms(rows))
    assert_within(update.column_norms, columns, bounds.column_norms(columns))
    assert not update.row_norms[rows == 0].any()
    assert not update.column_norms[columns == 0].any()
    if matrix.any():
        spectrum = dense.singular_values(dense.row_normalised(matrix))[:count]
        assert_within(update.row_normalised, spectrum, bounds.row_normalised(spectrum))
        spectrum = dense.singular_values(dense.column_normalised(matrix))[:count]
        assert_within(update.column_normalised, spectrum, bounds.column_normalised(spectrum))


def assert_within(found: Float, true: Float, bound: Float) -> None:
    assert found.shape == true.shape
    excess = np.abs(found - true) - bound
    assert (excess <= 0).all(), f"off by {np.abs(found - true)}, allowed {bound}"


def spearman(x: Float, y: Float) -> float:
    """Return the rank correlation of two lists without ties."""
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])
