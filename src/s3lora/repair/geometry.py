"""How far a repair moves the update: its norm over what it was, and the angle between both, over all modules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.adapter.tensor import Array
from s3lora.rewrite.factors import NewFactors


class Moved(NamedTuple):
    """‖ΔW′‖ / ‖ΔW‖ and cos(ΔW′, ΔW), Frobenius, all modules as one vector; None where a norm is zero."""

    norm_ratio: float | None
    cosine: float | None


def moved(modules: Iterable[LoraModule], factors: NewFactors) -> Moved:
    """Compare the update with new factors to what it was, from the factors alone."""
    before = after = both = 0.0
    for module in modules:
        a, b = module.A.array().astype(np.float64), module.B.array().astype(np.float64)
        square = module.scaling.value**2
        before += square * _inner(a, b, a, b)
        new = factors.modules.get(module.path)
        new_a, new_b = (a, b) if new is None else (new.A.astype(np.float64), new.B.astype(np.float64))
        after += square * _inner(new_a, new_b, new_a, new_b)
        both += square * _inner(a, b, new_a, new_b)
    ratio = math.sqrt(after / before) if before > 0 else None
    return Moved(ratio, both / math.sqrt(before * after) if before > 0 and after > 0 else None)


def _inner(a: Array, b: Array, other_a: Array, other_b: Array) -> float:
    """Return ⟨B·A, B′·A′⟩ = Σ (BᵀB′ ∘ A·A′ᵀ) without forming either."""
    return float(np.sum((b.T @ other_b) * (a @ other_a.T)))
