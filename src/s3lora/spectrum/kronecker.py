"""Norms and spectra of a Kronecker product ΔW = (B₁A₁)⊗(B₂A₂) from those of its two parts, without forming it.

With C = B₁A₁ and D = B₂A₂ (Van Loan, The ubiquitous Kronecker product, J. Comput. Appl. Math. 123 (2000), section 2):

    singular values of C⊗D        all products of one of C and one of D
    its singular vectors          the Kronecker products of theirs
    row norms, column norms       the Kronecker products of both
    D_ρ⁻¹·ΔW and ΔW·D_γ⁻¹         the Kronecker products of the normalised parts

so that everything takes what its two parts take, which are far smaller. Each number has the relative error of one of C
and one of D together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.tall import Float, Root

#: Numbers of the product that are made at a time for a moment.
ENTRIES = 1 << 20
#: Deviations below this share of the terms that make an entry are rounding.
ROUNDING = 1e-12


class KroneckerUpdate(FactoredUpdate):
    """The update ΔW = C⊗D of one module, or of each of k modules of the same shapes; the scaling is that of C.

    Raises what its parts raise, and FloatingPointError where a product exceeds float64.

    >>> c = FactoredUpdate([[3.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]])
    >>> KroneckerUpdate(c, FactoredUpdate([[2.0]], [[1.0]])).singular_values
    array([8., 6.])
    """

    def __init__(self, first: FactoredUpdate, second: FactoredUpdate) -> None:
        """Keep the parts; nothing is computed."""
        self.first, self.second = first, second
        self.stacked = first.stacked
        self.shape = (first.shape[0] * second.shape[0], first.shape[1] * second.shape[1])
        self.rank = first.rank * second.rank

    def __len__(self) -> int:
        """Return k."""
        return len(self.first)

    def __iter__(self) -> Iterator[FactoredUpdate]:
        """Yield each module by itself."""
        for one, other in zip(self.first, self.second, strict=True):
            yield KroneckerUpdate(one, other)

    @cached_property
    def multiplied(self) -> FactoredUpdate:
        """Return the only module as one product of two factors, for what needs them: these may be large."""
        factors = ((one.A, one.B) for one in (self.first, self.second))
        (a, b), (c, d) = (tuple(np.asarray(factor[:], np.float64) for factor in pair) for pair in factors)
        return FactoredUpdate(np.kron(a, c), np.kron(b, d), self.scaling)

    @property
    def A(self) -> Any:
        """Return A₁⊗A₂ of the only module."""
        return self.multiplied.A

    @property
    def B(self) -> Any:
        """Return B₁⊗B₂ of the only module."""
        return self.multiplied.B

    @property
    def scaling(self) -> float:
        """Return |s| of the only module."""
        return self.first.scaling * self.second.scaling

    @property
    def root_a(self) -> Root:
        """Return the root of A₁⊗A₂ of the only module."""
        return self.multiplied.root_a

    @property
    def root_b(self) -> Root:
        """Return the root of B₁⊗B₂ of the only module."""
        return self.multiplied.root_b

    @cached_property
    def core(self) -> Float:
        """Return the Kronecker product of the cores, whose singular values are, after `scaled`, those of ΔW."""
        return _kron(self.first.core, self.second.core)

    def scaled(self, values: Float) -> Float:
        """Return `values` of the scaled core in the unit of ΔW."""
        with np.errstate(over="raise"):
            return self.first.scaled(self.second.scaled(values))

    @cached_property
    def is_zero(self) -> Any:
        """Return whether one of the parts is zero, or every product vanishes."""
        found = self.first.is_zero | self.second.is_zero
        if self.singular_values.shape[-1]:
            found = found | (self.singular_values[..., 0] == 0.0)
        return found if self.stacked else bool(found)

    @cached_property
    def singular_values(self) -> Float:
        """Return the products of the singular values, descending."""
        return _products(self.first.singular_values, self.second.singular_values)

    @cached_property
    def frobenius(self) -> Any:
        """Return ‖ΔW‖_F = ‖C‖_F·‖D‖_F."""
        return _times(self.first.frobenius, self.second.frobenius)

    @cached_property
    def row_norms(self) -> Float:
        """Return the m row norms of ΔW."""
        return _outer(self.first.row_norms, self.second.row_norms)

    @cached_property
    def column_norms(self) -> Float:
        """Return the n column norms of ΔW."""
        return _outer(self.first.column_norms, self.second.column_norms)

    @property
    def mean_row_norm(self) -> Any:
        """Return the mean of the row norms."""
        return _times(self.first.mean_row_norm, self.second.mean_row_norm)

    @property
    def mean_column_norm(self) -> Any:
        """Return the mean of the column norms."""
        return _times(self.first.mean_column_norm, self.second.mean_column_norm)

    @cached_property
    def row_normalised(self) -> Float:
        """Return the singular values of the row-normalised ΔW, descending."""
        return _products(self.first.row_normalised, self.second.row_normalised)

    @cached_property
    def column_normalised(self) -> Float:
        """Return the singular values of the column-normalised ΔW, descending."""
        return _products(self.first.column_normalised, self.second.column_normalised)

    def row_normalised_basis(self) -> Float:
        """Return the right singular vectors of the row-normalised ΔW, in the coordinates of the core."""
        first, second = self.first.row_normalised_basis(), self.second.row_normalised_basis()
        return _ordered(first, second, self.first.row_normalised, self.second.row_normalised)

    def column_normalised_basis(self) -> Float:
        """Return the left singular vectors of the column-normalised ΔW, in the coordinates of the core."""
        first, second = self.first.column_normalised_basis(), self.second.column_normalised_basis()
        return _ordered(first, second, self.first.column_normalised, self.second.column_normalised)


def kronecker_kurtosis(update: KroneckerUpdate) -> float:
    """Return the excess kurtosis of the entries of ΔW of one module; NaN where they are all equal.

    An entry is the product c·d of one of C and one of D, each pair once, so c and d are independent:
    c·d − c̄·d̄ = u·v + d̄·u + c̄·v with u = c − c̄ and v = d − d̄, and a moment of a product is the product of moments.
    """
    if update.is_zero:
        return math.nan
    (mean_c, of_u), (mean_d, of_v) = _moments(update.first), _moments(update.second)
    second = of_u[2] * of_v[2] + mean_d**2 * of_u[2] + mean_c**2 * of_v[2]
    if not second > 0.0:
        return math.nan
    fourth = 0.0
    for i in range(5):
        for j in range(5 - i):
            k = 4 - i - j
            times = math.factorial(4) // (math.factorial(i) * math.factorial(j) * math.factorial(k))
            fourth += times * mean_d**j * mean_c**k * of_u[i + j] * of_v[i + k]
    return fourth / second**2 - 3.0


def _moments(update: FactoredUpdate) -> tuple[float, tuple[float, ...]]:
    """Return the mean and the central moments 0 to 4 of the entries, in a unit that makes the largest of these near 1.

    The entries are made in blocks of rows.
    """
    b, a = (_near_one(np.asarray(factor[:], np.float64)) for factor in (update.B, update.A))
    mean = float(b.mean(axis=0) @ a.mean(axis=1))
    size = float(np.sqrt(np.mean(b * b, axis=0)) @ np.sqrt(np.mean(a * a, axis=1)))
    sums = np.zeros(3)
    step = max(1, ENTRIES // a.shape[1])
    for start in range(0, len(b), step):
        block = (b[start : start + step] @ a - mean) / size
        squares = block * block
        sums += (float(squares.sum()), float((squares * block).sum()), float((squares * squares).sum()))
    second, third, fourth = (sums / (update.shape[0] * update.shape[1])).tolist()
    mean /= size
    if second <= ROUNDING**2:
        return mean, (1.0, 0.0, 0.0, 0.0, 0.0)
    return mean, (1.0, 0.0, second, third, fourth)


def _near_one(values: Float) -> Float:
    return np.asarray(np.ldexp(values, -math.frexp(float(np.abs(values).max()))[1]))


def _outer(first: Float, second: Float) -> Float:
    """Return the Kronecker product of vectors, along the last axis."""
    with np.errstate(over="raise"):
        made = first[..., :, None] * second[..., None, :]
    return made.reshape(*made.shape[:-2], -1)


def _products(first: Float, second: Float) -> Float:
    return -np.sort(-_outer(first, second), axis=-1)


def _times(first: Any, second: Any) -> Any:
    with np.errstate(over="raise"):
        return np.multiply(first, second)[()] if isinstance(first, np.ndarray) else float(np.multiply(first, second))


def _kron(first: Float, second: Float) -> Float:
    """Return the Kronecker product of matrices, along the last two axes."""
    made = first[..., :, None, :, None] * second[..., None, :, None, :]
    return made.reshape(*made.shape[:-4], made.shape[-4] * made.shape[-3], -1)


def _ordered(first: Float, second: Float, values: Float, others: Float) -> Float:
    """Return the Kronecker product of two bases, its columns in the descending order of the products of values."""
    padded = [
        np.concatenate([one, np.zeros((*one.shape[:-1], basis.shape[-1] - one.shape[-1]))], axis=-1)
        for one, basis in ((values, first), (others, second))
    ]
    order = np.argsort(-_outer(padded[0], padded[1]), axis=-1, kind="stable")
    return np.take_along_axis(_kron(first, second), order[..., None, :], axis=-1)
