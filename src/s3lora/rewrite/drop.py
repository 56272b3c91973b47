"""What may leave a file besides modules: heads, biases, trained tokens, and whatever else is no LoRA."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from s3lora.adapter.inventory.model import InventoryTensor, TensorRole
from s3lora.adapter.inventory.tensors import PASSED_OVER, TASK_HEADS, tensors_of
from s3lora.adapter.model import Adapter
from s3lora.errors import UsageError, printable
from s3lora.wording import Worded, worded

#: What may be dropped → the roles of its tensors.
PARTS: dict[str, tuple[TensorRole, ...]] = {
    "heads": ("head",),
    "bias": ("bias",),
    "tokens": ("tokens",),
    "other": ("base weight", "unknown"),
    "all": ("head", "bias", "tokens", "base weight", "unknown"),
}
#: Names that a note tells of many.
TOLD = 8


def dropped_of(adapter: Adapter, parts: Sequence[str]) -> tuple[InventoryTensor, ...]:
    """Return the tensors of an adapter that these parts are, in the order of the file.

    Raises UsageError for a part that is none of `PARTS`.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise UsageError(f"nothing called {printable(unknown[0], 40)} can be dropped", fix=f"give {', '.join(PARTS)}")
    roles = {role for part in parts for role in PARTS[part]}
    return tuple(tensor for tensor in tensors_of(adapter, {}) if tensor.role in roles) if roles else ()


def drop_fix(adapter: Adapter, names: Collection[str]) -> Worded:
    """Return what to give so that these tensors are left out: the parts that they are, or all."""
    roles = {tensor.role for tensor in tensors_of(adapter, {}) if tensor.name in names}
    parts = [part for part, of in PARTS.items() if part != "all" and roles.intersection(of)]
    given = Worded(f"drop={json.dumps(parts)}", " ".join(f"--drop {part}" for part in parts))
    return worded("leave them out: {given}", given=given) if parts else worded("leave them out: {drop_all}")


def without(adapter: Adapter, dropped: Sequence[InventoryTensor]) -> Adapter:
    """Return the adapter as it is once these tensors are gone: modules, other tensors and configuration."""
    names = {tensor.name for tensor in dropped}
    modules = tuple(
        dataclasses.replace(module, extras=tuple(name for name in module.extras if name not in names))
        for module in adapter.modules
    )
    others = tuple(name for name in adapter.other_tensors if name not in names)
    config = adapter.config
    if config is not None and adapter.format == "peft":
        config = _without(config, dropped)
    return dataclasses.replace(adapter, modules=modules, other_tensors=others, config=config)


def _without(config: Mapping[str, Any], dropped: Sequence[InventoryTensor]) -> dict[str, Any]:
    """Return what PEFT loads the rest by: it stops where a part that the configuration promises is missing."""
    result = dict(config)
    roles = {tensor.role for tensor in dropped}
    heads = [tensor.module or "" for tensor in dropped if tensor.role == "head"]
    biases = [".lora_B." in tensor.name for tensor in dropped if tensor.role == "bias"]
    changes = {
        "modules_to_save": (bool(heads), None),
        # PEFT looks for the head of a task whatever `modules_to_save` says.
        "task_type": (any(_is_of_task(path, config) for path in heads), None),
        "trainable_token_indices": ("tokens" in roles, None),
        # It ties copies of what is trained in full.
        "ensure_weight_tying": (bool(heads) or "tokens" in roles, False),
        "lora_bias": (any(biases), False),
        "bias": (not all(biases), "none"),
    }
    result.update({field: value for field, (changed, value) in changes.items() if changed and config.get(field)})
    return result


def _is_of_task(path: str, config: Mapping[str, Any]) -> bool:
    names = TASK_HEADS.get(str(config.get("task_type")), ())
    return any(name in path.split(".") for name in names)


def told(tensors: Sequence[InventoryTensor]) -> str:
    """Return the names of tensors for a sentence."""
    names = ", ".join(printable(tensor.name, 80) for tensor in tensors[:TOLD])
    return f"{names} and {len(tensors) - TOLD} more" if len(tensors) > TOLD else names


def drop_notes(adapter: Adapter, rest: Adapter, parts: Sequence[str]) -> list[str]:
    """Return what a user should know: what could not be dropped, and which weights of the base model come along.

    `rest` is the adapter as it is written, but for its modules.
    """
    notes = [f"--drop {part}: the file holds nothing of it" for part in parts if not dropped_of(adapter, [part])]
    task = (adapter.config or {}).get("task_type")
    if task != (rest.config or {}).get("task_type"):
        notes.append(f"`task_type` {printable(task, 40)} is left out, since PEFT would look for the head of that task")
    left = {*rest.other_tensors, *(name for module in rest.modules for name in module.extras)}
    carried = [tensor for tensor in tensors_of(adapter, {}) if tensor.role == "base weight" and tensor.name in left]
    if carried := [tensor for tensor in carried if tensor.effect != PASSED_OVER]:
        many = "1 tensor takes" if len(carried) == 1 else f"{len(carried)} tensors take"
        notes.append(
            f"{many} the place of weights of the base model, or add to them, and no index has seen them: "
            f"{told(carried)}; --drop other leaves them out"
        )
    return notes
