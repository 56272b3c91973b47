"""Slow oracles for what an adapter is beside the weights of its base, by full decompositions of dense matrices."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def dora(weight: Float, product: Float, lengths: Float, *, columns: bool = False) -> Float:
    """Return ΔW of DoRA: the rows (or columns) of W + s·B·A get these lengths."""
    merged = weight + product
    if columns:
        return dora(weight.T, product.T, lengths).T
    result = np.empty_like(merged)
    for i, row in enumerate(merged):
        length = math.sqrt(math.fsum(x * x for x in row.tolist()))
        result[i] = lengths[i] * row / length - weight[i]
    return result


def pissa_start(weight: Float, rank: int) -> Float:
    """Return the best approximation of W of this rank, which PiSSA takes out of W."""
    u, s, vt = np.linalg.svd(weight)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def olora_start(weight: Float, rank: int, scaling: float) -> Float:
    """Return what OLoRA takes out of W."""
    q, r = np.linalg.qr(weight)
    return scaling * q[:, :rank] @ r[:rank]


def intruders(weight: Float, tuned: Float, k: int = 10, epsilon: float = 0.5) -> int:
    """Return algorithm 1 of arXiv 2410.21228: loops over all pairs of left singular vectors."""
    old, new = np.linalg.svd(weight, full_matrices=False)[0], np.linalg.svd(tuned, full_matrices=False)[0]
    count = 0
    for j in range(min(k, new.shape[1])):
        cosines = [abs(float(new[:, j] @ old[:, i])) for i in range(old.shape[1])]
        count += max(cosines) < epsilon
    return count


def mean_square_cosine(first: Float, second: Float) -> float:
    """Return the mean squared cosine of the principal angles between two spaces, by projectors."""
    p, q = first @ np.linalg.pinv(first), second @ np.linalg.pinv(second)
    return float(np.trace(p @ q)) / min(np.linalg.matrix_rank(first), np.linalg.matrix_rank(second))
