"""How two updates of one module lie to each other: distance and cosine, from the factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.measure.updates import products_of
from s3lora.spectrum.difference import Factors, inner_product
from s3lora.spectrum.nearest import distance
from s3lora.spectrum.tall import BLOCK

__all__ = ["DistanceAndCosine", "related"]

#: A distance below which it is computed anew, from the difference itself, and one that is none.
NEAR, ROUNDING = 1e-6, 1e-14
#: (distance, cosine) of two updates, each None where it is undefined.
DistanceAndCosine = tuple[float | None, float | None]


def related(a: LoraModule, b: LoraModule, norm_a: float, norm_b: float) -> DistanceAndCosine:
    """Return the distance of b from a relative to ‖ΔW_a‖_F, and the cosine between them; the norms are known.

    Both modules are of one shape.
    """
    if norm_a == 0.0:
        return None, None
    if norm_b == 0.0:
        return 1.0, None
    if a.scaling.value == b.scaling.value and _same(a, b):
        return 0.0, 1.0
    first, second = products_of(a, b)
    # Each factor by itself: the product of the norms could underflow.
    unit_a, unit_b = a.scaling.value / norm_a, b.scaling.value / norm_b
    inner = _inner(first, second) * unit_a * unit_b
    # ‖b − a‖² = ‖a‖² + ‖b‖² − 2⟨a, b⟩, relative to ‖a‖². All three by one computation, whose rounding cancels where the
    # updates are nearly the same; good to some 1e-8.
    own_a = _inner(first, first) * unit_a * unit_a
    own_b = _inner(second, second) * unit_b * unit_b
    ratio = norm_b / norm_a
    apart = math.sqrt(max(0.0, own_a + ratio**2 * own_b - 2 * ratio * inner))
    if apart < NEAR and len(first) == 1:
        (a_1, b_1), (a_2, b_2) = ((one[:], other[:].astype(np.float64)) for one, other in (first[0], second[0]))
        apart = distance((a_1, b_1 * unit_a), (a_2, b_2 * (b.scaling.value / norm_a)))
        apart = 0.0 if apart < ROUNDING else apart
    return apart, max(-1.0, min(1.0, inner))


def _inner(first: Sequence[Factors], second: Sequence[Factors]) -> float:
    """Return ⟨ΔW₁, ΔW₂⟩ without the scalings: of Kronecker products, the product of what their parts have."""
    return math.prod(inner_product(one, other) for one, other in zip(first, second, strict=True))


def _same(a: LoraModule, b: LoraModule) -> bool:
    """Return whether two modules are made of the same numbers in the same way."""
    if (a.form, a.pieces, len(a.parts)) != (b.form, b.pieces, len(b.parts)):
        return False
    sides = ((a.A, b.A, True), (a.B, b.B, False))
    pairs = (
        (one.matrix(), other.matrix(), flat)
        for x, y, flat in sides
        for one, other in zip(x.parts, y.parts, strict=len(x.parts) == len(y.parts))
    )
    return all(_equal(one.T, other.T) if flat else _equal(one, other) for one, other, flat in pairs)


def _equal(first: Any, second: Any) -> bool:
    """Return whether two tall factors are the same; of long ones, some rows are read at a time."""
    if first.shape != second.shape:
        return False
    step = max(1, BLOCK // max(1, first.shape[1]))
    return all(np.array_equal(first[i : i + step], second[i : i + step]) for i in range(0, first.shape[0], step))
