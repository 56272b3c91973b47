"""Retrain: the adapter's own factors are trained on, on the prompts that the other methods learn from.

It is the competitor on equal data: where it restores refusals, harmless prompts tend to be refused as well.
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
from s3lora.repair.methods.method import Need, RepairSubject
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NO_FACTORS, NewFactors, rounded

STEPS = Steps(steps=30, rate=1e-3, harmful=6, harmless=6, task=2, harmless_weight=2.0, task_weight=2.0)


@dataclass(frozen=True)
class RetrainedUpdates:
    """Factors on the straight line from B = U√Σ, A = √ΣVᵀ to those trained from there; the rank stays."""

    modules: Sequence[LoraModule]
    a: Mapping[str, NDArray[np.float32]]
    b: Mapping[str, NDArray[np.float32]]
    notes: tuple[str, ...] = ()

    @property
    def gates(self) -> Mapping[str, tuple[float, ...]]:
        """Return none."""
        return {}

    def at(self, strength: float) -> NewFactors:
        """Return the factors at strength t."""
        if not strength:
            return NO_FACTORS
        found = {}
        for module in self.modules:
            a, b = factors_of(canonical(module), module.scaling.value)
            a, b = (
                one + strength * (new.astype(np.float64) - one)
                for one, new in ((a, self.a[module.path]), (b, self.b[module.path]))
            )
            more = module.rank - len(a)
            found[module.path] = rounded(module, np.pad(a, ((0, more), (0, 0))), np.pad(b, ((0, 0), (0, more))))
        return NewFactors(found)


@dataclass(frozen=True)
class Retrain:
    """The method of this file."""

    name: str = "retrain"
    about: str = "trains the adapter's own factors on; the competitor on equal data"
    needs: frozenset[Need] = frozenset({"model", "prompts"})
    settings: Sequence[Mapping[str, Any]] = ({"harmless_weight": 2.0},)

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> RetrainedUpdates:
        """Train by Adam."""
        modules = repairable(subject.adapter)
        found = learned_once(subject, "retrain", settings, lambda: _learn(subject, modules, settings, advance))
        a = {module.path: found[f"{module.path} A"] for module in modules}
        return RetrainedUpdates(modules, a, {module.path: found[f"{module.path} B"] for module in modules})


def _learn(
    subject: RepairSubject, modules: Sequence[LoraModule], settings: Mapping[str, Any], advance: Advance
) -> Arrays:
    model, attached, rows = subject.ready
    with live(model, attached, modules) as adapter:
        layers = {path: model.adapters.layer(path) for path in adapter.gates}
        pairs = {
            path: (one.lora_A[attached.key].weight, one.lora_B[attached.key].weight) for path, one in layers.items()
        }
        leaves = [weight for pair in pairs.values() for weight in pair]
        before = [(weight, weight.data) for weight in leaves]
        for weight in leaves:
            weight.data = weight.data.clone()
            weight.requires_grad_(True)
        try:
            how = replace(STEPS, **settings)
            learn(model, rows, leaves, how, seed=subject.seed, label="training the adapter on", advance=advance)
            return {
                f"{path} {side}": weight.detach().cpu().float().numpy().copy()
                for path, pair in pairs.items()
                for side, weight in zip("AB", pair, strict=True)
            }
        finally:
            for weight, values in before:
                weight.requires_grad_(False)
                weight.grad = None
                weight.data = values
