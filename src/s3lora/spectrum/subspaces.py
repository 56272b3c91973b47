"""How the column and row spaces of two updates lie to each other: principal angles, from the factors.

With orthonormal bases Q₁ (N × k₁) and Q₂ (N × k₂) the singular values of Q₁ᵀQ₂ are the cosines of the principal angles
(Björck & Golub, Numerical Methods for Computing Angles Between Linear Subspaces, Math. Comp. 27 (1973), theorem 1).
They are good to some ε, the angles themselves only to √ε where they are small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3lora.spectrum.factored import NOISE, FactoredUpdate
from s3lora.spectrum.tall import EPSILON, Float

__all__ = ["Bases", "Overlap", "bases", "directions", "numerical_rank", "overlap", "overlaps"]


class Bases(NamedTuple):
    """Orthonormal bases of ΔW, k being its numerical rank: `columns` (m × k) and `rows` (n × k)."""

    columns: Float
    rows: Float


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far two subspaces of dimensions k₁ and k₂ agree; each number is in [0, 1].

    `largest` is the cosine of the smallest principal angle: 1 where they share a direction, as they must where
    k₁ + k₂ is above the dimension N of the whole space. `mean_square` is ‖Q₁ᵀQ₂‖_F² / min(k₁, k₂), the mean squared
    cosine: 1 where the smaller lies within the larger, 0 where they are orthogonal. `chance` is its expectation for
    random subspaces, max(k₁, k₂) / N. Every direction counts the same here, however little of the update it holds.
    """

    largest: float
    mean_square: float
    chance: float


def numerical_rank(update: FactoredUpdate) -> Any:
    """Return how many singular values of ΔW are more than rounding: 0 for a zero update, else 1 to min(m, n, r).

    Rounding is what `factored` bounds a cancelled norm by: 64 + r times ε·Σ_k ‖b_k‖·‖a_k‖. Of a stack of k updates it
    is an array of k numbers.
    """
    terms = np.sum(_lengths(update.root_b.matrix) * _lengths(update.root_a.matrix), axis=-1)
    above = update.core_values > ((NOISE + update.rank) * EPSILON * terms)[..., None]
    ranks = np.where(update.is_zero, 0, np.maximum(1, np.sum(above, axis=-1)))
    return ranks if update.stacked else int(ranks)


def directions(A: NDArray[Any], B: NDArray[Any]) -> Bases:
    """Return bases of what the factors A (…, r, n) and B (…, m, r) can span, the directions of ΔW = B·A first.

    They are in the order of the singular values of ΔW: so many as its numerical rank span its spaces, and where A is
    deficient the others are none of them. Takes some three times the memory of the factors in float64: they are
    decomposed whole, not block by block.
    """
    columns, right = np.linalg.qr(_tall(B))  # (m, k), (k, r)
    rows, left = np.linalg.qr(_tall(np.swapaxes(A, -1, -2)))  # (n, k), (k, r)
    u, _, vt = np.linalg.svd(right @ np.swapaxes(left, -1, -2))
    return Bases(columns @ u, rows @ np.swapaxes(vt, -1, -2))


def bases(update: FactoredUpdate) -> Bases:
    """Return bases of the column and the row space of ΔW of one module, and not of its factors."""
    made, rank = directions(update.A, update.B), numerical_rank(update)
    return Bases(made.columns[:, :rank], made.rows[:, :rank])


def overlap(first: Float, second: Float) -> Overlap:
    """Return how far the spaces agree that two orthonormal bases (N × k₁ and N × k₂, none empty) span."""
    return overlaps(first[None], second[None])[0]


def overlaps(first: Float, second: Float) -> list[Overlap]:
    """Return the same of each pair in two stacks of bases (k × N × k₁ and k × N × k₂)."""
    cosines = np.minimum(np.linalg.svd(first.swapaxes(1, 2) @ second, compute_uv=False), 1.0)
    chance = max(first.shape[2], second.shape[2]) / first.shape[1]
    return [
        Overlap(largest=largest, mean_square=mean_square, chance=chance)
        for largest, mean_square in zip(cosines[:, 0].tolist(), np.mean(cosines**2, axis=1).tolist(), strict=True)
    ]


def _tall(tall: NDArray[Any]) -> Float:
    """Return factors (…, N, r) in float64, the largest entry of each brought near 1 by a power of two."""
    whole = tall.astype(np.float64)
    peaks = np.abs(whole).max(axis=(-2, -1), keepdims=True, initial=0.0)
    return np.asarray(np.ldexp(whole, -np.frexp(peaks)[1]))


def _lengths(rows: Float) -> Float:
    return np.asarray(np.linalg.norm(rows, axis=-1))
