"""A dense matrix that is known by its rows, made in float64 a few at a time: its norms, and products with it.

What is no product of two factors, as the update of DoRA, has to be looked at entry by entry. It is held where it is
no longer than `HELD`; else its rows are made again for each pass, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from s3lora.spectrum.tall import Float

__all__ = ["HELD", "DenseMatrix", "Norms", "dense", "inner_of", "plus_matrix", "plus_product", "product"]

#: Numbers that are held, 128 MB in float64, and numbers of one piece.
HELD = 1 << 24
PIECE = 1 << 19


@dataclass(frozen=True, slots=True)
class Norms:
    """Norms of the rows (m) and columns (n) of a matrix, and of all of it."""

    rows: Float
    columns: Float
    frobenius: float


class DenseMatrix:
    """A matrix (m × n), whose rows from `start` to `stop` are what `rows(start, stop)` gives in float64.

    Raises FloatingPointError, when it is read, where it holds NaN or infinity.

    >>> whole = dense(np.array([[3.0, 0.0], [0.0, 4.0]]))
    >>> whole.norms.frobenius, whole.norms.rows.tolist()
    (5.0, [3.0, 4.0])
    """

    def __init__(self, shape: tuple[int, int], rows: Callable[[int, int], Float]) -> None:
        """Keep what gives the rows; nothing is read."""
        self.shape = shape
        self._rows = rows
        self._whole: Float | None = None

    def pieces(self) -> Iterator[tuple[slice, Float]]:
        """Yield (which rows, their numbers), which are not to be written to."""
        m, n = self.shape
        if m * n <= HELD:
            if self._whole is None:
                self._whole = np.empty(self.shape)
                for rows, piece in self._made():
                    self._whole[rows] = piece
            yield slice(0, m), self._whole
            return
        yield from self._made()

    def _made(self) -> Iterator[tuple[slice, Float]]:
        m, n = self.shape
        step = max(1, PIECE // max(1, n))
        for start in range(0, m, step):
            stop = min(start + step, m)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                piece = self._rows(start, stop)
            if not np.isfinite(piece).all():
                raise FloatingPointError("the update holds NaN or infinity")
            yield slice(start, stop), piece

    @cached_property
    def norms(self) -> Norms:
        """Return the norms of rows, of columns and of the whole."""
        m, n = self.shape
        rows, columns = np.zeros(m), np.zeros(n)
        with np.errstate(over="raise"):
            for where, piece in self.pieces():
                rows[where] = np.sqrt(np.einsum("ij,ij->i", piece, piece))
                columns += np.einsum("ij,ij->j", piece, piece)
        return Norms(rows, np.sqrt(columns), float(np.sqrt(np.sum(columns))))

    @property
    def is_zero(self) -> bool:
        """Return whether every entry is zero."""
        return self.norms.frobenius == 0.0

    def scaled(self, rows: Float | None = None, columns: Float | None = None) -> DenseMatrix:
        """Return the matrix with its rows, or its columns, times these numbers."""

        def made(start: int, stop: int) -> Float:
            part = self.part(start, stop)
            part = part if rows is None else part * rows[start:stop, None]
            return part if columns is None else part * columns

        return DenseMatrix(self.shape, made)

    def part(self, start: int, stop: int) -> Float:
        """Return some rows."""
        return self._rows(start, stop) if self._whole is None else self._whole[start:stop]

    def whole(self) -> Float:
        """Return all of it at once."""
        found = np.empty(self.shape)
        for rows, piece in self.pieces():
            found[rows] = piece
        return found

    def times(self, right: Float) -> Float:
        """Return A·X (m × l) for X (n × l)."""
        found = np.empty((self.shape[0], right.shape[1]))
        for rows, piece in self.pieces():
            found[rows] = piece @ right
        return found

    def squared(self, right: Float) -> tuple[Float, Float]:
        """Return A·X (m × l) and Aᵀ·A·X (n × l) for X (n × l), in one pass."""
        left = np.empty((self.shape[0], right.shape[1]))
        back = np.zeros_like(right)
        for rows, piece in self.pieces():
            left[rows] = piece @ right
            back += piece.T @ left[rows]
        return left, back

    def moments(self) -> tuple[float, float, float]:
        """Return the mean of the entries, and the means of their second and fourth central powers."""
        count = self.shape[0] * self.shape[1]
        mean = sum(float(np.sum(piece)) for _, piece in self.pieces()) / count
        second = fourth = 0.0
        for _, piece in self.pieces():
            squares = (piece - mean) ** 2
            second += float(np.sum(squares))
            fourth += float(np.sum(squares * squares))
        return mean, second / count, fourth / count


def dense(matrix: Any) -> DenseMatrix:
    """Return a stored matrix, or what reads the rows of one when they are asked for."""

    def rows(start: int, stop: int) -> Float:
        return np.asarray(matrix[start:stop]).astype(np.float64)

    return DenseMatrix((int(matrix.shape[0]), int(matrix.shape[1])), rows)


def product(A: Any, B: Any, scaling: float) -> DenseMatrix:
    """Return s·B·A for lora_A (r × n) and lora_B (m × r)."""
    right = scaling * np.asarray(A[:]).astype(np.float64)
    shape = int(B.shape[0]), int(A.shape[1])
    return DenseMatrix(shape, lambda start, stop: np.asarray(B[start:stop]).astype(np.float64) @ right)


def plus_matrix(first: DenseMatrix, second: DenseMatrix, sign: float = 1.0) -> DenseMatrix:
    """Return A₁ + sign·A₂ for two matrices of one shape."""
    return DenseMatrix(first.shape, lambda start, stop: first.part(start, stop) + sign * second.part(start, stop))


def plus_product(matrix: DenseMatrix, A: Any, B: Any, scaling: float) -> DenseMatrix:
    """Return W + s·B·A for lora_A (r × n) and lora_B (m × r)."""
    return plus_matrix(matrix, product(A, B, scaling))


def inner_of(first: DenseMatrix, second: DenseMatrix) -> float:
    """Return ⟨A₁, A₂⟩, the sum of the products of their entries."""
    total = 0.0
    for rows, piece in first.pieces():
        step = max(1, PIECE // max(1, piece.shape[1]))
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            part = piece[start - rows.start : stop - rows.start]
            total += float(np.sum(part * second.part(start, stop)))
    return total
