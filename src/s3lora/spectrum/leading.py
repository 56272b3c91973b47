"""The largest singular values of a dense matrix: exact of a small one, else by a randomised SVD with a bound.

Halko, Martinsson & Tropp, Finding Structure with Randomness (SIAM Review 53 (2011), arXiv 0909.4061): from a Gaussian
start (n × l), `PASSES` subspace iterations with Aᵀ·A (algorithm 4.4), and the singular values σ̂ of A on what that
spans, none of which is above its σ.

How far below it can be. Let V (n × l) be the orthonormal basis, A·V = U·S after rotation, R = Uᵀ·A·(I − V·Vᵀ) what the
rotated basis leaves over, E = A·(I − V·Vᵀ). In the basis (V, V⊥)

    Aᵀ·A = [[S², S·R], [(S·R)ᵀ, Eᵀ·E]]

For a split after the j-th direction let δ_j be the norm of the first j rows of S·R, and τ_j² the norm of the block of
the others: at most σ̂²_{j+1} + ‖E‖², and at most max(σ̂²_{j+1}, ‖E‖²) + the norm of the later rows of S·R. For k ≤ j

    σ_k² ≤ σ̂_k² + 2·δ² / (η + √(η² + 4·δ²)),  η = σ̂_k² − τ²,   where η > 0   (Li & Li, LAA 395 (2005), theorem 2)
    σ_k² ≤ max(σ̂_k², τ²) + δ                                    else          (Weyl)
    σ_k² ≤ σ̂_k² + ‖E‖²                                          in any case

of which the least is taken over all splits. ‖E‖ is not known, but bounded by ‖E‖_F² = ‖A‖_F² − Σσ̂², and by lemma 4.1
of the same paper, applied to (Eᵀ·E)^q: with s Gaussian vectors ω

    ‖E‖^(2q) ≤ 10·√(2/π)·max_i ‖(Eᵀ·E)^q·ω_i‖   with a probability of at least 1 − 10^−s
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from s3lora.spectrum.dense import HELD, DenseMatrix
from s3lora.spectrum.tall import Float

__all__ = ["EXACT", "OVERSAMPLED", "PASSES", "PROBES", "PROBE_PASSES", "LeadingDirections", "is_exact", "leading"]

#: A matrix is decomposed as it is where its shorter side is no longer than this.
EXACT = 1024
#: Directions more than were asked for; iterations; Gaussian vectors that bound the rest, and iterations on these.
OVERSAMPLED, PASSES, PROBES, PROBE_PASSES = 10, 6, 10, 6


class LeadingDirections(NamedTuple):
    """Some of the largest singular values of a matrix (m × n), descending, with their vectors.

    Each of `values` (k) is at most `error` below its true one, with a probability of at least 1 − 10⁻¹⁰; the error is
    0 of an exact one. `left` is m × k and `right` n × k. `complete` tells that these are all min(m, n). `angle`
    estimates the sine of the angle between the space of `right` and the true one (Davis & Kahan, with the values that
    were found): 0 of an exact one, 1 where nothing is known.
    """

    values: Float
    error: float
    left: Float
    right: Float
    complete: bool
    angle: float = 0.0


def is_exact(shape: tuple[int, int], count: int | None = None) -> bool:
    """Return whether a matrix of this shape is decomposed as it is: it is small, or nearly all is asked for."""
    m, n = shape
    return m * n <= HELD and (min(m, n) <= EXACT or (count is not None and count + OVERSAMPLED >= min(m, n) // 2))


def leading(
    matrix: DenseMatrix, count: int, seed: int = 0, *, vectors: bool = True, passes: int = PASSES
) -> LeadingDirections:
    """Return the `count` largest singular values of a matrix, at least 1 and at most min(m, n).

    Without `vectors`, which cost more than the values of a small matrix do, there are none of them. Of a large matrix,
    more `passes` bring them nearer to the true ones.

    Raises FloatingPointError where the matrix holds NaN or infinity.

    >>> from s3lora.spectrum.dense import dense
    >>> leading(dense(np.diag([1.0, 3.0, 2.0])), 2).values
    array([3., 2.])
    """
    m, n = matrix.shape
    count = max(1, min(count, m, n))
    if is_exact(matrix.shape, count):
        if not vectors:
            s = np.asarray(np.linalg.svd(matrix.whole(), compute_uv=False))
            return LeadingDirections(s[:count], 0.0, np.zeros((m, 0)), np.zeros((n, 0)), count == min(m, n))
        u, s, vt = np.linalg.svd(matrix.whole(), full_matrices=False)
        return LeadingDirections(s[:count], 0.0, u[:, :count], vt[:count].T, count == min(m, n))
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((n, min(count + OVERSAMPLED, m, n))))[0]
    for _ in range(passes):
        basis = np.linalg.qr(matrix.squared(basis)[1])[0]
    product, back = matrix.squared(basis)
    u, s, turn = np.linalg.svd(product, full_matrices=False)
    right = basis @ turn.T
    # Row k of S·R is σ̂_k·(Aᵀ·u_k − σ̂_k·v_k), and Aᵀ·A·v_k = σ̂_k·Aᵀ·u_k: no division by a small σ̂.
    rest = back @ turn.T - right * s**2
    outside = _outside(matrix, right, s, random)
    error = _error(s, rest, outside, count)
    angle = _angle(s, rest, count)
    return LeadingDirections(s[:count], error, u[:, :count], right[:, :count], count == min(m, n), angle)


def _angle(values: Float, rest: Float, count: int) -> float:
    """Return the norm of the first rows of S·R over the gap σ̂²_count − σ̂²_(count+1), 1 at most."""
    if count == len(values):
        return 0.0 if len(values) == min(rest.shape) else 1.0
    gap = float(values[count - 1] ** 2 - values[count] ** 2)
    size = float(np.linalg.norm(rest[:, :count], 2))
    return min(1.0, size / gap) if gap > 0 else 1.0


def _outside(matrix: DenseMatrix, basis: Float, values: Float, random: np.random.Generator) -> float:
    """Return an upper bound of ‖E‖², E being what the matrix does outside the basis."""
    total = matrix.norms.frobenius**2
    # What is left of the difference of two sums of m·n squares that are nearly equal is rounding.
    exact = max(0.0, total - float(np.sum(values**2))) + 1e-13 * total
    probes = random.standard_normal((matrix.shape[1], PROBES))
    logarithm = 0.0
    for _ in range(PROBE_PASSES):
        probes -= basis @ (basis.T @ probes)
        probes = matrix.squared(probes)[1]
        probes -= basis @ (basis.T @ probes)
        size = float(np.max(np.linalg.norm(probes, axis=0)))
        if size == 0.0:
            return 0.0
        probes /= size
        logarithm += math.log(size)
    probed = math.exp((logarithm + math.log(10.0 * math.sqrt(2.0 / math.pi))) / PROBE_PASSES)
    return min(exact, probed)


def _error(values: Float, rest: Float, outside: float, count: int) -> float:
    """Return how far below the true ones the first `count` values can be, at most."""
    squares = values**2
    gram = rest.T @ rest  # (l, l), of the rows of S·R
    size = len(values)
    first = [math.sqrt(max(0.0, float(np.linalg.eigvalsh(gram[:j, :j])[-1]))) for j in range(1, size + 1)]
    later = [math.sqrt(max(0.0, float(np.linalg.eigvalsh(gram[j:, j:])[-1]))) if j < size else 0.0
             for j in range(1, size + 1)]  # fmt: skip
    upper = squares[:count] + outside
    for j, (delta, rows) in enumerate(zip(first, later, strict=True), start=1):
        after = float(squares[j]) if j < size else 0.0
        tau = min(after + outside, max(after, outside) + rows)
        own = squares[: min(j, count)]
        gap = own - tau
        bound = np.maximum(own, tau) + delta
        clear = gap > 0
        bound[clear] = own[clear] + 2 * delta**2 / (gap[clear] + np.sqrt(gap[clear] ** 2 + 4 * delta**2))
        upper[: len(own)] = np.minimum(upper[: len(own)], bound)
    return float(np.max(np.sqrt(upper) - values[:count]))
