"""Safe LoRA (Hsu et al. 2024, arXiv 2405.16833) as published, from the factors alone.

With V = W_aligned − W_unaligned and C = V·Vᵀ/‖V‖_F (equation 1), B ← C·B in modules where cos(C·ΔW, ΔW) ≤ τ, or in the
k modules where it is lowest.

Its fault: C is no projector, for which V·(VᵀV)⁻¹·Vᵀ would be needed. Its eigenvalues are τ_i²/‖V‖_F, with the singular
values τ_i of V, so it turns an update towards the few leading directions and, as weights differ by little, shrinks it
almost to nothing; where V is large, it makes the update larger. How much is left of it is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.evaluate.bench import Advance
from s3lora.repair.alignment import AlignmentChange, changes
from s3lora.repair.canonical import canonical
from s3lora.repair.methods.method import Need, RepairSubject
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NO_FACTORS, NewFactors, rounded
from s3lora.spectrum.tall import Float

#: τ: what the paper uses, and a wider choice.
THRESHOLDS = (0.35, 0.5)


@dataclass(frozen=True)
class ProjectedModule:
    """C·B (m, r) of one module, cos(C·ΔW, ΔW) in [0, 1], and ‖C·ΔW‖/‖ΔW‖."""

    module: LoraModule
    projected: Float
    cosine: float
    length: float


@dataclass(frozen=True)
class SafeLoraLearned:
    """The modules that are replaced."""

    modules: Sequence[ProjectedModule]
    notes: Sequence[str]
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def at(self, strength: float) -> NewFactors:
        """Return (1 − t)·B + t·C·B beside the A of the file, so ΔW(t) = (1 − t)·ΔW + t·C·ΔW; none at strength 0."""
        if not strength:
            return NO_FACTORS
        found = {}
        for one in self.modules:
            b = (1 - strength) * one.module.B.array().astype(np.float64) + strength * one.projected
            found[one.module.path] = rounded(one.module, one.module.A.array(), b)
        return NewFactors(found)


@dataclass(frozen=True)
class SafeLoraMethod:
    """Safe LoRA; its settings are `threshold`, τ in [0, 1], or `lowest`, the number of modules."""

    name: str = "safelora"
    about: str = "Safe LoRA as published: B ← V·Vᵀ·B/‖V‖, no projection, where it turns an update most"
    needs: frozenset[Need] = frozenset(("unaligned",))
    settings: Sequence[Mapping[str, Any]] = tuple({"threshold": threshold} for threshold in THRESHOLDS)

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> SafeLoraLearned:
        """Choose the modules; raises what `changes` raises."""
        found = []
        for module, change in changes(subject.base, subject.unaligned, repairable(subject.adapter), advance):
            one = project(module, change)
            if one is not None:
                found.append(one)
        if "lowest" in settings:
            chosen = sorted(found, key=lambda one: one.cosine)[: int(settings["lowest"])]
        else:
            chosen = [one for one in found if one.cosine <= settings.get("threshold", THRESHOLDS[0])]
        return SafeLoraLearned(tuple(chosen), (_told(chosen, found),))


def project(module: LoraModule, change: AlignmentChange) -> ProjectedModule | None:
    """Return what C makes of a module; None for an update that is zero."""
    u, sigma, _ = canonical(module)
    if not sigma.any():
        return None
    # C·U·Σ tells as much of C·ΔW as C·ΔW does, for the rows of Vᵀ of ΔW are orthonormal; B is C·B's own.
    both = change.projected(np.hstack([u * sigma, module.B.array().astype(np.float64)]))
    turned, projected = both[:, : len(sigma)], both[:, len(sigma) :]
    length, whole = float(np.linalg.norm(turned)), float(np.linalg.norm(sigma))
    cosine = float(np.sum(turned * u * sigma)) / (length * whole) if length else 0.0
    return ProjectedModule(module, projected, cosine, length / whole)


def _told(chosen: Sequence[ProjectedModule], found: Sequence[ProjectedModule]) -> str:
    if not found:
        return "no module has an update that could be projected"
    cosines = f"cosines {min(one.cosine for one in found):.2f} to {max(one.cosine for one in found):.2f}"
    if not chosen:
        return f"no module is below the threshold ({cosines}), so Safe LoRA changes nothing"
    left = float(np.median([one.length for one in chosen]))
    return (
        f"Safe LoRA replaces {len(chosen)} of {len(found)} modules ({cosines}); its C is no projector: it multiplies "
        f"the norm of an update by {left:.2g} (median)"
    )


SAFELORA = SafeLoraMethod()

__all__ = ["SAFELORA", "ProjectedModule", "SafeLoraMethod", "project"]
