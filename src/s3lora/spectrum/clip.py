"""Milder repairs than removal: flatten the sharp directions of an update and keep the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from s3lora.spectrum.tall import Float


def clip_factors(A: ArrayLike, B: ArrayLike, component: int) -> tuple[Float, Float]:
    """Return (A', B') of the same shapes with σ'_k = min(σ_k, σ_component) and the same singular vectors.

    Parameters:
        A: (r, n) lora_A.
        B: (m, r) lora_B.
        component: which singular value is the ceiling, counted from 1; beyond the rank the update is unchanged.

    B'·A' is balanced: each factor carries the square root of the singular values. Float64; the caller rounds.
    """
    a, b = np.asarray(A).astype(np.float64), np.asarray(B).astype(np.float64)
    q_b, r_b = np.linalg.qr(b)  # (m, k), (k, r)
    q_a, r_a = np.linalg.qr(a.T)  # (n, l), (l, r)
    left, sigma, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    ceiling = sigma[min(component, len(sigma)) - 1] if component <= len(sigma) else np.inf
    root = np.sqrt(np.minimum(sigma, ceiling))
    clipped_a, clipped_b = np.zeros(a.shape), np.zeros(b.shape)
    clipped_a[: len(root)] = (right.T * root).T @ q_a.T
    clipped_b[:, : len(root)] = q_b @ (left * root)
    return clipped_a, clipped_b
