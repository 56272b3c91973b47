"""Shrink: all of the update becomes smaller by one factor. It needs the adapter alone, and is the control of others.

Farn et al. 2024 (arXiv 2412.19512) publish it as a repair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.evaluate.bench import Advance
from s3lora.repair.methods.method import NO_SETTINGS, Need, RepairSubject
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NO_FACTORS, NewFactors, rounded


@dataclass(frozen=True)
class ShrunkUpdates:
    """ΔW′ = (1 − t)·ΔW of every module, with A as it is."""

    modules: Sequence[LoraModule]
    gates: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()

    def at(self, strength: float) -> NewFactors:
        """Return the factors at strength t; at 1 nothing is left of the update."""
        if not strength:
            return NO_FACTORS
        left = 1.0 - strength
        return NewFactors(
            {m.path: rounded(m, m.A.array(), m.B.array().astype(np.float64) * left, left) for m in self.modules}
        )


@dataclass(frozen=True)
class Shrink:
    """The method of this file."""

    name: str = "shrink"
    about: str = "multiplies all of the update by one factor; the control of all others"
    needs: frozenset[Need] = frozenset()
    settings: Sequence[Mapping[str, Any]] = NO_SETTINGS

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> ShrunkUpdates:
        """Return the update at every strength; nothing is learned."""
        modules = repairable(subject.adapter)
        return ShrunkUpdates(modules, {module.path: (0.0,) * _size(module) for module in modules})


def _size(module: LoraModule) -> int:
    return min(module.rank, module.m, module.n)
