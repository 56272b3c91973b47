"""Kurtosis of the entries of ΔW = s·B·A, from the factors.

With b̄ the mean row of B and ā the mean column of A, the mean entry of B·A is b̄·ā, and

    (B·A)_ij − b̄·ā = (b_i − b̄)·ā + b̄·(a_j − ā) + (b_i − b̄)·(a_j − ā)

is a product of factors of rank r + 2. Its moments are central ones by construction: raw moments, subtracted
afterwards, would lose (mean / deviation)⁴ of their digits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.kronecker import KroneckerUpdate, kronecker_kurtosis
from s3lora.spectrum.tall import Float, converted

#: Above this rank the products of `_fourth_from_moments`, r⁴/4 for each row, cost more than blocks of ΔW do (measured).
EXACT_RANK = 20
#: Largest Σ_k ‖b_k‖·‖a_k‖ / ‖ΔW‖ for which the moments are believed: they lose its fourth power times ε.
CANCELLATION = 30.0
#: Deviations below this share of the terms that make an entry are rounding, and have no shape.
ROUNDING = 1e-12
#: Numbers made at a time.
ENTRIES = 1 << 20


class _Centred(NamedTuple):
    """Factors of (ΔW − mean) / deviation: b (m × (r + 2)) and a (n × (r + 2)), and whether their terms cancel."""

    b: Float
    a: Float
    cancels: bool


def kurtosis(update: FactoredUpdate) -> float:
    """Return the excess kurtosis (0 for a normal distribution) of the m·n entries of ΔW; NaN where they are all equal.

    Up to rank 20 it needs no entry of ΔW: Σ_ij (b_i·a_j)⁴ is the inner product of the fourth moment tensors of the
    rows of B and the columns of A. Above, and where these tensors cancel, ΔW is made in blocks of rows.
    """
    if isinstance(update, KroneckerUpdate):
        return kronecker_kurtosis(update)
    centred = None if update.is_zero else _centred(update)
    if centred is None:
        return math.nan
    from_moments = update.rank <= EXACT_RANK and not centred.cancels
    fourth = (_fourth_from_moments if from_moments else _fourth_from_blocks)(centred.b, centred.a)
    return fourth / (update.shape[0] * update.shape[1]) - 3.0


def _centred(update: FactoredUpdate) -> _Centred | None:
    """Return the centred factors; None where all entries of ΔW are equal."""
    b, a = _tall(update.B), _tall(update.A.T)
    size = float(_root_mean_square(b) @ _root_mean_square(a))
    mean_b, mean_a = b.mean(axis=0), a.mean(axis=0)
    b -= mean_b
    a -= mean_a
    b = np.column_stack((b @ mean_a, np.ones(len(b)), b))
    a = np.column_stack((np.ones(len(a)), a @ mean_b, a))
    terms = float(_root_mean_square(b) @ _root_mean_square(a))
    second = float(np.sum((b.T @ b) * (a.T @ a)))  # loses the square of what cancels
    cancels = second * CANCELLATION**2 < terms**2 * len(b) * len(a)
    if cancels:
        second = _second_from_blocks(b, a)
    deviation = math.sqrt(second / (len(b) * len(a)))
    return _Centred(b / deviation, a, cancels) if deviation > ROUNDING * size else None


def _tall(tall: NDArray[Any]) -> Float:
    """Return a factor (N × r) in float64, its largest entry brought near 1 by a power of two; kurtosis has no scale."""
    whole = np.concatenate(list(converted(tall)))
    return np.asarray(np.ldexp(whole, -math.frexp(float(np.abs(whole).max()))[1]))


def _root_mean_square(tall: Float) -> Float:
    return np.asarray(np.sqrt(np.mean(tall * tall, axis=0)))


def _fourth_from_moments(b: Float, a: Float) -> float:
    # Off-diagonal products occur twice in b bᵀ; each pair (k ≤ l) carries that multiplicity.
    first, second = np.triu_indices(b.shape[1])
    times = np.where(first == second, 1.0, 2.0)
    return float(np.sum(_pair_gram(b) * _pair_gram(a) * np.outer(times, times)))


def _pair_gram(tall: Float) -> Float:
    """Return Σ_i p_i·p_iᵀ, p_i being the products of two entries of row i of `tall`."""
    first, second = np.triu_indices(tall.shape[1])
    result = np.zeros((len(first), len(first)))
    step = max(1, ENTRIES // len(first))
    for start in range(0, len(tall), step):
        rows = tall[start : start + step]
        pairs = rows[:, first] * rows[:, second]
        result += pairs.T @ pairs
    return result


def _second_from_blocks(b: Float, a: Float) -> float:
    step = max(1, ENTRIES // len(a))
    return sum(float(np.sum((b[start : start + step] @ a.T) ** 2)) for start in range(0, len(b), step))


def _fourth_from_blocks(b: Float, a: Float) -> float:
    step = max(1, ENTRIES // len(a))
    # The square of a square: NumPy raises to the fourth power entry by entry, thirty times as slow.
    blocks = (b[start : start + step] @ a.T for start in range(0, len(b), step))
    return sum(float(np.sum(np.square(np.square(block)))) for block in blocks)
