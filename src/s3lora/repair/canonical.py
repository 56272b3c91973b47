"""ΔW of a module as its singular directions, so that no method depends on how it was factored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.model import LoraModule
from s3lora.adapter.tensor import Array
from s3lora.errors import NonFiniteError


class Directions(NamedTuple):
    """ΔW = s·B·A = U·diag(σ)·Vᵀ in float64: U (m, q), σ (q,) descending, Vᵀ (q, n), with q = min(r, m, n)."""

    U: NDArray[np.float64]
    sigma: NDArray[np.float64]
    Vt: NDArray[np.float64]


def canonical(module: LoraModule) -> Directions:
    """Return the directions of a module; each u_k has a positive number where it is largest, so signs are fixed.

    Raises NonFiniteError for NaN or infinity.
    """
    a, b = (factor.array().astype(np.float64) for factor in (module.A, module.B))
    if not all(np.isfinite(part).all() for part in (a, b, module.scaling.value)):
        fix = "the training diverged or the file is damaged"
        raise NonFiniteError("holds NaN or infinity", module=module.path, shape=(module.m, module.n), fix=fix)
    return directions_of(a, b, module.scaling.value)


def directions_of(a: Array, b: Array, scaling: float) -> Directions:
    """Return the directions of s·B·A from A (r, n) and B (m, r), without ever forming it."""
    q_b, r_b = np.linalg.qr(b.astype(np.float64))
    q_a, r_a = np.linalg.qr(a.astype(np.float64).T)
    left, sigma, right = np.linalg.svd(scaling * (r_b @ r_a.T), full_matrices=False)
    size = min(a.shape[0], a.shape[1], b.shape[0])
    u, vt = (q_b @ left)[:, :size], (right @ q_a.T)[:size]
    largest = np.abs(u).argmax(axis=0)
    signs = np.where(u[largest, np.arange(size)] < 0, -1.0, 1.0)
    return Directions(u * signs, sigma[:size], vt * signs[:, None])


def factors_of(
    directions: Directions, scaling: float, gates: Sequence[float] | None = None, rank: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A (r, n) and B (m, r) with s·B·A = U·diag(g·σ)·Vᵀ, as √Σ on both sides; rows beyond q are zero.

    Parameters:
        directions: of one module.
        scaling: s; for 0, whose update is zero whatever the factors, both are those of the directions.
        gates: g (q,), 1 by default.
        rank: r, q by default.
    """
    sigma = directions.sigma if gates is None else directions.sigma * np.asarray(gates, dtype=np.float64)
    root = np.sqrt(np.abs(sigma / scaling) if scaling else np.abs(sigma))
    more = (0 if rank is None else rank) - len(sigma)
    a, b = root[:, None] * directions.Vt, directions.U * (root * (np.sign(sigma) * (-1.0 if scaling < 0 else 1.0)))
    if more > 0:
        a, b = np.pad(a, ((0, more), (0, 0))), np.pad(b, ((0, 0), (0, more)))
    return a, b
