"""The rows of tier 1: what each makes of an adapter, learned once and given at every strength."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.evaluate.chat import digest_of
from s3lora.repair.methods.gates import GatedUpdates
from s3lora.repair.methods.method import Learned, RepairSubject
from s3lora.repair.methods.prune import PrunedUpdates
from s3lora.repair.methods.registry import METHODS

#: Shares of what was learned at which strengths are looked for, and the one that the endpoint goes by.
LEVELS, MIDDLE = (0.05, 0.10, 0.20), 0.10
MATCHED = "matched"


def quiet(share: float, label: str) -> None:
    """Tell nobody."""


@dataclass
class Shelf:
    """What the rows have learned of one adapter, each once; `costs` is told a row and does the learning."""

    name: str
    subject: RepairSubject
    costs: Callable[[str, Callable[[], Learned]], Learned] = lambda _, learn: learn()
    _learned: dict[str, Learned] = field(default_factory=dict)

    def of(self, row: Row) -> Learned:
        """Return what a row has learned."""
        if row.name not in self._learned:
            self._learned[row.name] = self.costs(row.name, lambda: row.learn(self))
        return self._learned[row.name]


@dataclass(frozen=True)
class Row:
    """One row: how it learns, and the levels at which its strengths are looked for."""

    name: str
    learn: Callable[[Shelf], Learned]
    levels: tuple[float, ...] = LEVELS


def registered(name: str, settings: Mapping[str, Any] | None = None) -> Callable[[Shelf], Learned]:
    """Return how a method of s3lora learns, by its first settings unless others are given."""
    method = METHODS[name]
    how = method.settings[0] if settings is None else settings
    return lambda shelf: method.learn(shelf.subject, how, quiet)


SHRINK = Row("shrink", registered("shrink"))
GATES = Row("gates", registered("gates"))
SSI = Row("ssi", registered("prune", {"index": "ssi"}))


def _permuted(shelf: Shelf) -> GatedUpdates:
    """Return the learned gates, permuted among all directions of one projection."""
    learned = shelf.of(GATES)
    modules = _modules(learned)
    rng = np.random.default_rng(seed_of("permuted", shelf.name))
    gates: dict[str, tuple[float, ...]] = {}
    for projection in sorted({module.projection for module in modules}):
        paths = [module.path for module in modules if module.projection == projection]
        values = rng.permutation(np.concatenate([learned.gates[path] for path in paths]))
        ends = np.cumsum([len(learned.gates[path]) for path in paths])[:-1]
        for path, part in zip(paths, np.split(values, ends), strict=True):
            gates[path] = tuple(map(float, part))
    return GatedUpdates(modules, gates)


def _matched(shelf: Shelf, *, draw: int) -> PrunedUpdates:
    """Return an order that takes of each projection as many modules as SSI does, at every number of them."""
    ranked = shelf.of(SSI).ranked  # type: ignore[attr-defined]
    rng = random.Random(f"{MATCHED}-{draw}-{shelf.name}")
    pools: dict[str, list[LoraModule]] = {}
    for module in ranked:
        pools.setdefault(module.projection, []).append(module)
    drawn = {projection: rng.sample(pools[projection], len(pools[projection])) for projection in sorted(pools)}
    return PrunedUpdates([drawn[module.projection].pop() for module in ranked])


def _modules(learned: Learned) -> Sequence[LoraModule]:
    modules: Sequence[LoraModule] = learned.modules  # type: ignore[attr-defined]
    return modules


def seed_of(*parts: str) -> int:
    """Return a seed that names give."""
    return int(digest_of(list(parts))[:16], 16)


def first_tier(draws: int) -> list[Row]:
    """Return the rows of tier 1; of matched pruning the first draw has all levels, the others the middle one."""
    return [
        SHRINK,
        GATES,
        Row("permuted", _permuted),
        Row("patch", registered("patch")),
        Row("retrain", registered("retrain")),
        SSI,
        *(
            Row(f"{MATCHED}-{draw}", partial(_matched, draw=draw), (MIDDLE,) if draw else LEVELS)
            for draw in range(draws)
        ),
    ]
