"""What a rule counts in a scan: the names of modules, tensors or files, and what is known of their cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from s3lora.adapter.inventory.model import Inventory, InventoryFile, InventoryTensor
from s3lora.adapter.model import path_parts
from s3lora.choose.rules import Outlier
from s3lora.choose.select import Filter, Plan, select
from s3lora.compat.results import LoaderVerdict
from s3lora.errors import printable
from s3lora.measure.published import SIGNAL, training_signal
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.spectrum.indices import INDICES


@dataclass(frozen=True, slots=True)
class Asked:
    """What a condition is asked of.

    `plan` was chosen with the filter `only`, None where there was nothing to choose; `outlier` is what counts as one.
    `told` names the conditions that other rules tell of or that are allowed: `unmeasured` leaves these to them.
    `loaders` has what each loader does with the adapter that a rule is about.
    """

    scan: Scan
    plan: Plan | None = None
    only: Filter = field(default_factory=Filter)
    outlier: Outlier = field(default_factory=Outlier)
    told: frozenset[str] = frozenset()
    loaders: tuple[LoaderVerdict, ...] = ()

    @property
    def modules(self) -> list[ModuleScan]:
        """Return the modules that the filter lets pass."""
        return self.only.allowed(self.scan.modules)

    @property
    def inventory(self) -> Inventory:
        """Return what is in the adapter."""
        return self.scan.inventory


#: Formats that `convert` writes a folder of.
WRITTEN = ("peft", "diffusers", "kohya", "mlx")
#: The largest number that a float32 is.
LARGEST = float(np.finfo(np.float32).max)


def selected(asked: Asked) -> tuple[str, ...]:
    """Return the modules that the plan chose."""
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


def no_signal(asked: Asked) -> tuple[str, ...]:
    """Return the one adapter whose updates are as blunt as random ones, nothing where they are sharper."""
    if asked.modules and all(module.zero for module in asked.modules):
        return ("the adapter",)
    signal = training_signal(asked.modules)
    return ("the adapter",) if signal is not None and not signal.found else ()


def why_no_signal(asked: Asked) -> str:
    """Return how far it lies above random updates."""
    signal = training_signal(asked.modules)
    if signal is None:
        return "no module has an update" if no_signal(asked) else ""
    excess = f"its median excess of energy over random updates is {signal.excess:+.4f}"
    return "" if signal.found else f"{excess}, below {SIGNAL}"


def nonfinite(asked: Asked) -> tuple[str, ...]:
    """Return the modules that hold NaN or infinity or overflow, and all other tensors that are not finite.

    A float64 may be finite and too large for a model, which takes it as a float32.
    """
    modules = [module.path for module in asked.modules if module.nonfinite or module.overflows]
    tensors = (one for one in asked.inventory.tensors if one.finite is False and one.role != "factor")
    return tuple(dict.fromkeys((*modules, *(one.name for one in tensors), *_large(asked))))


def why_nonfinite(asked: Asked) -> str:
    """Return how many of them overflow, and how many hold more than a float32 can say."""
    over, large = sum(module.overflows for module in asked.modules), len(_large(asked))
    told = [f"{over} of them {'has' if over == 1 else 'have'} finite factors whose product overflows"] if over else []
    told += [f"{large} of them {'holds' if large == 1 else 'hold'} numbers beyond float32"] if large else []
    return "; ".join(told)


def _large(asked: Asked) -> tuple[str, ...]:
    tensors = asked.inventory.tensors
    return tuple(one.name for one in tensors if one.largest is not None and one.largest > LARGEST)


def _inside(tensor: InventoryTensor) -> bool:
    """Return whether it lies in a numbered layer: who allows a head does not mean the model's inner weights."""
    return tensor.module is not None and path_parts(tensor.module)[0] is not None


#: Name → tensors that a loader applies and of which no index says anything; each can be allowed by itself.
KINDS: Mapping[str, Callable[[InventoryTensor], bool]] = {
    "heads": lambda tensor: tensor.role == "head" and not _inside(tensor),
    "tokens": lambda tensor: tensor.role == "tokens",
    "bias": lambda tensor: tensor.role == "bias",
    "dora": lambda tensor: tensor.rescales,
    "base-weights": lambda tensor: tensor.role == "base weight" or (tensor.role == "head" and _inside(tensor)),
    "unknown": lambda tensor: tensor.role == "unknown",
}
#: What a finding calls them.
TOLD: Mapping[str, str] = {
    "heads": "layers trained in full",
    "tokens": "trained embeddings",
    "bias": "trained biases",
    "dora": "DoRA magnitudes",
    "base-weights": "weights that replace or change the base model's own",
    "unknown": "tensors of no known kind",
}


def of_kinds(asked: Asked, *kinds: str) -> list[InventoryTensor]:
    """Return the tensors of some of `KINDS`."""
    has = [KINDS[kind] for kind in kinds]
    # One without values is none, for no loader applies it.
    return [one for one in asked.inventory.tensors if one.parameters and any(is_kind(one) for is_kind in has)]


def of_kind(name: str, asked: Asked) -> tuple[str, ...]:
    """Return the names of the tensors of one of `KINDS`."""
    return tuple(tensor.name for tensor in of_kinds(asked, name))


def base_weights(asked: Asked) -> tuple[str, ...]:
    """Return the tensors that take the place of base weights, and the configuration where it changes the base model."""
    return (*of_kind("base-weights", asked), *_changed(asked))


def why_base_weights(asked: Asked) -> str:
    """Return what these are."""
    told = [_why_unseen(asked, "base-weights")] if of_kind("base-weights", asked) else []
    return "; ".join((*told, *(f"{one} changes the base model at load" for one in _changed(asked))))


def _changed(asked: Asked) -> tuple[str, ...]:
    changed = asked.inventory.base_changed
    return () if changed is None else (f"{printable(changed, 40)} in adapter_config.json",)


def counted_kind(kind: str) -> Callable[[Asked], tuple[str, ...]]:
    """Return what counts the tensors of one of `KINDS`."""
    return lambda asked: of_kind(kind, asked)


def why_kind(kind: str) -> Callable[[Asked], str]:
    """Return what tells of one of `KINDS`."""
    return lambda asked: _why_unseen(asked, kind)


def _why_unseen(asked: Asked, *kinds: str) -> str:
    """Return what these tensors are, how many numbers they hold, the largest magnitude, and what to do."""
    told = " and ".join(TOLD[kind] for kind in kinds)
    tensors = of_kinds(asked, *kinds)
    largest = max((tensor.largest for tensor in tensors if tensor.largest is not None), default=None)
    size = f"{sum(tensor.parameters for tensor in tensors):,} parameters"
    size += "" if largest is None else f", of a magnitude up to {largest:.4g}"
    options = " and ".join(f"--allow '{kind}: REASON'" for kind in kinds)
    accept = f"accept them by {options} or in a policy, in one adapter alone by a baseline"
    return f"{told} ({size}), which no index has seen; look at them, and {accept}"


def _untold(asked: Asked) -> list[str]:
    """Return the kinds that are there and of which no other rule tells."""
    return [kind for kind in KINDS if kind not in asked.told and of_kind(kind, asked)]


def unmeasured(asked: Asked) -> tuple[str, ...]:
    """Return the tensors of all kinds of which no other rule tells."""
    return tuple(tensor.name for tensor in of_kinds(asked, *_untold(asked)))


def why_unmeasured(asked: Asked) -> str:
    """Return what these are."""
    return _why_unseen(asked, *_untold(asked))


def other_weights(asked: Asked) -> tuple[str, ...]:
    """Return the files with weights of other content, and those that a loader takes and that were not measured."""
    measured = {file.path for file in asked.inventory.files if file.role == "weights"}
    found = [file.path for file in asked.inventory.other_weights]
    for loader in asked.inventory.loaders:
        if not loader.measured:  # of several files it may take some that were measured, or none but them
            found += [file for file in loader.files if file not in measured] or loader.files
    return tuple(dict.fromkeys(found))


def why_other_weights(asked: Asked) -> str:
    """Return which loader takes which."""
    takes: dict[str, list[str]] = {}
    for one in asked.inventory.loaders:
        if one.files and not one.measured:
            takes.setdefault(", ".join(one.files[:3]), []).append(one.loader)
    told = "; ".join(f"{', '.join(loaders)} would take {files}" for files, loaders in takes.items())
    return f"{told or 'these were not measured'}; remove what is not meant, or scan it by its own path"


def code(asked: Asked) -> tuple[str, ...]:
    """Return the files that are code, or make a program run some."""
    return tuple(file.path for file in asked.inventory.code)


def pickles(asked: Asked) -> tuple[str, ...]:
    """Return the pickles that are no weights."""
    return tuple(file.path for file in asked.inventory.pickles)


def why_code(asked: Asked) -> str:
    """Return what would run."""
    return _why_runs(asked, asked.inventory.code)


def why_pickles(asked: Asked) -> str:
    """Return what they name."""
    return _why_runs(asked, asked.inventory.pickles)


def _why_runs(asked: Asked, files: Iterable[InventoryFile]) -> str:
    told = [f"{file.path}: {', '.join(file.runs[:3])}" for file in files if file.runs]
    if (form := asked.scan.source.format) in WRITTEN:
        told = [*told[:3], f"`s3lora convert FOLDER --to {form} -o CLEAN` writes the same updates without them"]
    return "; ".join(told)


def dead(asked: Asked) -> tuple[str, ...]:
    """Return the modules, or tensors, that no loader applies."""
    return asked.inventory.dead


def why_dead(asked: Asked) -> str:
    """Return the causes, with what mends them."""
    return "; ".join(f"{one.cause}; {one.remedy}" for one in asked.inventory.unapplied if one.dead)


def ambiguous(asked: Asked) -> tuple[str, ...]:
    """Return what leaves open what a loader takes."""
    unlisted = asked.inventory.unlisted
    files = (f"{unlisted} more file{'s' if unlisted > 1 else ''}",) if unlisted else ()
    return (*files, *("adapter_config.json" for _ in _not_known(asked)))


def _not_known(asked: Asked) -> list[str]:
    return [f"{one.cause}; {one.remedy}" for one in asked.inventory.unapplied if one.kind == "not known"]


def why_ambiguous(asked: Asked) -> str:
    """Return why it is left open."""
    files = "what lies beyond the bound was not looked at; give the adapter a folder of its own"
    return "; ".join((*((files,) if asked.inventory.unlisted else ()), *_not_known(asked)))
