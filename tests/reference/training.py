"""Slow oracles of what a training is held to: an index of a dense ΔW, and a divergence over a few kept tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.reference import dense

Float = dense.Float


def index(name: str, method: str, matrix: Float, components: int) -> float:
    """Return `ssi`, `weighted_ssi` or `energy` of a dense update."""
    if name == "energy":
        sigma = dense.svd(matrix, components)
        return float(sigma[0] ** 2 / np.sum(sigma**2))
    sigma = (dense.svd if method == "svd" else dense.mas_svd)(matrix, components)
    share = float(sigma[0] / np.sum(sigma))
    return share if name == "ssi" else share * float(sigma[0])


def divergence(before: Float, now: Float, kept: int) -> float:
    """Return KL(before ‖ now) of two lists of logits, the `kept` likeliest tokens apart and all others as one."""
    p, q = (_probabilities(logits.tolist()) for logits in (before, now))
    order = sorted(range(len(p)), key=lambda i: -p[i])[:kept]
    pairs = [(p[i], q[i]) for i in order]
    pairs.append((1 - math.fsum(a for a, _ in pairs), 1 - math.fsum(b for _, b in pairs)))
    return math.fsum(a * math.log(a / b) for a, b in pairs if a > 1e-9)


def _probabilities(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(one - top) for one in logits]
    return [weight / math.fsum(weights) for weight in weights]
