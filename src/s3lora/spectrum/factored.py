"""Norms and spectra of ΔW = s·B·A from the factors, without ever forming ΔW.

Write A = L·Q_A and B = Q_B·R with orthonormal rows of Q_A and columns of Q_B. Then ΔW = s·Q_B·(R·L)·Q_A, and

    singular values of ΔW               = s·σ(R·L)
    row norms ρ of ΔW                   = s·row norms of B·L
    column norms γ of ΔW                = s·column norms of R·A
    singular values of D_ρ⁻¹·ΔW         = σ of B·L with its rows set to length 1
    singular values of ΔW·D_γ⁻¹         = σ of R·A with its columns set to length 1

so that all work is on r × r matrices and on tall blocks of (at most) `BLOCK` numbers. L and R come from an
eigendecomposition of the r × r Gram matrices or, where such a matrix has a condition above 1 / `GRAM_CONDITION`, from
a blockwise QR. The same choice is made for the two normalised matrices.

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

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

#: Smallest ratio of eigenvalues for which the Gram matrix is believed: a condition of 1,000 of the factor itself.
GRAM_CONDITION = 1e-6
#: Numbers in one block: 512 KB in float64, so that block, product and Gram matrix stay in the second-level cache.
BLOCK = 65536
#: Traces of Gram matrices outside this range are rescaled by a power of two before they are used.
SAFE = (1e-100, 1e100)
#: Bytes of factors that are read before `releasing` is called.
READ = 32 * 1024 * 1024
_SCRATCH = threading.local()
EPSILON = float(np.finfo(np.float64).eps)
#: Rounding of a norm that cancels, in units of ε·Σ|b_k|·‖a_k‖: up to 11 was measured for N = 150,000 whatever r is.
NOISE = 64.0


class Root(NamedTuple):
    """A root of a Gram matrix: `matrix` (r × k) with matrix·matrixᵀ = TᵀT for the tall factor T (N × r).

    T is multiplied by 2**-exponent first. `exact` tells that T is so well conditioned (or zero) that a product with
    `matrix` cannot cancel.
    """

    matrix: Float
    exponent: int
    exact: bool


class FactoredUpdate:
    """The update ΔW = s·B·A of one module, known by its factors.

    Parameters:
        A: (r, n) lora_A, any real dtype.
        B: (m, r) lora_B, any real dtype.
        scaling: s; its sign does not matter for any quantity here.

    Every property is computed in float64 when first asked for. Raises ValueError where shapes do not fit, and
    FloatingPointError where a factor holds NaN or infinity.
    """

    def __init__(self, A: ArrayLike, B: ArrayLike, scaling: float = 1.0) -> None:
        """Keep the factors; nothing is computed or copied."""
        self.A: NDArray[Any] = np.asarray(A)
        self.B: NDArray[Any] = np.asarray(B)
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[0] != self.B.shape[1]:
            raise ValueError(f"B {self.B.shape} · A {self.A.shape} is not defined")
        if not math.isfinite(scaling):
            raise FloatingPointError("the scaling is not finite")
        self.scaling = abs(float(scaling))

    @property
    def shape(self) -> tuple[int, int]:
        """Return (m, n), the shape of ΔW."""
        return self.B.shape[0], self.A.shape[1]

    @property
    def rank(self) -> int:
        """Return r, the inner size of the factors."""
        return int(self.A.shape[0])

    @cached_property
    def root_a(self) -> Root:
        """Return L (r × k) with L·Lᵀ = A·Aᵀ."""
        return _root(self.A.T)

    @cached_property
    def root_b(self) -> Root:
        """Return Rᵀ (r × k) with RᵀR = Bᵀ·B."""
        return _root(self.B)

    @cached_property
    def core(self) -> Float:
        """Return R·L (k × k), whose singular values are, after `scaled`, those of ΔW."""
        return self.root_b.matrix.T @ self.root_a.matrix

    def scaled(self, values: Float) -> Float:
        """Return `values` of the scaled core in the unit of ΔW: times s and the powers of two taken out of A and B.

        Raises FloatingPointError where that exceeds float64.
        """
        mantissa, exponent = math.frexp(self.scaling)
        shift = exponent + self.root_a.exponent + self.root_b.exponent
        if abs(shift) < 512:  # within `SAFE`, no product can leave the range
            return values * math.ldexp(mantissa, shift)
        with np.errstate(over="raise"):
            return np.asarray(np.ldexp(values * mantissa, shift), dtype=np.float64)

    @cached_property
    def is_zero(self) -> bool:
        """Return whether ΔW = 0: never trained, already pruned, or B and A cancel but for rounding."""
        if not self.core.any() or float(self.singular_values[0]) == 0.0:
            return True
        if self.root_a.exact or self.root_b.exact:
            return False  # a factor of full rank sends nothing but zero to zero
        return not (self._rows.norms.any() and self._columns.norms.any())

    @cached_property
    def singular_values(self) -> Float:
        """Return the min(m, n, r) leading singular values of ΔW, descending."""
        return self.scaled(np.asarray(np.linalg.svd(self.core, compute_uv=False), dtype=np.float64))

    @cached_property
    def frobenius(self) -> float:
        """Return ‖ΔW‖_F."""
        return float(self.scaled(np.asarray(np.linalg.norm(self.core), dtype=np.float64)))

    @cached_property
    def row_norms(self) -> Float:
        """Return the m row norms ρ of ΔW."""
        return self.scaled(self._rows.norms)

    @cached_property
    def column_norms(self) -> Float:
        """Return the n column norms γ of ΔW."""
        return self.scaled(self._columns.norms)

    @property
    def mean_row_norm(self) -> float:
        """Return ρ̄, the mean of the m row norms of ΔW."""
        return float(self.scaled(np.mean(self._rows.norms, keepdims=True))[0])

    @property
    def mean_column_norm(self) -> float:
        """Return γ̄, the mean of the n column norms of ΔW."""
        return float(self.scaled(np.mean(self._columns.norms, keepdims=True))[0])

    @cached_property
    def row_normalised(self) -> Float:
        """Return the singular values of X_r = D_ρ⁻¹·ΔW, descending; zero rows stay zero."""
        return self._rows.singular_values

    @cached_property
    def column_normalised(self) -> Float:
        """Return the singular values of X_c = ΔW·D_γ⁻¹, descending; zero columns stay zero."""
        return self._columns.singular_values

    def row_normalised_basis(self) -> Float:
        """Return Z (k × k): the right singular vectors of X_r are Q_Aᵀ·Z, in descending order."""
        return _basis(self.B, self.root_a, self.root_b.exponent, self._rows.gram)

    def column_normalised_basis(self) -> Float:
        """Return W (k × k): the left singular vectors of X_c are Q_B·W, in descending order."""
        return _basis(self.A.T, self.root_b, self.root_a.exponent, self._columns.gram)

    @cached_property
    def _rows(self) -> Normalised:
        return _normalised(self.B, self.root_a, self.root_b.exponent)

    @cached_property
    def _columns(self) -> Normalised:
        return _normalised(self.A.T, self.root_b, self.root_a.exponent)


class Normalised(NamedTuple):
    """The product T·root (N × k), row by row: its norms, and Gram matrix and σ after setting each row to length 1."""

    norms: Float
    gram: Float
    singular_values: Float


@contextlib.contextmanager
def releasing(release: Callable[[], None]) -> Iterator[None]:
    """Call `release` after every `READ` bytes of factors that this thread reads in blocks.

    Factors may be views of a mapped file: of one that is larger than memory should hold, the pages that were read have
    to be let go before the factor ends.
    """
    _SCRATCH.release, _SCRATCH.read = release, 0
    try:
        yield
    finally:
        _SCRATCH.release = None


def _has_read(part: NDArray[Any]) -> None:
    release = getattr(_SCRATCH, "release", None)
    if release is None:
        return
    _SCRATCH.read += part.nbytes
    if _SCRATCH.read >= READ:
        _SCRATCH.read = 0
        release()


def blocks(tall: NDArray[Any], exponent: int = 0) -> Iterator[Float]:
    """Yield the rows of `tall` (N × r) in float64, times 2**-exponent, at most `BLOCK` numbers at a time."""
    step = max(1, BLOCK // max(1, tall.shape[1]))
    for start in range(0, tall.shape[0], step):
        part = tall[start : start + step]
        block = part.astype(np.float64)
        _has_read(part)
        yield np.ldexp(block, -exponent) if exponent else block


def _fleeting_blocks(tall: NDArray[Any], exponent: int) -> Iterator[Float]:
    """Yield what `blocks` does, in memory that the next block overwrites.

    Fresh memory for every block costs more page faults than arithmetic.
    """
    rank = tall.shape[1]
    step = max(1, BLOCK // max(1, rank))
    for start in range(0, tall.shape[0], step):
        part = tall[start : start + step]
        # The order of the source, so that neither side of the copy jumps.
        block = _buffer("block", *part.shape) if part.flags.c_contiguous else _buffer("block", *part.shape[::-1]).T
        np.copyto(block, part, casting="unsafe")
        _has_read(part)
        yield np.ldexp(block, -exponent, out=block) if exponent else block


def _buffer(name: str, rows: int, columns: int) -> Float:
    """Return scratch memory of this thread; what it held before is lost."""
    size = rows * columns
    buffer: Float | None = getattr(_SCRATCH, name, None)
    if buffer is None or len(buffer) < size:
        buffer = np.empty(max(size, BLOCK))
        setattr(_SCRATCH, name, buffer)
    return buffer[:size].reshape(rows, columns)


def _root(tall: NDArray[Any]) -> Root:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        gram = _gram(tall, 0)
    exponent = 0
    trace = float(np.trace(gram))
    if not SAFE[0] < trace < SAFE[1]:
        peak = _peak(tall)
        if peak == 0.0:
            return Root(np.zeros((tall.shape[1], min(tall.shape))), 0, exact=True)
        exponent = math.frexp(peak)[1]
        gram = _gram(tall, exponent)
    values, vectors = np.linalg.eigh(gram)
    if values[0] > GRAM_CONDITION * values[-1]:
        return Root(vectors * np.sqrt(values), exponent, exact=True)
    return Root(_triangle(blocks(tall, exponent), tall.shape[1]).T, exponent, exact=False)


def _gram(tall: NDArray[Any], exponent: int) -> Float:
    gram = np.zeros((tall.shape[1], tall.shape[1]))
    for block in _fleeting_blocks(tall, exponent):
        gram += block.T @ block
    return gram


def _peak(tall: NDArray[Any]) -> float:
    peak = 0.0
    for block in blocks(tall):
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        if not math.isfinite(peak) or np.isnan(block).any():
            raise FloatingPointError("a factor holds NaN or infinity")
    return peak


def _triangle(tall_blocks: Iterator[Float], columns: int) -> Float:
    """Return the triangle of a QR decomposition (k × columns) of the stacked blocks, one block at a time."""
    triangle = np.zeros((0, columns))
    for block in tall_blocks:
        triangle = np.asarray(np.linalg.qr(np.vstack((triangle, block)), mode="r"))
    return triangle


def _lengths(matrix: Float) -> Float:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", matrix, matrix)))


def _noise(inner: int) -> float:
    """Return what a computed norm may be, relative to Σ_k |b_k|·‖a_k‖, when the true one is zero."""
    return (NOISE + inner) * EPSILON


def _products(tall: NDArray[Any], root: Root, exponent: int) -> Iterator[tuple[Float, Float]]:
    """Yield blocks of (T·root)ᵀ, k × N, with the norms of their columns.

    The block is overwritten by the next. Lying on its side, it is scaled along its contiguous axis, which is twice
    as fast. Columns that are zero but for rounding are set to zero.
    """
    lengths = None if root.exact else _lengths(root.matrix)
    for block in _fleeting_blocks(tall, exponent):
        product = np.matmul(root.matrix.T, block.T, out=_buffer("product", root.matrix.shape[1], len(block)))
        norms = np.sqrt(np.einsum("ij,ij->j", product, product))
        if lengths is not None:
            noise = norms <= _noise(block.shape[1]) * (np.abs(block) @ lengths)
            product[:, noise] = 0.0
            norms[noise] = 0.0
        yield product, norms


def _units(tall: NDArray[Any], root: Root, exponent: int) -> Iterator[tuple[Float, Float]]:
    """Yield blocks of (T·root)ᵀ with each column set to length 1, with the norms they had."""
    for product, norms in _products(tall, root, exponent):
        # A zero row has no direction: its inverse norm is taken as 0 (METHOD: "a zero row stays zero").
        product *= np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        yield product, norms


def _normalised(tall: NDArray[Any], root: Root, exponent: int) -> Normalised:
    inner = root.matrix.shape[1]
    gram = np.zeros((inner, inner))
    norms = np.zeros(tall.shape[0])
    if inner == 0:  # no rank, no rows or no columns
        return Normalised(norms, gram, np.zeros(0))
    start = 0
    for unit, part in _units(tall, root, exponent):
        gram += unit @ unit.T
        norms[start : start + len(part)] = part
        start += len(part)
    values = np.linalg.eigvalsh(gram)[::-1]
    if values[-1] > GRAM_CONDITION * values[0]:
        spectrum = np.sqrt(values)
    else:
        triangle = _triangle((unit.T for unit, _ in _units(tall, root, exponent)), inner)
        spectrum = np.linalg.svd(triangle, compute_uv=False)
    return Normalised(norms, gram, spectrum[: min(len(spectrum), tall.shape[0])])


def _basis(tall: NDArray[Any], root: Root, exponent: int, gram: Float) -> Float:
    values, vectors = np.linalg.eigh(gram)
    if values[0] > GRAM_CONDITION * values[-1]:
        return vectors[:, ::-1]
    triangle = _triangle((unit.T for unit, _ in _units(tall, root, exponent)), root.matrix.shape[1])
    return np.linalg.svd(triangle)[2].T
