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

__all__ = ["Bases", "Overlap", "bases", "numerical_rank", "overlap"]


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


def numerical_rank(update: FactoredUpdate) -> int:
    """Return how many singular values of ΔW are more than rounding: 0 for a zero update, else 1 to min(m, n, r).

    Rounding is what `factored` bounds a cancelled norm by: 64 + r times ε·Σ_k ‖b_k‖·‖a_k‖.
    """
    if update.is_zero:
        return 0
    terms = float(_lengths(update.root_b.matrix) @ _lengths(update.root_a.matrix))
    sigma = np.linalg.svd(update.core, compute_uv=False)
    return max(1, int(np.sum(sigma > (NOISE + update.rank) * EPSILON * terms)))


def bases(update: FactoredUpdate) -> Bases:
    """Return bases of the column and the row space of ΔW, and not of its factors: where A is deficient, B's is larger.

    Takes some three times the memory of the factors in float64: they are decomposed whole, not block by block.
    """
    columns, right = np.linalg.qr(_tall(update.B))  # (m, k), (k, r)
    rows, left = np.linalg.qr(_tall(update.A.T))  # (n, k), (k, r)
    u, _, vt = np.linalg.svd(right @ left.T)
    rank = numerical_rank(update)
    return Bases(columns @ u[:, :rank], rows @ vt[:rank].T)


def overlap(first: Float, second: Float) -> Overlap:
    """Return how far the spaces agree that two orthonormal bases (N × k₁ and N × k₂, none empty) span."""
    cosines = np.minimum(np.linalg.svd(first.T @ second, compute_uv=False), 1.0)
    return Overlap(
        largest=float(cosines[0]),
        mean_square=float(np.mean(cosines**2)),
        chance=max(first.shape[1], second.shape[1]) / first.shape[0],
    )


def _tall(tall: NDArray[Any]) -> Float:
    """Return a factor (N × r) in float64, its largest entry brought near 1 by a power of two."""
    whole = tall.astype(np.float64)
    return np.asarray(np.ldexp(whole, -int(np.frexp(np.abs(whole).max(initial=0.0))[1])))


def _lengths(rows: Float) -> Float:
    return np.asarray(np.linalg.norm(rows, axis=1))
