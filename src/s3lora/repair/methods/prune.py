"""Prune: whole modules go, in the order of a spectral index or of a control.

It stands here for comparison: in the reference experiment no spectral ranking did better than as many modules of the
same projections drawn by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.choose.rules import Top
from s3lora.choose.select import select
from s3lora.evaluate.bench import Advance
from s3lora.measure.scan import scan
from s3lora.repair.methods.method import Need, RepairSubject
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NewFactor, NewFactors


@dataclass(frozen=True)
class PrunedUpdates:
    """The first t·N modules of a ranking are zero."""

    ranked: Sequence[LoraModule]
    notes: tuple[str, ...] = ()

    @property
    def gates(self) -> Mapping[str, tuple[float, ...]]:
        """Return none: what goes depends on the strength."""
        return {}

    def at(self, strength: float) -> NewFactors:
        """Return zeros for as many modules as the strength asks for, rounded to whole ones."""
        gone = self.ranked[: round(strength * len(self.ranked))]
        return NewFactors({m.path: NewFactor(m.A.array(), np.zeros_like(m.B.array()), 0.0) for m in gone})


@dataclass(frozen=True)
class Prune:
    """The method of this file; `index` ranks the modules."""

    name: str = "prune"
    about: str = "zeroes whole modules by a spectral ranking, as the paper does; no better than chance where measured"
    needs: frozenset[Need] = frozenset()
    settings: Sequence[Mapping[str, Any]] = ({"index": "ssi"},)

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> PrunedUpdates:
        """Rank the modules; a module without an update comes last."""
        modules = {module.path: module for module in repairable(subject.adapter)}
        measured = scan(subject.adapter)
        plan = select(measured, Top(len(measured.modules)), index=settings.get("index", "ssi"))
        first = dict.fromkeys(path for path in plan.paths if path in modules)
        return PrunedUpdates([modules[path] for path in (*first, *(path for path in modules if path not in first))])
