"""Experts for targets that stack them: one pair of tensors for each projection of a layer, (E, r, n) and (E, m, r).

Transformers 5 fuses gate and up into one weight, `gate_up_proj`, which these targets keep apart. PEFT has written fused
weights either way round, by its version and by the model: their shapes tell which, beside those of the base.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from s3lora.adapter.factors import Factor
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.new_tensors import NewTensor
from s3lora.adapter.tensor import Array
from s3lora.base.configured import model_of
from s3lora.base.fused import GATE_FIRST
from s3lora.base.model import BaseModule
from s3lora.base.names import ModuleNames
from s3lora.rewrite.convert.rows import some_rows
from s3lora.rewrite.convert.target import NewUpdate, refuse, wide_enough
from s3lora.wording import worded

#: The path of an expert, of whichever tool.
EXPERT = re.compile(r"(?P<head>.+)\.(?:experts|switch_mlp)\.(?P<expert>\d{1,9})\.(?P<name>[^.]+)")
FUSED = "gate_up_proj"
#: The two halves of a fused weight, and Mixtral's old names of projections.
HALVES = ("gate_proj", "up_proj")
MIXTRAL = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_BASE = worded("give {base} the base model's config.json")


def are_fused(adapter: Adapter) -> bool:
    """Return whether experts of a PEFT adapter are updates of fused weights, each stored as one matrix."""
    return adapter.format == "peft" and any(
        module.group is not None and len(module.A.parts[0].tensor.shape) == 2 and EXPERT.fullmatch(module.path)
        for module in adapter.modules
    )


def kept_apart(adapter: Adapter, base: Mapping[str, Any] | None, to: str) -> Adapter:
    """Return the adapter with its fused experts as outputs × inputs, and gate and up as modules of their own.

    Nothing is copied: the new modules are views of the same tensors.

    Parameters:
        adapter: any.
        base: the configuration of the base model, None where it was not given.
        to: the target.

    Raises UnsupportedAdapterError where nothing says which way a weight lies, or which of its rows are which.
    """
    fused = {module.path: match for module in adapter.modules
             if module.group is not None and (match := EXPERT.fullmatch(module.path))}  # fmt: skip
    if not fused:
        return adapter
    known = {} if base is None else model_of(base, "base").modules
    names, reasons = ModuleNames(known), dict[str, str]()
    shapes = {(match["head"], match["name"]): (module.m, module.n) for module in adapter.modules
              if (match := fused.get(module.path))}  # fmt: skip
    made: list[LoraModule] = []
    for module in adapter.modules:
        match = fused.get(module.path)
        if match is None:
            made.append(module)
            continue
        there = known.get(names.find(f"{match['head']}.experts.{match['name']}") or "")
        upright: bool | str = True
        if len(module.A.parts[0].tensor.shape) == 2 and adapter.format == "peft":
            upright = _by_the_other(match, shapes) if base is None else _upright(module, there)
        if match["name"] == FUSED and not isinstance(upright, str):
            kind = None if base is None else base.get("model_type")
            if kind is None:
                upright = "is gate and up in one, and nothing says which rows are which"
            elif kind not in GATE_FIRST:
                upright = f"is gate and up in one, in an order that is not known of {kind}"
        if isinstance(upright, str):
            reasons[module.path] = upright
            continue
        one = module if upright else _turned(module)
        made += _halves(one) if match["name"] == FUSED else [one]
    refuse(to, reasons, _BASE if base is None else None)
    return dataclasses.replace(adapter, modules=tuple(made))


def _upright(module: LoraModule, there: BaseModule | None) -> bool | str:
    """Return whether B·A is outputs × inputs of the base's weight and not the other way round, or why nothing says."""
    if there is None or there.shape is None:
        return "is fused, and the base that was given has no such experts"
    if there.shape not in ((module.m, module.n), (module.n, module.m)):
        rows, columns = there.shape
        return f"is {module.m} × {module.n}, which the base's {rows} × {columns} is not either way"
    if module.m == module.n:
        return "is fused and square, and nothing says which way it lies"
    return there.shape == (module.m, module.n)


def _by_the_other(match: re.Match[str], shapes: Mapping[tuple[str, str], tuple[int, int]]) -> bool | str:
    """Return the same from `down_proj` (h × f) and `gate_up_proj` (2f × h) of one layer: both lie the same way."""
    up, down = (shapes.get((match["head"], name)) for name in (FUSED, "down_proj"))
    if up is not None and down is not None:
        if up == (2 * down[1], down[0]):
            return True
        if up == (down[1], 2 * down[0]):
            return False
    return "is fused, and nothing says which way it lies"


def _turned(module: LoraModule) -> LoraModule:
    """Return the module of the transposed update, Aᵀ·Bᵀ."""
    return dataclasses.replace(module, A=_transposed(module.B), B=_transposed(module.A))


def _transposed(factor: Any) -> Factor:
    assert isinstance(factor, Factor)
    rows, columns = factor.shape
    return Factor(factor.tensor, (columns, rows), lambda stored: factor.view(stored).T, factor.shared)


def _halves(module: LoraModule) -> Iterator[LoraModule]:
    """Yield gate and up: both have the A of the fused weight, and each half the rows of its B."""
    b, size = module.B, module.m // 2
    assert isinstance(b, Factor)
    for i, name in enumerate(HALVES):
        path = f"{module.path.rpartition('.')[0]}.{name}"
        yield dataclasses.replace(module, path=path, B=some_rows(b, i * size, size), projection=name)


def experts_of(base: Mapping[str, Any] | None) -> int | None:
    """Return how many experts a layer of the base has, None where that is not known or not the same of all."""
    if base is None:
        return None
    found = {module.experts for module in model_of(base, "base").modules.values() if module.experts}
    return found.pop() if len(found) == 1 else None


def stacked(updates: Sequence[NewUpdate], to: str, count: int | None) -> dict[str, list[NewUpdate | None]]:
    """Return the experts of each projection, in their order and of one rank, by its path with `experts.` and no number.

    None stands for an expert without an update: only where `count`, how many there are, is known.

    Raises UnsupportedAdapterError where experts are missing, too many, or of several shapes.
    """
    numbered: dict[str, dict[int, NewUpdate]] = defaultdict(dict)
    for update in updates:
        match = EXPERT.fullmatch(update.path)
        assert match is not None
        name = f"{match['head']}.experts.{match['name']}"
        numbered[name][int(match["expert"])] = update
    made: dict[str, list[NewUpdate | None]] = {}
    reasons: dict[str, str] = {}
    for name, found in numbered.items():
        if count is None and sorted(found) != [*range(len(found))]:
            reason = "is one of several experts of which others have no update, and all are stacked"
            reasons.update((update.module.path, reason) for update in found.values())
        elif count is not None and max(found) >= count:
            reasons[found[max(found)].module.path] = f"is no expert of the base, which has {count}"
        if len({(update.module.m, update.module.n) for update in found.values()}) > 1:
            reasons.update((update.module.path, "is of another shape than other experts") for update in found.values())
        rank = max(update.rank for update in found.values())
        members = {number: dataclasses.replace(update, rank=rank) for number, update in found.items()}
        made[name] = [members.get(number) for number in range(len(found) if count is None else count)]
    refuse(to, reasons, _BASE if count is None else None)
    return made


def stack(members: Sequence[NewUpdate | None], a: str, b: str) -> tuple[NewTensor, NewTensor]:
    """Return both factors of all experts of a projection under these names, (E, r, n) and (E, m, r)."""
    there = [update for update in members if update is not None]
    count, first = len(members), there[0]
    m, n, r = first.module.m, first.module.n, first.rank
    dtypes = ["/".join(dict.fromkeys(side)) for side in
              ([update.module.A.dtype for update in there], [update.module.B.dtype for update in there])]  # fmt: skip

    def all_a() -> Array:
        return np.stack([np.zeros((r, n)) if one is None else one.a() for one in members])  # E × (r, n) -> (E, r, n)

    def all_b() -> Array:
        return np.stack([np.zeros((m, r)) if one is None else one.b() for one in members])  # E × (m, r) -> (E, m, r)

    return (
        NewTensor(a, first.dtype or wide_enough(dtypes[0]), (count, r, n), all_a),
        NewTensor(b, first.dtype or wide_enough(dtypes[1]), (count, m, r), all_b),
    )


__all__ = ["EXPERT", "MIXTRAL", "are_fused", "experts_of", "kept_apart", "stack", "stacked"]
