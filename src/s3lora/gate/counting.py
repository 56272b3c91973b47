"""What conditions count, and what is known of it: functions of a scan, and of what is in its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from s3lora.adapter.inventory.model import Inventory, InventoryFile, InventoryTensor
from s3lora.choose.rules import Outlier
from s3lora.choose.select import Filter, Plan, select
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.spectrum.indices import INDICES


@dataclass(frozen=True, slots=True)
class Asked:
    """What a condition is asked of.

    `plan` was chosen with the filter `only`, None where there was nothing to choose; `outlier` is what counts as one.
    `told` names the conditions that other rules tell of or that are allowed: `unmeasured` leaves these to them.
    """

    scan: Scan
    plan: Plan | None = None
    only: Filter = field(default_factory=Filter)
    outlier: Outlier = field(default_factory=Outlier)
    told: frozenset[str] = frozenset()

    @property
    def modules(self) -> list[ModuleScan]:
        """Return the modules that the filter lets pass."""
        return self.only.allowed(self.scan.modules)

    @property
    def inventory(self) -> Inventory:
        """Return what is in the adapter."""
        return self.scan.inventory


def selected(asked: Asked) -> tuple[str, ...]:
    """Return the modules that the selection rule chooses."""
    return () if asked.plan is None else asked.plan.paths


def outliers(asked: Asked) -> tuple[str, ...]:
    """Return the modules that are outliers of their projection."""
    if asked.plan is None:
        return ()
    index = asked.plan.index if asked.plan.index in INDICES else "ssi"
    return select(asked.scan, asked.outlier, index=index, only=asked.only).paths


def zero(asked: Asked) -> tuple[str, ...]:
    """Return the modules whose update is zero."""
    return tuple(module.path for module in asked.modules if module.zero)


def nonfinite(asked: Asked) -> tuple[str, ...]:
    """Return the modules without a finite update, and the other tensors that hold NaN or infinity."""
    modules = [module.path for module in asked.modules if module.nonfinite or module.overflows]
    tensors = (one for one in asked.inventory.tensors if one.finite is False and one.role != "factor")
    return (*modules, *(one.name for one in tensors))


def why_nonfinite(asked: Asked) -> str:
    """Return how many modules overflow, for nothing in the file shows it."""
    over = sum(module.overflows for module in asked.modules)
    return f"{over} of them finite factors whose product overflows" if over else ""


#: Name → tensors that a loader applies and of which no index says anything.
KINDS: Mapping[str, Callable[[InventoryTensor], bool]] = {
    "heads": lambda tensor: tensor.role == "head",
    "tokens": lambda tensor: tensor.role == "tokens",
    "bias": lambda tensor: tensor.role == "bias",
    "dora": lambda tensor: tensor.rescales,
    "base-weights": lambda tensor: tensor.role == "base weight",
    "unknown": lambda tensor: tensor.role == "unknown",
}


def of_kind(name: str, asked: Asked) -> tuple[str, ...]:
    """Return the names of the tensors of one of `KINDS`."""
    return tuple(tensor.name for tensor in asked.inventory.tensors if KINDS[name](tensor))


def counted_kind(kind: str) -> Callable[[Asked], tuple[str, ...]]:
    """Return what counts the tensors of one of `KINDS`."""
    return lambda asked: of_kind(kind, asked)


def size_of(kind: str) -> Callable[[Asked], str]:
    """Return what tells the size of the tensors of one of `KINDS`."""
    return lambda asked: _size([tensor for tensor in asked.inventory.tensors if KINDS[kind](tensor)])


def _size(tensors: Sequence[InventoryTensor]) -> str:
    """Return how many numbers tensors hold, and the largest magnitude."""
    largest = max((tensor.largest for tensor in tensors if tensor.largest is not None), default=None)
    told = "" if largest is None else f", of a magnitude up to {largest:.4g}"
    return f"{sum(tensor.parameters for tensor in tensors):,} parameters{told}"


def without_index(asked: Asked) -> list[InventoryTensor]:
    """Return the tensors that a loader applies, that no index has seen, and that no other rule tells of."""
    kinds = [is_kind for name, is_kind in KINDS.items() if name not in asked.told]
    return [tensor for tensor in asked.inventory.tensors if any(is_kind(tensor) for is_kind in kinds)]


def unmeasured(asked: Asked) -> tuple[str, ...]:
    """Return the names of the tensors `without_index`."""
    return tuple(tensor.name for tensor in without_index(asked))


def why_unmeasured(asked: Asked) -> str:
    """Return the size of the tensors `without_index`."""
    return _size(without_index(asked))


def other_weights(asked: Asked) -> tuple[str, ...]:
    """Return the weights files of other content, and what loaders would take instead of what was measured."""
    taken = (file for loader in asked.inventory.loaders if not loader.measured for file in loader.files)
    return tuple(dict.fromkeys((*(file.path for file in asked.inventory.other_weights), *taken)))


def why_other_weights(asked: Asked) -> str:
    """Return which loader would take what."""
    loaders = [one for one in asked.inventory.loaders if one.files and not one.measured]
    return "; ".join(f"{one.loader} would take {', '.join(one.files[:3])}" for one in loaders)


def code(asked: Asked) -> tuple[str, ...]:
    """Return the files that are code, or make a program run some."""
    return tuple(file.path for file in asked.inventory.code)


def pickles(asked: Asked) -> tuple[str, ...]:
    """Return the pickles that were not measured."""
    return tuple(file.path for file in asked.inventory.pickles)


def why_code(asked: Asked) -> str:
    """Return what would be run."""
    return _runs(asked.inventory.code)


def why_pickles(asked: Asked) -> str:
    """Return what the pickles name."""
    return _runs(asked.inventory.pickles)


def _runs(files: Sequence[InventoryFile]) -> str:
    named = [file for file in files if file.runs]
    return "; ".join(f"{file.path}: {', '.join(file.runs[:3])}" for file in named[:3])


def dead(asked: Asked) -> tuple[str, ...]:
    """Return the modules that no loader applies."""
    return asked.inventory.dead


def why_dead(asked: Asked) -> str:
    """Return the causes, and what mends them."""
    return "; ".join(f"{one.cause}; {one.remedy}" for one in asked.inventory.unapplied if one.dead)


def ambiguous(asked: Asked) -> tuple[str, ...]:
    """Return what makes the folder ambiguous."""
    unlisted = asked.inventory.unlisted
    return (f"{unlisted} files beyond those that are listed",) if unlisted else ()
