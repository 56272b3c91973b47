"""Norms and spectra of ΔW = s·B·A from the factors, without ever forming ΔW.

Write A = L·Q_A and B = Q_B·R with orthonormal rows of Q_A and columns of Q_B. Then ΔW = s·Q_B·(R·L)·Q_A, and

    singular values of ΔW               = s·σ(R·L)
    row norms ρ of ΔW                   = s·row norms of B·L
    column norms γ of ΔW                = s·column norms of R·A
    singular values of D_ρ⁻¹·ΔW         = σ of B·L with its rows set to length 1
    singular values of ΔW·D_γ⁻¹         = σ of R·A with its columns set to length 1

so that all work is on r × r matrices and on tall pieces of (at most) `BLOCK` numbers. L and R come from a Cholesky
decomposition of the r × r Gram matrices or, where such a matrix has a condition above 1 / `GRAM_CONDITION`, from a
blockwise QR. The same choice is made for the two normalised matrices, by their eigenvalues.

Accuracy, with ε = 2⁻⁵², a constant c ≤ m·r or n·r (in practice about 10), a_k the rows of A, b_k the columns of B:

    Gram   L̂·L̂ᵀ = L·(I + E)·Lᵀ with ‖E‖ ≤ c·ε·κ(A)² ≤ c·ε / GRAM_CONDITION: a relative error of that size in every σ_k
           (Ostrowski), ρ_i and γ_j (each is a √(bᵀ·L·(I + E)·Lᵀ·b)), the smallest as well as the largest
    QR     L̂ is exact for A + δA with ‖δa_k‖ ≤ c·ε·‖a_k‖ for each k, so |δσ| ≤ c·ε·Σ_k ‖b_k‖·‖a_k‖ and
           |δρ_i| ≤ c·ε·Σ_k |b_ik|·‖a_k‖, whatever the scales of the r components

The rounding of the products adds errors of the second kind. A row of X_r is off by at most 2·δρ_i / ρ_i, and so its
singular values by at most 2·√Σ_i (δρ_i / ρ_i)². Where B and A all but cancel (a gauge B·G, G⁻¹·A with ill-conditioned
G), Σ_k ‖b_k‖·‖a_k‖ is far above σ_1; forming B·A in float64 would lose as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from s3lora.spectrum.tall import EPSILON, GRAM_CONDITION, Float, Root, Tall, buffer, root_of, triangle

#: Rounding of a norm that cancels, in units of ε·Σ|b_k|·‖a_k‖: up to 11 was measured for N = 150,000 whatever r is.
NOISE = 64.0


class FactoredUpdate:
    """The update ΔW = s·B·A of one module, or of each of k modules of one shape, known by its factors.

    Parameters:
        A: (r, n) lora_A, any real dtype; or a sequence of k of them.
        B: (m, r) lora_B, any real dtype; or a sequence of k of them.
        scaling: s; its sign does not matter for any quantity here. Or a sequence of k numbers.

    Every property is computed in float64 when first asked for. Of k modules it has a first axis of that length, and
    each has the very value that it has alone. Raises ValueError where shapes do not fit, and FloatingPointError where
    a factor of any of the modules holds NaN or infinity, or a result exceeds float64.

    >>> FactoredUpdate([[3.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]).singular_values
    array([4., 3.])
    """

    def __init__(
        self,
        A: ArrayLike | Sequence[Any],
        B: ArrayLike | Sequence[Any],
        scaling: float | Sequence[float] = 1.0,
    ) -> None:
        """Keep the factors; nothing is computed or copied."""
        self.stacked = isinstance(scaling, Sequence)
        many: tuple[Any, Any, Any] = (A, B, scaling) if self.stacked else ([A], [B], [scaling])
        self._a, self._b = [_matrix(one) for one in many[0]], [_matrix(one) for one in many[1]]
        shapes = {(a.shape, b.shape) for a, b in zip(self._a, self._b, strict=True)}
        a, b = next(iter(shapes))
        if len(shapes) > 1 or len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise ValueError(f"B {b} · A {a} is not defined")
        if not all(map(math.isfinite, many[2])):
            raise FloatingPointError("the scaling is not finite")
        self._scaling = np.abs(np.array(many[2], np.float64))
        self.shape: tuple[int, int] = (int(b[0]), int(a[1]))
        """(m, n), the shape of ΔW."""
        self.rank = int(a[0])
        """r, the inner size of the factors."""

    def __len__(self) -> int:
        """Return k."""
        return len(self._a)

    def __iter__(self) -> Iterator[FactoredUpdate]:
        """Yield each module by itself; what was computed of it here is computed again there."""
        for a, b, scaling in zip(self._a, self._b, self._scaling, strict=True):
            yield FactoredUpdate(a, b, float(scaling))

    def some(self, which: Sequence[int]) -> FactoredUpdate:
        """Return the stack of some of its modules; what was computed of them here is computed again there."""
        scalings = [float(self._scaling[i]) for i in which]
        return FactoredUpdate([self._a[i] for i in which], [self._b[i] for i in which], scalings)

    def _given(self, values: Any) -> Any:
        """Return the values of k modules, or of the only one."""
        return values if self.stacked else values[0]

    @property
    def A(self) -> Any:
        """Return lora_A (r × n) of the only module."""
        (one,) = self._a
        return one

    @property
    def B(self) -> Any:
        """Return lora_B (m × r) of the only module."""
        (one,) = self._b
        return one

    @property
    def scaling(self) -> float:
        """Return |s| of the only module."""
        (one,) = self._scaling
        return float(one)

    @property
    def root_a(self) -> Root:
        """Return L (r × q) with L·Lᵀ = A·Aᵀ."""
        return self._root_a if self.stacked else self._root_a.item(0)

    @property
    def root_b(self) -> Root:
        """Return Rᵀ (r × q) with RᵀR = Bᵀ·B."""
        return self._root_b if self.stacked else self._root_b.item(0)

    @property
    def core(self) -> Float:
        """Return R·L, whose singular values are, after `scaled`, those of ΔW."""
        return self._given(self._core)  # type: ignore[no-any-return]

    @property
    def core_values(self) -> Float:
        """Return the singular values of the core, descending."""
        return self._given(self._sigma)  # type: ignore[no-any-return]

    def scaled(self, values: Float) -> Float:
        """Return `values` of the scaled core in the unit of ΔW: times s and the powers of two taken out of A and B.

        Raises FloatingPointError where that exceeds float64.
        """
        values = values if self.stacked else values[None]
        mantissa, exponent = np.frexp(self._scaling)
        shift = exponent + self._root_a.exponent + self._root_b.exponent
        along = (slice(None), *(None,) * (values.ndim - 1))
        if (np.abs(shift) < 512).all():  # within `SAFE`, no product can leave the range
            return self._given(values * np.ldexp(mantissa, shift)[along])  # type: ignore[no-any-return]
        with np.errstate(over="raise"):
            return self._given(np.ldexp(values * mantissa[along], shift[along]))  # type: ignore[no-any-return]

    @cached_property
    def is_zero(self) -> Any:
        """Return whether ΔW = 0: never trained, already pruned, or B and A cancel but for rounding."""
        zero: NDArray[np.bool_] = ~np.asarray(self._core.any(axis=(1, 2)))
        if self._sigma.shape[1]:
            sigma = self.scaled(self._given(self._sigma))
            zero |= (sigma if self.stacked else sigma[None])[:, 0] == 0.0
        # A factor of full rank sends nothing but zero to zero; of two others, the products may be rounding alone.
        if not (zero | self._root_a.exact | self._root_b.exact).all():
            cancels = ~(self._rows.norms.any(axis=1) & self._columns.norms.any(axis=1))
            zero |= cancels & ~(self._root_a.exact | self._root_b.exact)
        return zero if self.stacked else bool(zero[0])

    @cached_property
    def singular_values(self) -> Float:
        """Return the min(m, n, r) leading singular values of ΔW, descending."""
        return self.scaled(self._given(self._sigma))

    @cached_property
    def frobenius(self) -> Any:
        """Return ‖ΔW‖_F."""
        norms = np.sqrt(np.sum(self._core**2, axis=(1, 2)))
        found = self.scaled(self._given(norms[:, None]))
        return found[:, 0] if self.stacked else float(found[0])

    @cached_property
    def row_norms(self) -> Float:
        """Return the m row norms ρ of ΔW."""
        return self.scaled(self._given(self._rows.norms))

    @cached_property
    def column_norms(self) -> Float:
        """Return the n column norms γ of ΔW."""
        return self.scaled(self._given(self._columns.norms))

    @property
    def mean_row_norm(self) -> Any:
        """Return ρ̄, the mean of the m row norms of ΔW."""
        return self.scaled(self._given(np.mean(self._rows.norms, axis=1, keepdims=True)))[..., 0]

    @property
    def mean_column_norm(self) -> Any:
        """Return γ̄, the mean of the n column norms of ΔW."""
        return self.scaled(self._given(np.mean(self._columns.norms, axis=1, keepdims=True)))[..., 0]

    @cached_property
    def row_normalised(self) -> Float:
        """Return the singular values of X_r = D_ρ⁻¹·ΔW, descending; zero rows stay zero."""
        return self._given(self._rows.singular_values)  # type: ignore[no-any-return]

    @cached_property
    def column_normalised(self) -> Float:
        """Return the singular values of X_c = ΔW·D_γ⁻¹, descending; zero columns stay zero."""
        return self._given(self._columns.singular_values)  # type: ignore[no-any-return]

    def row_normalised_basis(self) -> Float:
        """Return Z (q × q): the right singular vectors of X_r are Q_Aᵀ·Z, in descending order."""
        return self._given(_basis(self._side_b[0], self._root_a, self._rows.gram))  # type: ignore[no-any-return]

    def column_normalised_basis(self) -> Float:
        """Return W (q × q): the left singular vectors of X_c are Q_B·W, in descending order."""
        return self._given(_basis(self._side_a[0], self._root_b, self._columns.gram))  # type: ignore[no-any-return]

    @cached_property
    def _side_a(self) -> tuple[Tall, Root]:
        """Return Aᵀ, brought into the range of float64, and its root."""
        tall = Tall([one.T for one in self._a], upright=False)
        return tall, root_of(tall)

    @cached_property
    def _side_b(self) -> tuple[Tall, Root]:
        """Return B, brought into the range of float64, and its root."""
        tall = Tall(self._b, upright=True)
        return tall, root_of(tall)

    @property
    def _root_a(self) -> Root:
        return self._side_a[1]

    @property
    def _root_b(self) -> Root:
        return self._side_b[1]

    @cached_property
    def _core(self) -> Float:
        return self._root_b.matrix.swapaxes(1, 2) @ self._root_a.matrix

    @cached_property
    def _sigma(self) -> Float:
        if not self._core.size:
            return np.zeros((len(self), 0))
        return np.asarray(np.linalg.svd(self._core, compute_uv=False))

    @cached_property
    def _rows(self) -> Normalised:
        return _normalised(self._side_b[0], self._root_a)

    @cached_property
    def _columns(self) -> Normalised:
        return _normalised(self._side_a[0], self._root_b)


class Normalised(NamedTuple):
    """The products T·root (k × N × q), row by row: their norms, and Gram matrix and σ once each row has length 1."""

    norms: Float
    gram: Float
    singular_values: Float


def _matrix(given: Any) -> Any:
    """Return an array; what reads its rows from a file when they are asked for stays as it is."""
    return given if hasattr(given, "shape") and hasattr(given, "T") else np.asarray(given)


def _noise(inner: int) -> float:
    """Return what a computed norm may be, relative to Σ_k |b_k|·‖a_k‖, when the true one is zero."""
    return (NOISE + inner) * EPSILON


def _units(tall: Tall, root: Root, only: int | None = None) -> Iterator[tuple[slice, slice, Float, Float]]:
    """Yield (which factors, which rows, columns of (T·root)ᵀ set to length 1, the norms they had).

    The piece is overwritten by the next. Columns that are zero but for rounding are set to zero.
    """
    exact = bool(root.exact.all())
    lengths = None if exact else np.sqrt(np.sum(root.matrix**2, axis=2))
    for items, rows, piece in tall.pieces(only):
        product, norms = _product(piece, root.matrix[items], tall)
        if lengths is not None:
            for i in np.flatnonzero(~root.exact[items]).tolist():
                noise = norms[i] <= _noise(tall.rank) * (lengths[items][i] @ np.abs(piece[i]))
                product[i][:, noise] = 0.0
                norms[i, noise] = 0.0
        if norms.all():
            product *= (1.0 / norms)[:, None, :]
        else:
            # A zero row has no direction: its inverse norm is taken as 0 (METHOD: "a zero row stays zero").
            product *= np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)[:, None, :]
        yield items, rows, product, norms


def _product(piece: Float, roots: Float, tall: Tall) -> tuple[Float, Float]:
    """Return (T·root)ᵀ (k × q × rows) of a piece, and the norms of its columns (k × rows).

    A long factor keeps its own order in memory; of short ones, the products lie on their side and are scaled along
    their contiguous axis (both measured).
    """
    count, _, rows = piece.shape
    inner = roots.shape[2]
    if tall.together > 1:
        product = np.matmul(roots.swapaxes(1, 2), piece, out=buffer("product", count, inner, rows))
        square = np.multiply(product, product, out=buffer("square", count, inner, rows))
        return product, np.sqrt(np.add.reduce(square, axis=1))
    if tall.upright:
        upright = np.matmul(piece[0].T, roots[0], out=buffer("product", rows, inner))
        return upright.T[None], np.sqrt(np.einsum("ij,ij->i", upright, upright))[None]
    lying = np.matmul(roots[0].T, piece[0], out=buffer("product", inner, rows))
    return lying[None], np.sqrt(np.einsum("ij,ij->j", lying, lying))[None]


def _normalised(tall: Tall, root: Root) -> Normalised:
    count, inner = len(tall.factors), root.matrix.shape[2]
    gram = np.zeros((count, inner, inner))
    norms = np.zeros((count, tall.rows))
    spectrum = np.zeros((count, min(inner, tall.rows)))
    if not spectrum.size:  # no rank, no rows or no columns
        return Normalised(norms, gram, spectrum)
    for items, rows, unit, part in _units(tall, root):
        gram[items] += unit @ unit.swapaxes(1, 2)
        norms[items, rows] = part
    values = np.linalg.eigvalsh(gram)[:, ::-1]
    good = values[:, -1] > GRAM_CONDITION * values[:, 0]
    spectrum[good] = np.sqrt(values[good])[:, : spectrum.shape[1]]
    for i in np.flatnonzero(~good & gram.any(axis=(1, 2))).tolist():
        made = triangle((unit[0].T for _, _, unit, _ in _units(tall, root, i)), inner)
        spectrum[i] = np.linalg.svd(made, compute_uv=False)[: spectrum.shape[1]]
    return Normalised(norms, gram, spectrum)


def _basis(tall: Tall, root: Root, gram: Float) -> Float:
    if not gram.size:
        return gram
    values, vectors = np.linalg.eigh(gram)
    basis = vectors[:, :, ::-1].copy()
    good = values[:, 0] > GRAM_CONDITION * values[:, -1]
    for i in np.flatnonzero(~good & gram.any(axis=(1, 2))).tolist():
        made = triangle((unit[0].T for _, _, unit, _ in _units(tall, root, i)), root.matrix.shape[2])
        basis[i] = np.linalg.svd(made)[2].T
    return basis
