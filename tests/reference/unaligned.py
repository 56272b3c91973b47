"""Slow oracles of the methods that compare with unaligned weights: every matrix is formed, nothing is shared."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def subspace(delta: Float, change: Float, size: int, kappa: float, strength: float) -> Float:
    """Return ΔW(t), with the projections on both sides as m × m and n × n matrices."""
    left, _, right = np.linalg.svd(change)
    return in_subspace(delta, left[:, :size], right[:size].T, kappa, strength)


def in_subspace(delta: Float, P: Float, Q: Float, kappa: float, strength: float) -> Float:
    on_left, on_right = P @ P.T, Q @ Q.T
    off_left, off_right = np.eye(len(P)) - on_left, np.eye(len(Q)) - on_right
    inside = on_left @ delta @ on_right
    half = on_left @ delta @ off_right + off_left @ delta @ on_right
    outside = off_left @ delta @ off_right
    assert np.allclose(inside + half + outside, delta)
    damped = inside + sum((part / (1 + kappa * share(part, delta)) for part in (half, outside)), np.zeros_like(delta))
    return delta - strength * (delta - damped)


def share(part: Float, whole: Float) -> float:
    return float((part**2).sum() / (whole**2).sum())


def alignment(change: Float) -> Float:
    """Return C (m × m)."""
    return change @ change.T / math.sqrt((change**2).sum())


def cosine(first: Float, second: Float) -> float:
    return float(first.ravel() @ second.ravel() / math.sqrt((first**2).sum() * (second**2).sum()))


def safelora(delta: Float, change: Float, strength: float) -> Float:
    return (1 - strength) * delta + strength * alignment(change) @ delta


def distance(delta: Float, change: Float) -> float:
    return math.sqrt(((alignment(change) @ delta - delta) ** 2).sum())


def e_diem(delta: Float, change: Float, seed: int, samples: int) -> float:
    """Return (d − E d)/sd(d), the samples with the singular values of ΔW and random directions on both sides."""
    generator = np.random.default_rng(seed)
    sigma = np.linalg.svd(delta, compute_uv=False)
    found = []
    for _ in range(samples):
        left = np.linalg.qr(generator.normal(size=(len(delta), len(delta))))[0][:, : len(sigma)]
        right = np.linalg.qr(generator.normal(size=(delta.shape[1], delta.shape[1])))[0][:, : len(sigma)]
        found.append(distance(left * sigma @ right.T, change))
    return (distance(delta, change) - float(np.mean(found))) / float(np.std(found, ddof=1))
