"""Milder repairs than removal: flatten the sharp directions of an update and keep the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from s3lora.spectrum.nearest import core_svd
from s3lora.spectrum.tall import Float


def clip_factors(A: ArrayLike, B: ArrayLike, component: int) -> tuple[Float, Float]:
    """Return (A', B') of the same shapes with σ'_k = min(σ_k, σ_component) and the same singular vectors.

    Parameters:
        A: (r, n) lora_A.
        B: (m, r) lora_B.
        component: which singular value is the ceiling, counted from 1; beyond the rank the update is unchanged.

    B'·A' is balanced: each factor carries the square root of the singular values. Float64; the caller rounds.
    """
    svd = core_svd(A, B)
    ceiling = svd.sigma[min(component, len(svd.sigma)) - 1] if component <= len(svd.sigma) else np.inf
    return svd.balanced(np.minimum(svd.sigma, ceiling), np.shape(A)[0])
