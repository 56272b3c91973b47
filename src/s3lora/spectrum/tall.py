"""Tall factors T (N × r), read in float64 a piece at a time, and the roots of their Gram matrices.

k factors of one shape are read together: what NumPy takes for a call is paid once for all of them. Each is computed as
if it were alone, so that no result depends on which factors happen to be read with it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["EPSILON", "Float", "Root", "Tall", "buffer", "converted", "root_of", "triangle"]

Float = NDArray[np.float64]

#: Smallest ratio of eigenvalues for which a Gram matrix is believed: a condition of 1,000 of the factor itself.
GRAM_CONDITION = 1e-6
#: Numbers in one piece: 256 KB in float64, so that piece, product and Gram matrix stay in the second-level cache, and
#: that BLAS takes its kernel for small products up to the rank `SMALL_PRODUCT`; above, twice as many (measured). A
#: product also needs some rows to be fast: `ROWS` times the rank, where that is more.
BLOCK = 32768
SMALL_PRODUCT = 24
ROWS = 4
#: Up to this rank an inverse is cheaper than eigenvalues (measured).
SMALL_RANK = 64
#: Short factors, of which several are in a piece, are converted once and kept up to this many numbers, 8 MB in float64.
#: Converting a long one twice costs less than fetching it again from where it does not fit.
KEEP = 1 << 20
#: Traces of Gram matrices outside this range are rescaled by a power of two before they are used.
SAFE = (1e-100, 1e100)
EPSILON = float(np.finfo(np.float64).eps)
_SCRATCH = threading.local()


class Root(NamedTuple):
    """Roots of k Gram matrices: `matrix` (k × r × q) with matrix·matrixᵀ = TᵀT for each tall factor T (N × r).

    q = min(N, r). Each T is multiplied by 2**-exponent first (k). `exact` (k) tells that T is so well conditioned (or
    zero) that a product with `matrix` cannot cancel.
    """

    matrix: Float
    exponent: NDArray[np.int64]
    exact: NDArray[np.bool_]

    def item(self, i: int) -> Root:
        """Return the root of one factor: matrix (r × q), and numbers for the rest."""
        return Root(self.matrix[i], self.exponent[i], self.exact[i])


class Tall:
    """k tall factors of one shape (N × r), of any real dtype and layout.

    Parameters:
        factors: k arrays, or whatever has `shape` and gives an array for a slice of its rows.
        upright: whether their rows lie together in memory, as those of lora_B mostly do; else their columns, as those
            of the transposed lora_A. They are read into that order whatever theirs is, for results depend on it.
    """

    def __init__(self, factors: Sequence[Any], *, upright: bool) -> None:
        """Keep the factors; nothing is read."""
        self.factors = factors
        self.upright = upright
        self.rows, self.rank = (int(size) for size in factors[0].shape)
        self.exponent = np.zeros(len(factors), np.int64)
        self._kept: Float | None = None

    def pieces(self, only: int | None = None) -> Iterator[tuple[slice, slice, Float]]:
        """Yield (which factors, which rows, numbers), the numbers lying on their side: factors × r × rows.

        They are times 2**-exponent and not to be written to. Of factors that are not kept, the next piece overwrites
        them.
        """
        count = len(self.factors)
        together = self.together
        if together > 1 and count * self.rows * self.rank <= KEEP and self._kept is None:
            self._kept = self._read()
        first, last = (0, count) if only is None else (only, only + 1)
        numbers = BLOCK if self.rank <= SMALL_PRODUCT else 2 * BLOCK
        step = max(1, numbers // max(1, self.rank), min(ROWS * self.rank, BLOCK))
        for i in range(first, last, together):
            items = slice(i, min(i + together, last))
            for start in range(0, self.rows, step):
                rows = slice(start, min(start + step, self.rows))
                yield items, rows, self._fleeting(items, rows) if self._kept is None else self._kept[items, :, rows]

    @property
    def together(self) -> int:
        """Return how many factors are in one piece."""
        return max(1, BLOCK // max(1, self.rows * self.rank))

    def rescale(self, i: int, exponent: int) -> None:
        """Multiply factor i by 2**-exponent from now on."""
        self.exponent[i] = exponent
        if self._kept is not None:
            np.ldexp(self._kept[i], -exponent, out=self._kept[i])

    def gram(self) -> Float:
        """Return TᵀT of each factor (k × r × r)."""
        grams = np.zeros((len(self.factors), self.rank, self.rank))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for items, _, piece in self.pieces():
                grams[items] += piece @ piece.swapaxes(1, 2)
        return grams

    def squares(self) -> Float:
        """Return the trace of TᵀT of each factor (k), the sum of the squares of its numbers."""
        sums = np.zeros(len(self.factors))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for items, _, piece in self.pieces():
                sums[items] += np.sum(piece * piece, axis=(1, 2))
        return sums

    def _read(self) -> Float:
        """Return all factors (k × r × N) in float64."""
        k = len(self.factors)
        made = np.empty((k, self.rows, self.rank) if self.upright else (k, self.rank, self.rows))
        lying = made.swapaxes(1, 2) if self.upright else made
        for target, factor in zip(lying, self.factors, strict=True):
            np.copyto(target, _rows(factor, slice(0, self.rows)).T, casting="unsafe")
        for i in np.flatnonzero(self.exponent):
            np.ldexp(lying[i], -self.exponent[i], out=lying[i])
        return lying

    def _fleeting(self, items: slice, rows: slice) -> Float:
        """Return one piece in memory that the next overwrites: fresh memory costs more page faults than arithmetic."""
        parts = [_rows(factor, rows) for factor in self.factors[items]]
        shape = (len(parts), *parts[0].shape)
        shape = shape if self.upright else (shape[0], shape[2], shape[1])
        lying = buffer("piece", *shape).swapaxes(1, 2) if self.upright else buffer("piece", *shape)
        for target, part, exponent in zip(lying, parts, self.exponent[items], strict=True):
            np.copyto(target, part.T, casting="unsafe")
            if exponent:
                np.ldexp(target, -exponent, out=target)
        return lying


def _rows(factor: Any, rows: slice) -> NDArray[Any]:
    part: NDArray[Any] = factor[rows]
    return part


def converted(tall: Any, exponent: int = 0) -> Iterator[Float]:
    """Yield the rows of one factor (N × r) in float64, times 2**-exponent, at most `BLOCK` numbers at a time."""
    step = max(1, BLOCK // max(1, tall.shape[1]))
    for start in range(0, tall.shape[0], step):
        with np.errstate(invalid="ignore"):  # a signalling NaN, which whoever looks at the numbers finds
            part = _rows(tall, slice(start, start + step)).astype(np.float64)
        yield np.ldexp(part, -exponent) if exponent else part


def buffer(name: str, *shape: int) -> Float:
    """Return scratch memory of this thread; what it held before is lost."""
    size = math.prod(shape)
    held: Float | None = getattr(_SCRATCH, name, None)
    if held is None or len(held) < size:
        held = np.empty(max(size, BLOCK))
        setattr(_SCRATCH, name, held)
    return held[:size].reshape(shape)


def root_of(tall: Tall) -> Root:
    """Return the roots of all Gram matrices; raise FloatingPointError if a factor holds NaN or infinity."""
    count, rank = len(tall.factors), tall.rank
    inner = min(tall.rows, rank)
    matrix, exact = np.zeros((count, rank, inner)), np.zeros(count, np.bool_)
    # Of a factor with more columns than rows only the trace is used: its Gram matrix could fill any memory.
    grams = tall.gram() if inner == rank else None
    with np.errstate(over="ignore", invalid="ignore"):
        trace = tall.squares() if grams is None else np.trace(grams, axis1=1, axis2=2)
    for i in np.flatnonzero(~((SAFE[0] < trace) & (trace < SAFE[1]))).tolist():
        peak = _peak(tall.factors[i])
        exact[i] = peak == 0.0
        if peak > 0.0:
            tall.rescale(i, math.frexp(peak)[1])
            if grams is not None:
                grams[i] = sum(
                    (piece @ piece.swapaxes(1, 2) for _, _, piece in tall.pieces(i)), np.zeros((rank, rank))
                )[0]
    left = np.flatnonzero(~exact)
    if grams is not None and len(left):
        lower, good = _cholesky(grams[left])
        matrix[left[good]], exact[left[good]] = lower[good], True
        left = left[~good]
    for i in left.tolist():
        matrix[i] = triangle((piece[0].T for _, _, piece in tall.pieces(i)), rank).T
    return Root(matrix, tall.exponent, exact)


def _cholesky(grams: Float) -> tuple[Float, NDArray[Any]]:
    """Return L with L·Lᵀ = G for each Gram matrix, and for which of them it is believed.

    The condition of L is that of the factor. ‖L‖·‖L⁻¹‖ in the Frobenius norm bounds it from above, and is mostly
    enough; only where it is not, or costs more, the eigenvalues decide.
    """
    try:
        lower: Float = np.asarray(np.linalg.cholesky(grams), np.float64)
    except np.linalg.LinAlgError:  # of one of them: the others must not be computed in another way for that
        lower = np.stack([_or_nan(gram) for gram in grams])
    regular = np.asarray(np.isfinite(lower).all(axis=(1, 2)))
    good = np.zeros(len(grams), np.bool_)
    if grams.shape[1] <= SMALL_RANK:
        with np.errstate(all="ignore"):
            inverse = np.linalg.inv(np.where(regular[:, None, None], lower, np.eye(grams.shape[1])))
            squared = np.sum(lower**2, axis=(1, 2)) * np.sum(inverse**2, axis=(1, 2))
            good[regular] = (squared * GRAM_CONDITION < 1.0)[regular]
    doubtful = np.flatnonzero(regular & ~good)
    if len(doubtful):
        values = np.linalg.eigvalsh(grams[doubtful])
        good[doubtful] = values[:, 0] > GRAM_CONDITION * values[:, -1]
    return lower, good


def _or_nan(gram: Float) -> Float:
    try:
        return np.asarray(np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:
        return np.full_like(gram, np.nan)


def _peak(factor: Any) -> float:
    peak = 0.0
    for block in converted(factor):
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        if not math.isfinite(peak) or np.isnan(block).any():
            raise FloatingPointError("a factor holds NaN or infinity")
    return peak


def triangle(tall_blocks: Iterator[Float], columns: int) -> Float:
    """Return the triangle of a QR decomposition (q × columns) of the stacked blocks, one block at a time."""
    made = np.zeros((0, columns))
    for block in tall_blocks:
        made = np.asarray(np.linalg.qr(np.vstack((made, block)), mode="r"))
    return made
