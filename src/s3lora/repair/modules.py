"""Which modules of an adapter a repair may change, and which adapters it must leave alone."""

from __future__ import annotations

import numpy as np

from s3lora.adapter import peft_config
from s3lora.adapter.model import Adapter, Factor, LoraModule
from s3lora.errors import NonFiniteError, UnsupportedAdapterError


def repairable(adapter: Adapter) -> tuple[LoraModule, ...]:
    """Return the modules that stand for one linear layer each, in the order of the adapter.

    Raises UnsupportedAdapterError where the base decides on ΔW (DoRA, PiSSA and its kin), or no such module is there.
    """
    peft_config.refuse_changed_base(adapter)
    dora = next((module for module in adapter.modules if module.dora), None)
    if dora is not None:
        raise UnsupportedAdapterError(
            "DoRA: the update depends on the base weight, so no part of it can be given back alone",
            file=adapter.name,
            module=dora.path,
            shape=(dora.m, dora.n),
            fix="merge it, or train it again without use_dora",
        )
    found = tuple(module for module in adapter.modules if _plain(module))
    if not found:
        raise UnsupportedAdapterError("holds no update of a linear layer that can be repaired", file=adapter.name)
    return found


def refuse_non_finite(adapter: Adapter) -> None:
    """Raise NonFiniteError for NaN or infinity in any factor: no answer of such a model means anything."""
    for module in adapter.modules:
        if not all(np.isfinite(part.array().astype(np.float64)).all() for part in module.parts):
            fix = "train it again, or take an earlier checkpoint"
            raise NonFiniteError("holds NaN or infinity", module=module.path, shape=(module.m, module.n), fix=fix)


def left_alone(adapter: Adapter) -> tuple[str, ...]:
    """Return what a user must know of the parts of an adapter that no repair changes."""
    plain = {module.path for module in adapter.modules if _plain(module)}
    others = [module for module in adapter.modules if module.path not in plain]
    notes = []
    if others:
        kinds = ", ".join(sorted({_what(module) for module in others}))
        notes.append(
            f"{len(others)} of {len(adapter.modules)} modules stay as they are, as no LoRA of a linear layer: {kinds}"
        )
    own = {name for module in adapter.modules for name in module.extras}
    if more := len(set(adapter.other_tensors) - own):
        tensors = "1 tensor" if more == 1 else f"{more} tensors"
        notes.append(f"{tensors} besides the LoRA modules, such as heads, stay as they are: no repair reaches them")
    return tuple(notes)


def _what(module: LoraModule) -> str:
    if module.group:
        return "fused experts"
    return module.kind if module.form == "LoRA" else module.form


def _plain(module: LoraModule) -> bool:
    factors = (module.A, module.B)
    return module.kind == "linear" and module.group is None and all(isinstance(one, Factor) for one in factors)
