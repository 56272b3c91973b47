"""Modules → what is ranked, single modules or whole layers, in the order of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from s3lora.adapter.model import block
from s3lora.choose.ranking import Unit
from s3lora.choose.ties import all_sharp, sharpness
from s3lora.measure.scan import ModuleScan, is_flat
from s3lora.spectrum.indices import INDICES

#: Rankings that carry no information: what any index must beat.
CONTROLS = ("random", "random-matched")
UnitKind = Literal["module", "layer"]
Combine = Literal["mean", "max"]


def measured(modules: Sequence[ModuleScan]) -> list[ModuleScan]:
    """Return the modules that have indices: neither zero updates, nor any with NaN or infinity."""
    return [module for module in modules if not (module.zero or module.nonfinite)]


def ranked_units(
    modules: Sequence[ModuleScan], index: str, unit: UnitKind, combine: Combine, seed: int = 0
) -> list[Unit]:
    """Return units of modules that have an index, sharpest first; `seed` is of the controls."""
    # sorted() is stable: ties keep the model's order
    return sorted(_units(modules, index, unit, combine, seed), key=lambda item: -item.sharpness)


def flat_by(ranked: Sequence[Unit], index: str) -> bool:
    """Return whether an index is so alike for all candidates that it does not rank them."""
    values, spec = [item.value for item in ranked], INDICES.get(index)
    return spec is not None and len(values) > 1 and is_flat(values, scale_free=spec.scale_free)


def _units(modules: Sequence[ModuleScan], index: str, unit: UnitKind, combine: Combine, seed: int) -> list[Unit]:
    if unit == "module" and index not in CONTROLS:  # most often, and there may be 100,000
        known = [(module, value) for module in modules if (value := module.indices.get(index)) is not None]
        worth = all_sharp([value for _, value in known], index)
        return [
            Unit(m.path, value, sharp, m.projection, (m.path,), ((*m.shape, m.rank),))
            for (m, value), sharp in zip(known, worth, strict=True)
        ]
    groups: dict[str, list[ModuleScan]] = {}
    for module in modules:
        groups.setdefault(block(module.path) if unit == "layer" else module.path, []).append(module)
    draws = np.random.default_rng(seed).random(len(groups))
    units = []
    for (name, members), draw in zip(groups.items(), draws, strict=True):
        value = float(draw) if index in CONTROLS else _combined(members, index, combine)
        units.append(
            Unit(
                name=name,
                value=value,
                sharpness=value if index in CONTROLS else sharpness(value, index),
                kind="layer" if unit == "layer" else members[0].projection,
                paths=tuple(module.path for module in members),
                shapes=tuple((*module.shape, module.rank) for module in members),
            )
        )
    return units


def _combined(members: Sequence[ModuleScan], index: str, combine: Combine) -> float:
    values = [value for module in members if (value := module.indices.get(index)) is not None]
    if len(values) == 1:  # of most units, and the mean of NumPy is slow for it
        return values[0]
    if combine == "mean":
        return float(np.mean(values))
    return max(values) if INDICES[index].sharp == "high" else min(values)
