"""Slow oracles that form ΔW. Nothing here is shared with the library, and nothing here is clever.

ΔW is computed in exact integer arithmetic and rounded once, so that an oracle is as good as its last step also where
B and A are ill-conditioned or cancel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def delta(A: NDArray[Any], B: NDArray[Any], scaling: float = 1.0) -> Float:
    """Return s·B·A (m × n) with every entry of B·A correctly rounded."""
    left, left_exponent = _integers(np.asarray(B).astype(np.float64))
    right, right_exponent = _integers(np.asarray(A).astype(np.float64))
    product = left @ right  # Python integers: exact
    exponent = left_exponent + right_exponent
    entries = [_rounded(entry, exponent) for entry in product.ravel()]
    return scaling * np.array(entries, dtype=np.float64).reshape(product.shape)


def _integers(values: Float) -> tuple[NDArray[np.object_], int]:
    """Return integers and one exponent with values = integers · 2**exponent, exactly."""
    mantissas, exponents = np.frexp(values)
    lowest = int(exponents.min(initial=0))
    integers = [int(x * 2.0**53) << (int(e) - lowest) for x, e in zip(mantissas.flat, exponents.flat, strict=True)]
    return np.array(integers, dtype=object).reshape(values.shape), lowest - 53


def _rounded(integer: int, exponent: int) -> float:
    return float(integer << exponent) if exponent >= 0 else integer / (1 << -exponent)


def singular_values(matrix: Float) -> Float:
    return np.linalg.svd(matrix, compute_uv=False)


def row_norms(matrix: Float) -> Float:
    return np.array([math.sqrt(math.fsum(x * x for x in row)) for row in matrix.tolist()])


def column_norms(matrix: Float) -> Float:
    return row_norms(matrix.T)


def row_normalised(matrix: Float) -> Float:
    """Return X_r: every row set to length 1, zero rows kept."""
    result = np.zeros_like(matrix)
    for i, norm in enumerate(row_norms(matrix)):
        if norm > 0:
            result[i] = matrix[i] / norm
    return result


def column_normalised(matrix: Float) -> Float:
    return row_normalised(matrix.T).T


def svd(matrix: Float, components: int) -> Float:
    return singular_values(matrix)[:components]


def mas_svd(matrix: Float, components: int) -> Float:
    """Return σ̃_k = √((ρ̄·s^r_k)·(γ̄·s^c_k)), k ≤ components."""
    rows = np.mean(row_norms(matrix)) * singular_values(row_normalised(matrix))
    columns = np.mean(column_norms(matrix)) * singular_values(column_normalised(matrix))
    return np.sqrt(rows * columns)[:components]


def directions(matrix: Float, components: int) -> tuple[Float, Float]:
    """Return U (m × M) and V (n × M): the top left vectors of X_c and the top right vectors of X_r."""
    left = np.linalg.svd(column_normalised(matrix))[0][:, :components]
    right = np.linalg.svd(row_normalised(matrix))[2][:components].T
    return left, right


def spsvd_l2(matrix: Float, components: int) -> Float:
    """Return |d| of the greedy least-squares fits, by deflating the whole matrix each time."""
    left, right = directions(matrix, components)
    residual, found = matrix.copy(), []
    free_u, free_v = list(range(left.shape[1])), list(range(right.shape[1]))
    while free_u and free_v:
        best = (-1.0, 0.0, 0, 0)
        for i in free_u:
            for j in free_v:
                d = float(left[:, i] @ residual @ right[:, j])
                if abs(d) > best[0]:
                    best = (abs(d), d, i, j)
        size, d, i, j = best
        residual = residual - d * np.outer(left[:, i], right[:, j])
        free_u.remove(i)
        free_v.remove(j)
        found.append(size)
    return np.array(found)


def weighted_median(values: Float, weights: Float) -> float:
    """Return the smallest value at which the weight of all values up to it reaches half of the total."""
    half, so_far = math.fsum(weights) / 2, 0.0
    for value, weight in sorted(zip(values.tolist(), weights.tolist(), strict=True)):
        so_far += weight
        if so_far >= half:
            return float(value)
    return 0.0


def spsvd_l1(matrix: Float, components: int) -> Float:
    """Return |d|, descending, of the greedy least-absolute fits, by deflating the whole matrix each time."""
    left, right = directions(matrix, components)
    residual, found = matrix.copy(), []
    free_u, free_v = list(range(left.shape[1])), list(range(right.shape[1]))
    while free_u and free_v:
        best = (math.inf, 0.0, 0, 0)
        for i in free_u:
            for j in free_v:
                outer = np.outer(left[:, i], right[:, j])
                used = outer != 0
                d = weighted_median(residual[used] / outer[used], np.abs(outer[used]))
                cost = float(np.abs(residual - d * outer).sum())
                if cost < best[0]:
                    best = (cost, d, i, j)
        _, d, i, j = best
        residual = residual - d * np.outer(left[:, i], right[:, j])
        free_u.remove(i)
        free_v.remove(j)
        found.append(abs(d))
    return np.sort(found)[::-1]


def released(matrix: Float) -> float:
    """Return the leading singular value of the rescaled best rank-one fit of the released script, step by step.

    The leading dimension of U is walked over, as the script does; it fits only where m ≤ n.
    """
    lengths = np.sqrt((matrix**2).sum(axis=1))[:, None] + 1e-8
    widths = np.sqrt((matrix**2).sum(axis=0))[None, :] + 1e-8
    _, _, right = np.linalg.svd(matrix / lengths, full_matrices=False)
    left, _, _ = np.linalg.svd(matrix / widths, full_matrices=False)
    lowest, chosen = math.inf, np.zeros_like(matrix)
    for u in left[:5]:
        for v in right[:5]:
            projections = sorted(((matrix @ v) * u).tolist())
            d = projections[(len(projections) - 1) // 2]
            candidate = d * np.outer(u, v)
            cost = float(np.abs(matrix - candidate).sum())
            if cost < lowest:
                lowest, chosen = cost, candidate
    return float(singular_values(lengths * chosen)[0])


def ssi(sigma: Float) -> float:
    return float(sigma[0]) / math.fsum(sigma)


def normalised_ssi(sigma: Float) -> float:
    lowest = 1 / len(sigma)
    return (ssi(sigma) - lowest) / (1 - lowest)


def weighted_ssi(sigma: Float) -> float:
    return float(sigma[0]) ** 2 / math.fsum(sigma)


def magnitude(sigma: Float) -> float:
    return float(sigma[0])


def stable_rank(matrix: Float) -> float:
    return float((matrix**2).sum() / singular_values(matrix)[0] ** 2)


def energy(matrix: Float) -> float:
    return float(singular_values(matrix)[0] ** 2 / (matrix**2).sum())


def spectral_entropy(matrix: Float) -> float:
    sigma = singular_values(matrix)
    return -math.fsum(p * math.log(p) for p in (sigma / sigma.sum()).tolist() if p > 0)


def effective_rank(matrix: Float) -> float:
    return math.exp(spectral_entropy(matrix))


def kurtosis(matrix: Float) -> float:
    """Return the excess kurtosis of the entries, by the definition."""
    entries = matrix.ravel().tolist()
    mean = math.fsum(entries) / len(entries)
    second = math.fsum((x - mean) ** 2 for x in entries) / len(entries)
    fourth = math.fsum((x - mean) ** 4 for x in entries) / len(entries)
    return fourth / second**2 - 3
