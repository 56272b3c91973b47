"""Factors of an update → its singular values → factors of another spectrum or of a lower rank; ΔW is never formed.

B = Q_B R_B and Aᵀ = Q_A R_A, so that the SVD of the r × r core R_B R_Aᵀ is that of B·A but for Q_B and Q_A.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from s3lora.spectrum.tall import Float


@dataclass(frozen=True, slots=True)
class CoreSvd:
    """B·A = (Q_B U) diag(σ) (Q_A Vᵀ)ᵀ with `sigma` descending, of at most min(m, n, r) values; all in float64."""

    q_b: Float  # (m, k)
    left: Float  # (k, l)
    sigma: Float  # (l,)
    right: Float  # (l, k′)
    q_a: Float  # (n, k′)

    def balanced(self, values: Float, rank: int) -> tuple[Float, Float]:
        """Return A (rank, n) and B (m, rank) of the update with these first singular values instead, and no others.

        Each factor carries the square root of the values. What the rank has beyond them is zero.
        """
        root = np.sqrt(values[: min(rank, len(values))])
        a, b = np.zeros((rank, len(self.q_a))), np.zeros((len(self.q_b), rank))
        a[: len(root)] = (self.right[: len(root)].T * root).T @ self.q_a.T
        b[:, : len(root)] = self.q_b @ (self.left[:, : len(root)] * root)
        return a, b


def core_svd(A: ArrayLike, B: ArrayLike) -> CoreSvd:
    """Return the singular value decomposition of B·A, from A (r, n) and B (m, r)."""
    a, b = np.asarray(A).astype(np.float64), np.asarray(B).astype(np.float64)
    q_b, r_b = np.linalg.qr(b)  # (m, k), (k, r)
    q_a, r_a = np.linalg.qr(a.T)  # (n, k′), (k′, r)
    left, sigma, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return CoreSvd(q_b, left, sigma, right, q_a)


def nearest_factors(A: ArrayLike, B: ArrayLike, rank: int) -> tuple[Float, Float]:
    """Return A′ (rank, n) and B′ (m, rank) of the update of this rank that is nearest to B·A (Eckart–Young).

    Examples:
        >>> import numpy as np
        >>> from s3lora.spectrum.nearest import nearest_factors
        >>> a, b = nearest_factors([[3.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], 1)
        >>> np.round(np.abs(b @ a), 12).tolist()
        [[3.0, 0.0], [0.0, 0.0]]
    """
    svd = core_svd(A, B)
    return svd.balanced(svd.sigma, rank)


def distance(first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike]) -> float:
    """Return ‖B₁A₁ − B₂A₂‖_F of two pairs (A, B), which is the norm of [B₁, −B₂]·[A₁; A₂].

    By QR, and not from inner products, so that it is right to rounding where the two are nearly equal.
    """
    (a, b), (c, d) = (tuple(np.asarray(one).astype(np.float64) for one in pair) for pair in (first, second))
    left, right = (np.linalg.qr(tall)[1] for tall in (np.hstack([b, -d]), np.vstack([a, c]).T))
    return float(np.linalg.norm(left @ right.T))


def rank_for(sigma: Float, energy: float) -> int:
    """Return the least rank that holds a share of Σσ², in (0, 1], 1 where all are 0; `sigma` is descending.

    >>> import numpy as np
    >>> rank_for(np.array([3.0, 1.0, 0.0]), 0.9), rank_for(np.array([3.0, 1.0, 0.0]), 1.0)
    (1, 2)
    """
    if not len(sigma) or not sigma[0]:
        return 1
    parts = sigma / sigma[0]
    if energy >= 1.0:  # below this all is rounding
        return int(np.count_nonzero(parts > len(parts) * np.finfo(np.float64).eps))
    held = np.cumsum(np.square(parts))
    return int(np.argmax(held >= energy * held[-1])) + 1


def above_noise(sigma: Float, m: int, n: int) -> list[int]:
    """Return how many leading singular values stand above what random factors have, for each row of (k, r).

    B (m × r) and A (r × n) of independent Gaussian numbers have ‖BA‖_F² near m·n·r, and the mean of σ_1(BA) is at most
    (√m + √r)(√n + √r) (Davidson & Szarek 2001, theorem II.13, for each factor). So σ_k stands above noise if it is
    more than (1 + √(r′/m))(1 + √(r′/n)) / √r′ of the norm of all that is left from k on, r′ = r − k + 1 values. It is
    counted from the first until one does not.

    >>> import numpy as np
    >>> above_noise(np.array([[9.0, 5.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]), 400, 400)
    [2, 0]
    """
    r = sigma.shape[-1]
    if not r:
        return [0] * len(sigma)
    left = np.arange(r, 0, -1)  # values from the k-th on: r, r − 1, … 1
    edge = (1 + np.sqrt(left / m)) * (1 + np.sqrt(left / n)) / np.sqrt(left)
    parts = sigma / np.where(sigma[:, :1] > 0, sigma[:, :1], 1.0)
    rest = np.sqrt(np.cumsum(np.square(parts)[:, ::-1], axis=1)[:, ::-1])  # (k, r): ‖ΔW‖ without the first ones
    above = parts > edge * rest
    counts: list[int] = np.cumprod(above, axis=1).sum(axis=1).tolist()
    return counts
