"""The inner product of two updates, from their factors."""

from __future__ import annotations

from typing import Any

import numpy as np

from s3lora.spectrum.tall import Float

#: Arrays, or whatever has `shape` and `T` and gives an array for a slice of its rows.
Factors = tuple[Any, Any]


def inner_product(first: Factors, second: Factors) -> float:
    """Return ⟨B₁A₁, B₂A₂⟩ = ⟨B₁ᵀB₂, A₁A₂ᵀ⟩, each pair being (A of shape (r, n), B of shape (m, r)).

    Where the ranks are so high that these products would be larger than the updates, the updates are made instead.
    """
    (a, b), (c, d) = first, second
    if a.shape[0] * c.shape[0] > b.shape[0] * a.shape[1]:
        return float(np.sum(_cross(b.T, a) * _cross(d.T, c)))
    return float(np.sum(_cross(first[1], second[1]) * _cross(first[0].T, second[0].T)))


def inner_products(first: Factors, second: Factors) -> Float:
    """Return the inner product of each pair in two stacks, each being (A of shape (k, r, n), B of shape (k, m, r))."""
    (a, b), (c, d) = first, second
    if a.shape[1] * c.shape[1] > b.shape[1] * a.shape[2]:
        return np.array([inner_product((a[i], b[i]), (c[i], d[i])) for i in range(len(a))])
    return np.asarray(np.sum((b.swapaxes(1, 2) @ d) * (a @ c.swapaxes(1, 2)), axis=(1, 2)))


def _cross(first: Any, second: Any) -> Float:
    """Return T₁ᵀT₂ (r₁ × r₂) of two tall factors, block by block."""
    result = np.zeros((first.shape[1], second.shape[1]))
    step = 4096
    for start in range(0, first.shape[0], step):
        rows = slice(start, start + step)
        result += first[rows].astype(np.float64).T @ second[rows].astype(np.float64)
    return result
