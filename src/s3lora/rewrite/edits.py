"""New factors of modules → edits of the tensors that hold them: what pruning and repairing have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from s3lora.adapter import peft_config
from s3lora.adapter.factors import Factor
from s3lora.adapter.loaders import Loader
from s3lora.adapter.model import LoraModule
from s3lora.adapter.safetensors_write import Change, Edit
from s3lora.adapter.tensor import Array
from s3lora.errors import OutputError, UnsupportedAdapterError
from s3lora.rewrite.modes import Mode, Side
from s3lora.rewrite.ranks import stored_shape
from s3lora.wording import worded


@dataclass(frozen=True, slots=True)
class ModuleEdit:
    """What becomes of one module: `make` gives its new (A, B), of which the `sides` are written.

    `bias` is what a trained bias of lora_B is multiplied by, and `rank` the new rank where it is another. `times` is
    what the whole update is multiplied by where that is all that is done: it is how an update is changed that is no
    product of two free factors. `what` says in errors who made the factors.
    """

    what: str
    make: Callable[[], tuple[Array, Array]]
    sides: Sequence[Side] = ("A", "B")
    bias: float = 1.0
    rank: int | None = None
    times: float | None = None


def edits_of(
    modules: Iterable[LoraModule], made: Mapping[str, ModuleEdit], baking: Mapping[str, float]
) -> dict[str, Edit]:
    """Return the edits by the names of tensors.

    Parameters:
        modules: those that are written, as they are in the file.
        made: what becomes of modules, by path; the others stay as they are.
        baking: what lora_B of a module, and its bias, are multiplied by besides, by path.
    """
    changes: dict[str, list[Change]] = defaultdict(list)
    shapes: dict[str, tuple[int, ...]] = {}
    edits: dict[str, Edit] = {}
    for module in modules:
        edit, baked = made.get(module.path), baking.get(module.path, 1.0)
        if edit is not None and edit.times is not None and not module.free:
            part = module.scaled_part
            changes[part.tensor.name].append((part, partial(_multiplied, part, edit.times)))
            continue
        changed: set[Side] = {*(edit.sides if edit else ())} | ({"B"} if baked != 1.0 else set())
        for side in sorted(changed):
            for number, part in enumerate((module.A if side == "A" else module.B).parts):
                changes[part.tensor.name].append((part, partial(_part, module, edit, baked, side, number)))
                if edit is not None and edit.rank is not None:
                    shape = stored_shape(part, _shape(module, side, edit))
                    if shape is not None:
                        shapes[part.tensor.name] = shape
        times = (edit.bias if edit else 1.0) * baked
        if times != 1.0:
            edits.update((name, Edit(scale=times)) for name in biases_of(module))
    return edits | {name: Edit(tuple(parts), shape=shapes.get(name)) for name, parts in changes.items()}


def refuse_fixed(modules: Iterable[LoraModule], mode: Mode) -> None:
    """Raise UnsupportedAdapterError if a mode would change a module that can only be multiplied."""
    if mode.times() is not None:
        return
    for module in modules:
        shared = any(part.shared for part in module.parts)
        if mode.spares(module) or (module.free and not shared):
            continue
        what = f"is {module.form}, and no {module.form} of its sizes is the update that mode {mode.name} makes of it"
        fix = worded("use {remove}, {zero} or {scale}")
        if shared and module.form == "LoRA":
            what = f"shares a factor with other modules, and mode {mode.name} would change it for all of them"
            fix = worded("use {zero} or {scale}")
        raise UnsupportedAdapterError(what, module=module.path, shape=(module.m, module.n), fix=fix)


def _multiplied(part: Factor, times: float) -> Array:
    # Multiplying by 0 would keep the signs of zeros, and NaN.
    return np.zeros(part.shape) if times == 0.0 else part.array().astype(np.float64) * times


def biases_of(module: LoraModule) -> list[str]:
    """Return the names of the trained biases of lora_B."""
    return [name for name in module.extras if ".lora_B." in name and name.endswith("bias")]


def _shape(module: LoraModule, side: Side, edit: ModuleEdit | None) -> tuple[int, int]:
    rank = module.rank if edit is None or edit.rank is None else edit.rank
    return (rank, module.n) if side == "A" else (module.m, rank)


def _part(module: LoraModule, edit: ModuleEdit | None, baked: float, side: Side, number: int) -> Array:
    """Return the new values of one part of a factor. They are made when its tensor is written: one at a time."""
    a, b = (module.A.array(), module.B.array()) if edit is None else edit.make()
    factor, new = (module.A, a) if side == "A" else (module.B, b if baked == 1.0 else b.astype(np.float64) * baked)
    if new.shape != _shape(module, side, edit):
        raise OutputError(
            f"{edit.what if edit else ''} gives {side} another shape", module=module.path, shape=new.shape
        )
    return factor.write_back(new)[number]


def baking_of(modules: Sequence[LoraModule], loader: Loader) -> dict[str, float]:
    """Return what each module's lora_B is multiplied by so that its scaling can be left out."""
    largest = max(module.rank for module in modules)
    by_tensor = loader.divides_by_tensor
    return {module.path: peft_config.baked_factor(module, largest, by_tensor=by_tensor) for module in modules}


def refuse_dora(modules: Iterable[LoraModule], fix: str) -> None:
    """Raise UnsupportedAdapterError if a module has a magnitude vector: it rescales the base whatever the factors."""
    for module in modules:
        if module.dora:
            what = "its DoRA magnitude would still rescale the base weight"
            raise UnsupportedAdapterError(what, module=module.path, shape=(module.m, module.n), fix=fix)
