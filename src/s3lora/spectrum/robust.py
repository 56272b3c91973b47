"""Robust rank-one fits of Han, Kim & Jung (arXiv 2402.09754): weighted medians of the entries of ΔW.

Entries are made from the factors one block of rows at a time; no m × n array is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.tall import Float

#: Entries of ΔW made at a time: 8 MB in float64.
ENTRIES = 1 << 20
BINS = 4096
#: Singular values of a root, its rows brought to one length, below this share of the largest are rounding.
RANK = 1e-13


@dataclass(frozen=True, slots=True)
class _Residual:
    """E = tall·wide (p × q): what is left of ΔW, on all or on some of its rows and columns."""

    tall: Float
    wide: Float

    def blocks(self) -> Iterator[tuple[slice, Float]]:
        step = max(1, ENTRIES // self.wide.shape[1])
        for start in range(0, self.tall.shape[0], step):
            rows = slice(start, start + step)
            yield rows, self.tall[rows] @ self.wide

    def without(self, d: float, u: Float, v: Float) -> _Residual:
        """Return E − d·u·vᵀ."""
        return _Residual(np.column_stack((self.tall, -d * u)), np.vstack((self.wide, v)))


def robust_scales(update: FactoredUpdate, left: Float, right: Float, sample: int | None, seed: int) -> Float:
    """Return |d| of M greedy fits that minimise ‖E − d·u·vᵀ‖₁, descending.

    `left` and `right` (k × M) are the directions in the coordinates of Q_B and Q_A. With `sample`, the fit sees at
    most that many seeded random rows and as many columns of ΔW.
    """
    rows, columns = _draw(update.shape, sample, seed)
    tall = np.ldexp(update.B[rows].astype(np.float64), -update.root_b.exponent)
    wide = np.ldexp(update.A[:, columns].astype(np.float64), -update.root_a.exponent)
    lefts = _directions(tall, update.root_b.matrix, left)  # (p, M): rows of U
    rights = _directions(wide.T, update.root_a.matrix, right)  # (q, M): rows of V
    residual = _Residual(tall, wide)
    free_u, free_v = list(range(left.shape[1])), list(range(right.shape[1]))
    found = []
    while free_u and free_v:
        _, d, i, j = min(
            ((*_fit(residual, lefts[:, i], rights[:, j]), i, j) for i in free_u for j in free_v), key=lambda fit: fit[0]
        )
        residual = residual.without(d, lefts[:, i], rights[:, j])
        free_u.remove(i)
        free_v.remove(j)
        found.append(abs(d))
    return update.scaled(np.sort(np.array(found))[::-1])


def _directions(tall: Float, root: Float, coordinates: Float) -> Float:
    """Return `tall`·root⁻ᵀ·coordinates, the directions at these rows; those outside the span of `tall` are zero."""
    # Components of very different size (a gauge) are no loss of rank: bring the rows of the root to one length first.
    lengths = np.linalg.norm(root, axis=1)
    scale = np.where(lengths > 0, lengths, 1.0)
    even = root / scale[:, None]
    inverse = np.linalg.pinv(even, rcond=RANK)
    outside = np.linalg.norm(inverse @ even @ coordinates, axis=0) < 0.5
    return np.where(outside, 0.0, (tall / scale) @ inverse.T @ coordinates)


def _draw(shape: tuple[int, int], sample: int | None, seed: int) -> tuple[Float | slice, Float | slice]:
    random = np.random.default_rng(seed)

    def some(size: int) -> Float | slice:
        if sample is None or sample >= size:
            return slice(None)
        return np.sort(random.choice(size, sample, replace=False))

    return some(shape[0]), some(shape[1])


def _fit(residual: _Residual, u: Float, v: Float) -> tuple[float, float]:
    """Return (‖E − d·u·vᵀ‖₁, d) for the d that minimises it."""
    d = weighted_median(residual, u, v)
    cost = sum(float(np.abs(block - d * np.outer(u[rows], v)).sum()) for rows, block in residual.blocks())
    return cost, d


def weighted_median(residual: _Residual, u: Float, v: Float) -> float:
    """Return the lower weighted median of E_ij / (u_i·v_j) with weights |u_i·v_j|, by narrowing a histogram."""
    low, high, below = _range(residual, u, v)
    half = float(np.abs(u).sum()) * float(np.abs(v).sum()) / 2
    while low < high:
        ratios, weights, count = _between(residual, u, v, low, high)
        if count <= ENTRIES:
            order = np.argsort(ratios, kind="stable")
            reached = np.cumsum(weights[order]) + below
            return float(ratios[order][min(int(np.searchsorted(reached, half)), count - 1)])
        # Halves, because high − low may exceed float64.
        edges = 2 * np.linspace(low / 2, high / 2, BINS + 1)
        edges[0], edges[-1] = low, high
        mass = np.zeros(BINS)
        for values, part in _pieces(residual, u, v, low, high):
            where = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)
            mass += np.bincount(where, part, BINS)
        # Only bins that hold something: rounding in `below` may put the half a hair outside of [low, high].
        held = np.flatnonzero(mass)
        reached = np.cumsum(mass)[held] + below
        chosen = int(held[min(int(np.searchsorted(reached, half)), len(held) - 1)])
        below += float(mass[:chosen].sum())
        if (edges[chosen], edges[chosen + 1]) == (low, high):
            break
        # The bin is half open; the last one is closed. Taking the next float below keeps the bins disjoint.
        low = float(edges[chosen])
        high = float(edges[chosen + 1]) if chosen == BINS - 1 else float(np.nextafter(edges[chosen + 1], -np.inf))
    return low


def _pieces(residual: _Residual, u: Float, v: Float, low: float, high: float) -> Iterator[tuple[Float, Float]]:
    for rows, block in residual.blocks():
        product = np.outer(u[rows], v)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratios = block / product
        keep = np.isfinite(ratios) & (ratios >= low) & (ratios <= high)
        yield ratios[keep], np.abs(product[keep])


def _range(residual: _Residual, u: Float, v: Float) -> tuple[float, float, float]:
    low, high = np.inf, -np.inf
    for ratios, _ in _pieces(residual, u, v, -np.inf, np.inf):
        if ratios.size:
            low, high = min(low, float(ratios.min())), max(high, float(ratios.max()))
    return (0.0, 0.0, 0.0) if low > high else (low, high, 0.0)


def _between(residual: _Residual, u: Float, v: Float, low: float, high: float) -> tuple[Float, Float, int]:
    """Return ratios and weights in [low, high], and how many there are; nothing is kept if they are too many."""
    kept: list[tuple[Float, Float]] = []
    count = 0
    for piece in _pieces(residual, u, v, low, high):
        count += piece[0].size
        kept = [*kept, piece] if count <= ENTRIES else []
    if not kept:
        return np.zeros(0), np.zeros(0), count
    return np.concatenate([r for r, _ in kept]), np.concatenate([w for _, w in kept]), count
