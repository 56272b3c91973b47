"""σ̃ and the indices of an update that is no product of two thin factors, from its rows.

Its rank is that of the whole matrix, so that a method gives the M largest σ̃ only. An index of σ̃ is of these M. An index
of the singular values of ΔW is of all of them: stable rank and energy need σ_1 and ‖ΔW‖_F alone, the others the whole
spectrum, which is known where the matrix is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from s3lora.spectrum.dense import DenseMatrix
from s3lora.spectrum.index import Spectra
from s3lora.spectrum.indices import INDICES
from s3lora.spectrum.leading import is_exact, leading
from s3lora.spectrum.methods import matched
from s3lora.spectrum.tall import Float

__all__ = ["DENSE_METHODS", "DenseScores", "dense_scores", "passes_of"]


class DenseScores(NamedTuple):
    """What was measured of one matrix.

    `sigma` are the M largest σ̃, none of a zero matrix. `error` is how far a singular value that went into them can be
    below the true one, relative to the largest of its matrix.
    """

    sigma: tuple[float, ...]
    indices: dict[str, float | None]
    error: float


class _Spectrum(NamedTuple):
    values: Float
    error: float


def _svd(matrix: DenseMatrix, count: int, seed: int) -> _Spectrum:
    found = leading(matrix, count, seed, vectors=False)
    return _Spectrum(found.values, _relative(found.error, found.values))


def _mas_svd(matrix: DenseMatrix, count: int, seed: int) -> _Spectrum:
    """Return √(ρ̄·s^r_k · γ̄·s^c_k), as `mas_svd` has it."""
    norms = matrix.norms
    rows = leading(matrix.scaled(rows=_inverse(norms.rows)), count, seed, vectors=False)
    columns = leading(matrix.scaled(columns=_inverse(norms.columns)), count, seed, vectors=False)
    scale = math.sqrt(float(np.mean(norms.rows))) * math.sqrt(float(np.mean(norms.columns)))
    error = max(_relative(one.error, one.values) for one in (rows, columns))
    return _Spectrum(scale * np.sqrt(rows.values * columns.values), error)


def _spsvd(matrix: DenseMatrix, count: int, seed: int) -> _Spectrum:
    """Return the greedy matching on |Uᵀ·ΔW·V|, as `spsvd` has it with the fit l2."""
    norms = matrix.norms
    rows = leading(matrix.scaled(rows=_inverse(norms.rows)), count, seed)
    columns = leading(matrix.scaled(columns=_inverse(norms.columns)), count, seed)
    core = np.abs(columns.left.T @ matrix.times(rows.right))
    error = max(_relative(one.error, one.values) for one in (rows, columns))
    return _Spectrum(matched(core[None])[0], error)


#: Method → what it is of a dense matrix. Another method has no σ̃ there.
DENSE_METHODS: dict[str, Callable[[DenseMatrix, int, int], _Spectrum]] = {
    "mas-svd": _mas_svd,
    "svd": _svd,
    "spsvd": _spsvd,
}


def dense_scores(matrix: DenseMatrix, method: str, count: int, seed: int, names: Sequence[str]) -> DenseScores:
    """Measure one matrix by a method, M being `count`; `names` are the indices to compute.

    Raises FloatingPointError where it holds NaN or infinity.
    """
    if matrix.is_zero:
        at_zero = {name: INDICES[name].at_zero for name in names}
        return DenseScores((), {name: None if math.isnan(value) else value for name, value in at_zero.items()}, 0.0)
    made = DENSE_METHODS.get(method)
    spectrum = _Spectrum(np.zeros(0), 0.0) if made is None else made(matrix, count, seed)
    plain = _Plain(matrix, min(matrix.shape) if is_exact(matrix.shape) else 1, seed)
    measured = Spectra(spectrum.values, plain)  # type: ignore[arg-type]  # what indices of σ̃ look at is there
    found: dict[str, float | None] = {}
    for name in names:
        index = INDICES[name]
        if index.plain:
            value = plain.index(name)
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                value = float(index.of(measured)) if len(spectrum.values) else math.nan
        found[name] = value if math.isfinite(value) else None
    return DenseScores(tuple(spectrum.values.tolist()), found, max(spectrum.error, plain.error))


class _Plain:
    """The singular values of a matrix itself: all of a small one, else the largest."""

    stacked = False
    is_zero = False

    def __init__(self, matrix: DenseMatrix, count: int, seed: int) -> None:
        found = leading(matrix, count, seed, vectors=False)
        self.matrix = matrix
        self.shape = matrix.shape
        self.singular_values = found.values
        self.complete = found.complete
        self.error = _relative(found.error, found.values)
        self.frobenius = matrix.norms.frobenius

    def index(self, name: str) -> float:
        """Return an index of the singular values; NaN where it needs those that are not known."""
        first = float(self.singular_values[0])
        if name == "frobenius":
            return self.frobenius
        if name == "stable_rank":
            return max(1.0, (self.frobenius / first) ** 2)
        if name == "energy":
            return min(1.0, (first / self.frobenius) ** 2)
        if name == "kurtosis":
            _, second, fourth = self.matrix.moments()
            return fourth / second**2 - 3.0 if second > 0 else math.nan
        if not self.complete:
            return math.nan
        update: Any = self
        return float(INDICES[name].of(Spectra(self.singular_values, update)))


def passes_of(method: str) -> int:
    """Return how many matrices a method decomposes, with the one that indices of ΔW itself need.

    >>> passes_of("mas-svd"), passes_of("svd")
    (3, 2)
    """
    return 2 if method == "svd" else 3


def _inverse(norms: Float) -> Float:
    """Return 1 / norm, and 0 of a zero row, which stays zero."""
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)


def _relative(error: float, values: Float) -> float:
    return error / float(values[0]) if len(values) and values[0] > 0 else 0.0
