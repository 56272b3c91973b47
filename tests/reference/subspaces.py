"""Principal angles by another way than the library's: eigenvalues of projectors onto the spaces of dense updates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def rank(matrix: Float, tolerance: float = 1e-10) -> int:
    """Return the number of singular values above `tolerance` times the largest."""
    sigma = np.linalg.svd(matrix, compute_uv=False)
    return int(np.sum(sigma > tolerance * sigma[0])) if matrix.any() else 0


def projector(matrix: Float) -> Float:
    """Return the orthogonal projector onto the column space."""
    return matrix @ np.linalg.pinv(matrix, rcond=1e-10)


def largest_cosine(first: Float, second: Float) -> float:
    """Return the cosine of the smallest principal angle between the column spaces: cos² are eigenvalues of P₁·P₂·P₁."""
    product = projector(first) @ projector(second) @ projector(first)
    return math.sqrt(max(0.0, float(np.linalg.eigvalsh((product + product.T) / 2)[-1])))


def mean_square(first: Float, second: Float) -> float:
    """Return tr(P₁·P₂) / min(rank), the mean squared cosine of the principal angles."""
    return float(np.trace(projector(first) @ projector(second))) / min(rank(first), rank(second))
