"""Gates: each singular direction of the update is multiplied by a number in [0, 1] that a few prompts teach.

ΔW(g) = Σ_k g_k·σ_k·u_k·v_kᵀ. The directions stay as they are; only how much of each is kept is learned.
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
from s3lora.repair.kept import learned_once
from s3lora.repair.learning import Steps, learn
from s3lora.repair.live import live
from s3lora.repair.methods.method import Need, RepairSubject
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NO_FACTORS, NewFactors, rounded

STEPS = Steps(steps=30, rate=0.1, harmful=6, harmless=4, task=2, harmless_weight=1.0, task_weight=2.0)


@dataclass(frozen=True)
class GatedUpdates:
    """ΔW′ = U·diag((1 − t·(1 − g))·σ)·Vᵀ of every module that a gate below 1 stands at."""

    modules: Sequence[LoraModule]
    gates: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()

    def at(self, strength: float) -> NewFactors:
        """Return the factors at strength t, one module at a time in memory besides the results."""
        if not strength:
            return NO_FACTORS
        found = {}
        for module in self.modules:
            gates = 1.0 - strength * (1.0 - np.asarray(self.gates[module.path]))
            if (gates < 1.0).any():
                a, b = factors_of(canonical(module), module.scaling.value, gates.tolist(), module.rank)
                found[module.path] = rounded(module, a, b)
        return NewFactors(found)


@dataclass(frozen=True)
class Gates:
    """The method of this file."""

    name: str = "gates"
    about: str = "learns from a few prompts how much of each singular direction stays"
    needs: frozenset[Need] = frozenset({"model", "prompts"})
    settings: Sequence[Mapping[str, Any]] = ({"task_weight": 2.0}, {"task_weight": 1.0})

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> GatedUpdates:
        """Learn the gates by projected Adam, all beginning at 1."""
        modules = repairable(subject.adapter)
        return GatedUpdates(modules, learned_gates(subject, modules, settings, advance))


def learned_gates(
    subject: RepairSubject, modules: Sequence[LoraModule], settings: Mapping[str, Any], advance: Advance
) -> dict[str, tuple[float, ...]]:
    """Return the gates of each module's directions, in [0, 1]; a field of `Steps` may be among the settings."""
    model, attached, rows = subject.ready
    how = replace(STEPS, **settings)

    def run() -> dict[str, NDArray[np.float32]]:
        with live(model, attached, modules) as adapter:
            leaves = list(adapter.gates.values())

            def project() -> None:
                for leaf in leaves:
                    leaf.data.clamp_(0.0, 1.0)

            label = "learning gates"
            learn(model, rows, leaves, how, seed=subject.seed, label=label, advance=advance, after=project)
            return {path: np.asarray(gate, dtype=np.float32) for path, gate in adapter.gate_values().items()}

    found = learned_once(subject, "gates", settings, run)
    return {path: tuple(map(float, gate)) for path, gate in found.items()}
