"""The further rows of tier 2, and how far two halves of the prompts choose the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from experiments.repair.measured import whole
from experiments.repair.rows import GATES, MIDDLE, Row, Shelf, first_tier, quiet, registered
from s3lora.adapter.model import LoraModule
from s3lora.needs import need
from s3lora.repair.alignment import seed_of
from s3lora.repair.attributing import attributed
from s3lora.repair.attribution import attribution_of
from s3lora.repair.canonical import canonical
from s3lora.repair.kept import learned_once
from s3lora.repair.learning import LearningRows, learn
from s3lora.repair.live import live
from s3lora.repair.methods import gates as gates_of_directions
from s3lora.repair.methods.gates import GatedUpdates
from s3lora.repair.methods.method import Learned, RepairSubject
from s3lora.repair.methods.registry import METHODS
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NO_FACTORS, NewFactors, rounded

#: A gate below this counts as chosen.
CHOSEN = 0.5
#: One singular direction: the path of its module, and its number there.
Direction = tuple[str, int]


@dataclass(frozen=True)
class RemovedDirections:
    """The first t·N directions of an order are gone."""

    modules: Sequence[LoraModule]
    ranked: Sequence[Direction]
    notes: tuple[str, ...] = ()
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def at(self, strength: float) -> NewFactors:
        """Return the factors at strength t, rounded to whole directions."""
        gone = set(self.ranked[: round(strength * len(self.ranked))])
        gates = {
            module.path: tuple(float((module.path, k) not in gone) for k in range(_size(module)))
            for module in self.modules
        }
        return GatedUpdates(self.modules, gates).at(1.0)


@dataclass(frozen=True)
class NoisyUpdates:
    """ΔW′ = ΔW + t·E, with Gaussian factors of the rank of the module and ‖E‖ = ‖ΔW‖; rank 2r."""

    modules: Sequence[LoraModule]
    seed: int
    notes: tuple[str, ...] = ()
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def at(self, strength: float) -> NewFactors:
        """Return the factors at strength t."""
        if not strength:
            return NO_FACTORS
        found = {}
        for module in self.modules:
            a, b = _noise(module, self.seed)
            own = (module.A.array().astype(np.float64), module.B.array().astype(np.float64))
            found[module.path] = rounded(module, np.vstack((own[0], a)), np.hstack((own[1], strength * b)))
        return NewFactors(found)


def _noise(module: LoraModule, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return factors A (r, n) and B (m, r) of noise with ‖s·B·A‖ = ‖ΔW‖."""
    rng = np.random.default_rng([*seed_of(seed, module.path), 2])
    a, b = rng.standard_normal((module.rank, module.n)), rng.standard_normal((module.m, module.rank))
    norm = np.sqrt(np.sum((b.T @ b) * (a @ a.T)))
    size = np.linalg.norm(canonical(module).sigma) / (abs(module.scaling.value) * norm)
    return a * np.sqrt(size), b * np.sqrt(size)


def _size(module: LoraModule) -> int:
    return min(module.rank, module.m, module.n)


def _with_noise(shelf: Shelf) -> NoisyUpdates:
    modules = [module for module in repairable(shelf.subject.adapter) if module.scaling.value]
    return NoisyUpdates(modules, shelf.subject.seed)


def _swapped(shelf: Shelf) -> Learned:
    """Learn gates with harmless prompts, and the base's own answers to them, in the place of the refusals."""
    rows = shelf.subject.ready[2]
    swapped = replace(shelf.subject, rows=replace(rows, refusals=rows.harmless))
    return METHODS["gates"].learn(swapped, METHODS["gates"].settings[0], quiet)


def module_gates(subject: RepairSubject) -> GatedUpdates:
    """Learn one gate a module, as those of directions are learned."""
    model, attached, rows = subject.ready
    modules = repairable(subject.adapter)
    settings = METHODS["gates"].settings[0]
    how = replace(gates_of_directions.STEPS, **settings)

    def run() -> dict[str, NDArray[np.float32]]:
        torch = need("torch")
        with live(model, attached, modules) as adapter:
            leaves = {
                path: torch.ones(1, device=gate.device, requires_grad=True) for path, gate in adapter.gates.items()
            }
            for path, leaf in leaves.items():
                adapter.gates[path] = leaf.expand(len(adapter.gates[path]))

            def project() -> None:
                for leaf in leaves.values():
                    leaf.data.clamp_(0.0, 1.0)

            learn(
                model,
                rows,
                list(leaves.values()),
                how,
                seed=subject.seed,
                label="learning gates on modules",
                advance=quiet,
                after=project,
            )
            return {path: leaf.detach().cpu().numpy() for path, leaf in leaves.items()}

    found = learned_once(subject, "gates on modules", settings, run)
    return GatedUpdates(modules, {module.path: (float(found[module.path][0]),) * _size(module) for module in modules})


def removed_directions(subject: RepairSubject) -> RemovedDirections:
    """Order directions by the share of what was lost that they carry, less that of what was learned."""
    modules = repairable(subject.adapter)
    found = attribution_of(modules, *attributed(subject, quiet))
    worth = {
        (one.path, k): lost - learned
        for one in found.modules
        for k, (lost, learned) in enumerate(zip(one.lost_by_direction, one.learned_by_direction, strict=True))
    }
    return RemovedDirections(modules, sorted(worth, key=lambda direction: -worth[direction]))


GATES_ON_MODULES = Row("gates on modules", lambda shelf: module_gates(shelf.subject), (MIDDLE,))
ATTRIBUTED = Row("attributed gates", lambda shelf: removed_directions(shelf.subject), (MIDDLE,))
#: The rows that tier 2 has beside those of tier 1.
MORE = (
    GATES_ON_MODULES,
    ATTRIBUTED,
    Row("swapped prompts", _swapped, (MIDDLE,)),
    Row("noise", _with_noise, (MIDDLE,)),
    *(Row(index, registered("prune", {"index": index}), (MIDDLE,)) for index in ("weighted_ssi", "magnitude")),
    *(Row(name, registered(name), (MIDDLE,)) for name in ("safelora", "splora", "subspace", "random-subspace")),
)


def second_tier() -> list[Row]:
    """Return all rows of tier 2; of matched pruning the first draw stands for all."""
    return [*(replace(row, levels=(MIDDLE,)) for row in first_tier(1)), *MORE]


def overlap(shelf: Shelf, row: Row, strength: float) -> dict[str, float | int | None] | None:
    """Return the IoU of what two halves of the learning prompts choose, and how much; None for rows that do not choose.

    Parameters:
        shelf: of the adapter.
        row: gates of directions or modules, where a gate below `CHOSEN` is chosen, or attributed ones.
        strength: of the attributed ones: so many directions are taken.
    """
    choose = {GATES.name: _gated, GATES_ON_MODULES.name: _gated_modules, ATTRIBUTED.name: _first}.get(row.name)
    if choose is None:
        return None
    one, two = (choose(replace(shelf.subject, rows=half), strength) for half in halves(shelf.subject.ready[2]))
    both, any_ = len(one & two), len(one | two)
    return {"value": round(both / any_, 4) if any_ else None, "first": len(one), "second": len(two), "n": any_}


def halves(rows: LearningRows) -> tuple[LearningRows, LearningRows]:
    """Return every second row of each kind, and the others."""
    one, two = (
        LearningRows(
            rows.refusals[i::2],
            rows.harmless[i::2],
            rows.task[i::2],
            rows.harmless_anchors[i::2],
            rows.task_anchors[i::2],
        )
        for i in (0, 1)
    )
    return one, two


def _gated(subject: RepairSubject, _: float) -> set[Direction]:
    learned = METHODS["gates"].learn(subject, METHODS["gates"].settings[0], quiet)
    return {(path, k) for path, gates in learned.gates.items() for k, gate in enumerate(gates) if gate < CHOSEN}


def _gated_modules(subject: RepairSubject, _: float) -> set[Direction]:
    return {(path, 0) for path, gates in module_gates(subject).gates.items() if gates[0] < CHOSEN}


def _first(subject: RepairSubject, strength: float) -> set[Direction]:
    ranked = removed_directions(subject).ranked
    return set(ranked[: round(whole(strength, len(ranked)) * len(ranked))])
