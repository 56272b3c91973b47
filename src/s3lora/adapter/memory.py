"""A PEFT model in memory → Adapter, by duck typing: torch is not imported, the caller has it or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from s3lora.adapter.factors import AnyFactor
from s3lora.adapter.formats.adalora import EPSILON, with_values
from s3lora.adapter.formats.wrappers import PREFIX
from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.model import Adapter, Factor, Form, LoraModule, Scaling, natural_key, path_parts
from s3lora.adapter.tensor import Array, ArrayTensor
from s3lora.errors import NothingToAuditError, UnsupportedAdapterError, UsageError


def from_model(model: Any, adapter_name: str | None = None) -> Adapter:
    """Return the LoRA adapter that is loaded in a PEFT model.

    Parameters:
        model: anything with `named_modules()` whose LoRA layers have `lora_A`, `lora_B` and `scaling` by adapter
            name, as PEFT's do.
        adapter_name: which adapter; by default the only one, or the active one.

    Raises UsageError if `model` is no such thing or has no adapter of that name, NothingToAuditError without LoRA
    layers.
    """
    chosen, layers = lora_layers(model, adapter_name)
    modules = [module for name, layer in layers if (module := _module(name, layer, chosen)) is not None]
    modules.sort(key=lambda module: natural_key(module.path))
    return Adapter(name=chosen, format="memory", modules=tuple(modules), take_inventory=inventory_of)


def lora_layers(model: Any, adapter_name: str | None = None) -> tuple[str, list[tuple[str, Any]]]:
    """Return PEFT's name of an adapter, and all LoRA layers with their names; raises as `from_model`."""
    if not callable(getattr(model, "named_modules", None)):
        raise UsageError(f"cannot scan a {type(model).__name__}", fix="give a path, an opened adapter or a PEFT model")
    layers = [(name, layer) for name, layer in model.named_modules() if _is_lora(layer)]
    if not layers:
        raise NothingToAuditError("the model holds no LoRA layer")
    names = sorted(
        {key for _, layer in layers for role in ("lora_A", "lora_embedding_A") for key in _keys(layer, role)}
    )
    chosen = adapter_name or _active(model, names)
    if chosen not in names:
        raise UsageError(f"no adapter named {chosen!r} in the model", fix=f"there are: {', '.join(names)}")
    return chosen, layers


def factor_tensors(name: str, layer: Any, adapter: str) -> tuple[str, Any, Any] | None:
    """Return the path of a layer, and the tensors A and B that an adapter has there, as they are; None without."""
    path = name.removeprefix(PREFIX)
    if type(layer).__name__ == "ParamWrapper":
        raise UnsupportedAdapterError(
            "fused experts cannot be scanned in memory", module=path, fix="save the adapter and scan the folder"
        )
    if adapter in _keys(layer, "lora_embedding_A"):
        return path, layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    if adapter in _keys(layer, "lora_A"):
        a, b = (getattr(half[adapter], "weight", half[adapter]) for half in (layer.lora_A, layer.lora_B))
        return path, a, b
    return None


def _is_lora(layer: Any) -> bool:
    return all(hasattr(layer, name) for name in ("lora_A", "lora_B", "scaling"))


def _keys(layer: Any, role: str) -> list[str]:
    return list(getattr(layer, role, {}).keys())


def _active(model: Any, names: list[str]) -> str:
    active = getattr(model, "active_adapter", None)
    if callable(active):
        active = active()
    return active if isinstance(active, str) and active in names else names[0]


def _module(name: str, layer: Any, adapter: str) -> LoraModule | None:
    found = factor_tensors(name, layer, adapter)
    if found is None:
        return None
    path, a, b = found
    embedding = adapter in _keys(layer, "lora_embedding_A")
    stored = _factor(f"{path}.lora_A", a), _factor(f"{path}.lora_B", b)
    first: AnyFactor
    second: AnyFactor
    first, second = stored
    scaling, form = float(layer.scaling[adapter]), _form(layer, adapter, path)
    if form == "AdaLoRA":
        values = ArrayTensor(f"{path}.lora_E", _numpy(layer.lora_E[adapter]))
        first, second = with_values(path, *stored, values, "the model")
        scaling /= float(layer.ranknum[adapter]) + EPSILON
    number, projection, expert = path_parts(path)
    return LoraModule(
        path=path,
        A=first,
        B=second,
        scaling=Scaling(scaling, "memory"),
        layer=number,
        projection=projection,
        expert=expert,
        kind="embedding" if embedding else "conv" if len(a.shape) > 2 else "linear",
        dora=bool(getattr(layer, "use_dora", {}).get(adapter, False)),
        form=form,
    )


def _form(layer: Any, adapter: str, path: str) -> Form:
    if adapter in _keys(layer, "lora_E"):
        return "AdaLoRA"
    halves = [getattr(layer, name) for name in ("lora_A", "lora_B") if adapter in _keys(layer, name)]
    block_diagonal = any(type(half[adapter]).__name__ == "BlockDiagonalLinear" for half in halves)
    if adapter in _keys(layer, "lora_diag") or block_diagonal:
        raise UnsupportedAdapterError("is KaSA or BD-LoRA, whose update is not B·A", module=path)
    if adapter in getattr(layer, "qalora_group_size", {}):
        fix = "save the adapter and scan the folder"
        raise UnsupportedAdapterError("QALoRA cannot be scanned in memory", module=path, fix=fix)
    return "LoRA"


def _factor(name: str, tensor: Any) -> Factor:
    values: Array = _numpy(tensor)
    matrix = values.reshape(values.shape[0], -1)
    return Factor(ArrayTensor(name, matrix), (matrix.shape[0], matrix.shape[1]))


def _numpy(tensor: Any) -> Array:
    """Return the tensor's values; float32 holds every bf16 and fp8 value exactly, and NumPy has neither."""
    detached = tensor.detach().cpu()
    if "float16" not in str(detached.dtype) or "bfloat16" in str(detached.dtype):
        detached = detached.double() if "float64" in str(detached.dtype) else detached.float()
    return np.asarray(detached.numpy())
