"""Patch: a LoRA of small rank is added beside each module, which stays as it is, and taught to refuse again.

s·[B, B_p]·[A; A_p] = ΔW + s·B_p·A_p: concatenated, both are one module of rank r + ρ. `gates+patch` learns gates first,
and the patch on what they leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.model import LoraModule
from s3lora.evaluate.bench import Advance
from s3lora.repair.canonical import canonical, factors_of
from s3lora.repair.kept import Arrays, learned_once
from s3lora.repair.learning import Steps, learn
from s3lora.repair.live import live
from s3lora.repair.methods.gates import learned_gates
from s3lora.repair.methods.method import Need, RepairSubject
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NO_FACTORS, NewFactors, rounded

RANK = 2
STEPS = Steps(steps=40, rate=5e-3, harmful=6, harmless=6, task=2, harmless_weight=2.0, task_weight=2.0)


@dataclass(frozen=True)
class PatchedUpdates:
    """The update, gated or as it is, with a patch: `down` (ρ, n) and `up` (m, ρ) by path, scaled by √t each."""

    modules: Sequence[LoraModule]
    down: Mapping[str, NDArray[np.float32]]
    up: Mapping[str, NDArray[np.float32]]
    gates: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()

    def at(self, strength: float) -> NewFactors:
        """Return the factors at strength t, of rank r + ρ."""
        if not strength:
            return NO_FACTORS
        root = np.sqrt(strength)
        found = {}
        for module in self.modules:
            a, b = self._own(module, strength)
            down, up = self.down[module.path].astype(np.float64), self.up[module.path].astype(np.float64)
            # Of one size, so that rounding takes as little as it can from either.
            size = np.sqrt(np.linalg.norm(up) / np.linalg.norm(down)) if up.any() else 1.0
            # The module multiplies it by its scaling s, as it was while it learned.
            down, up = root * size * down, root / size * up
            found[module.path] = rounded(module, np.vstack((a, down)), np.hstack((b, up)))
        return NewFactors(found)

    def _own(self, module: LoraModule, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if not self.gates:
            return module.A.array().astype(np.float64), module.B.array().astype(np.float64)
        gates = 1.0 - strength * (1.0 - np.asarray(self.gates[module.path]))
        return factors_of(canonical(module), module.scaling.value, gates.tolist(), module.rank)


@dataclass(frozen=True)
class Patch:
    """The method of this file, on the update as it is or, with `gated`, on what gates leave of it."""

    name: str = "patch"
    about: str = "adds a refusal LoRA of rank 2 to the adapter's own modules, which stay as they are"
    needs: frozenset[Need] = frozenset({"model", "prompts"})
    settings: Sequence[Mapping[str, Any]] = ({"harmless_weight": 2.0}, {"harmless_weight": 4.0})
    gated: bool = False

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> PatchedUpdates:
        """Learn the patch by Adam; its up projection begins at 0, so that nothing changes at first."""
        modules = tuple(module for module in repairable(subject.adapter) if module.scaling.value)
        gates = learned_gates(subject, modules, {}, advance) if self.gated else {}
        found = learned_once(subject, self.name, settings, lambda: _learn(subject, modules, gates, settings, advance))
        down = {module.path: found[f"{module.path} down"] for module in modules}
        up = {module.path: found[f"{module.path} up"] for module in modules}
        return PatchedUpdates(modules, down, up, gates)


def _learn(
    subject: RepairSubject,
    modules: Sequence[LoraModule],
    gates: Mapping[str, tuple[float, ...]],
    settings: Mapping[str, Any],
    advance: Advance,
) -> Arrays:
    model, attached, rows = subject.ready
    how = replace(STEPS, **{name: value for name, value in settings.items() if name != "rank"})
    with live(model, attached, modules, patch=int(settings.get("rank", RANK)), seed=subject.seed) as adapter:
        if gates:
            adapter.set_gates(gates)
        leaves = [*adapter.down.values(), *adapter.up.values()]
        learn(model, rows, leaves, how, seed=subject.seed, label="learning a patch", advance=advance)
        parts = (("down", adapter.down), ("up", adapter.up))
        return {f"{path} {side}": one.detach().cpu().numpy() for side, part in parts for path, one in part.items()}
