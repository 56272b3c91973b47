"""Kurtosis of the entries of ΔW = s·B·A, from the factors."""

from __future__ import annotations

import math

import numpy as np

from s3lora.spectrum.factored import FactoredUpdate, Float, blocks

#: Above this rank the r(r+1)/2-dimensional products of `_fourth` cost more than blocks of ΔW do.
EXACT_RANK = 32
#: Entries of ΔW made at a time above it.
ENTRIES = 1 << 20


def kurtosis(update: FactoredUpdate) -> float:
    """Return the excess kurtosis (0 for a normal distribution) of the m·n entries of ΔW; NaN where they are all equal.

    Up to rank 32 it is exact without an entry of ΔW: Σ_ij (b_i·a_j)^k is the inner product of the k-th moment tensors
    of the rows of B and the columns of A. Above, ΔW is made in blocks of rows.
    """
    if update.is_zero:
        return math.nan
    mean, sums = _entry_mean(update), (_from_moments if update.rank <= EXACT_RANK else _from_blocks)(update)
    second, third, fourth = sums
    count = update.shape[0] * update.shape[1]
    m2, m3, m4 = second / count, third / count, fourth / count
    variance = m2 - mean**2
    central = m4 - 4 * mean * m3 + 6 * mean**2 * m2 - 3 * mean**4
    # Entries that differ by rounding only have no shape.
    return central / variance**2 - 3.0 if variance > 1e-14 * m2 else math.nan


def _tall(update: FactoredUpdate) -> tuple[Float, Float]:
    """Return B and Aᵀ in float64, scaled into range by powers of two (kurtosis does not depend on scale)."""
    b = np.concatenate(list(blocks(update.B, update.root_b.exponent)))
    a = np.concatenate(list(blocks(update.A.T, update.root_a.exponent)))
    return b, a


def _entry_mean(update: FactoredUpdate) -> float:
    b, a = _tall(update)
    return float(b.mean(axis=0) @ a.mean(axis=0))


def _from_moments(update: FactoredUpdate) -> tuple[float, float, float]:
    b, a = _tall(update)
    second = float(np.sum((b.T @ b) * (a.T @ a)))
    pairs_b, pairs_a = _pairs(b), _pairs(a)
    # Off-diagonal products occur twice in b bᵀ; each pair (k ≤ l) carries that multiplicity.
    times = _multiplicity(b.shape[1])
    third = float(np.sum((pairs_b.T @ b) * (pairs_a.T @ a) * times[:, None]))
    fourth = float(np.sum((pairs_b.T @ pairs_b) * (pairs_a.T @ pairs_a) * np.outer(times, times)))
    return second, third, fourth


def _pairs(tall: Float) -> Float:
    first, second = np.triu_indices(tall.shape[1])
    return tall[:, first] * tall[:, second]  # (N, r(r+1)/2)


def _multiplicity(rank: int) -> Float:
    first, second = np.triu_indices(rank)
    return np.where(first == second, 1.0, 2.0)


def _from_blocks(update: FactoredUpdate) -> tuple[float, float, float]:
    b, a = _tall(update)
    step = max(1, ENTRIES // a.shape[0])
    sums = np.zeros(3)
    for start in range(0, b.shape[0], step):
        entries = b[start : start + step] @ a.T
        squares = entries * entries
        sums += (squares.sum(), (squares * entries).sum(), (squares * squares).sum())
    return float(sums[0]), float(sums[1]), float(sums[2])
