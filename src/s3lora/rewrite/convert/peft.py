"""PEFT: `adapter_model.safetensors` with its `adapter_config.json`, out of whatever form is read.

An adapter of PEFT keeps its tensors, its fused experts and its configuration, but for what was asked for; beside a base
its fused experts become one each. All others
get PEFT's names and a configuration of their own, experts one each. AdaLoRA and QALoRA become ordinary LoRA.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from s3lora.adapter import peft_config
from s3lora.adapter.factors import Factor
from s3lora.adapter.formats.forms import PRODUCTS
from s3lora.adapter.formats.wrappers import PREFIX, unwrapped
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.new_tensors import NewTensor
from s3lora.adapter.tensor import Array
from s3lora.adapter.tensors import FLOATING, StoredTensor
from s3lora.rewrite.code import without_code
from s3lora.rewrite.convert.dora import lengths, lengths_of
from s3lora.rewrite.convert.experts import are_fused, kept_apart
from s3lora.rewrite.convert.plain import emptied
from s3lora.rewrite.convert.products import PRODUCT_FORMS, loha_config, loha_tensors, refuse_products
from s3lora.rewrite.convert.target import (
    ConvertWish,
    NewUpdate,
    TargetFiles,
    base_name,
    model_paths,
    refuse,
    scaling_notes,
    updates_of,
)
from s3lora.rewrite.drop import drop_fix
from s3lora.rewrite.edits import biases_of
from s3lora.rewrite.names import plain_names
from s3lora.wording import worded

WEIGHTS = "adapter_model.safetensors"
#: What a configuration keeps of another when the rest is written anew.
_KEPT = ("base_model_name_or_path", "revision", "task_type", "modules_to_save", "bias", "lora_bias", "use_dora",
         "fan_in_fan_out", "lora_dropout", "layer_replication", "trainable_token_indices")  # fmt: skip


def to_peft(adapter: Adapter, wish: ConvertWish) -> TargetFiles:
    """Return the adapter as PEFT reads it.

    Raises UnsupportedAdapterError for what PEFT cannot have.
    """
    renamed, notes = plain_names(adapter, default=True)
    if wish.bake or wish.pad is not None:
        peft_config.refuse_changed_base(adapter)
    if wish != ConvertWish(wish.to, listed=wish.listed):
        reason = {module.path: f"is {module.form}" for module in adapter.modules if module.form not in PRODUCTS}
        refuse("PEFT with another rank, scaling or type", reason, worded("leave {bake}, {pad} and {dtype} out"))
    known = _known(adapter)
    if wish.base is not None and are_fused(adapter):
        peft_config.refuse_changed_base(adapter)
        apart = kept_apart(adapter, wish.base, "PEFT")
        return dataclasses.replace(_anew_from(apart, wish, renamed, notes), source=apart)
    if keeps_config(adapter):
        return _kept(adapter, wish, renamed, notes)
    if adapter.format == "kohya" and {module.form for module in adapter.modules} <= {*PRODUCT_FORMS}:
        return _loha(adapter, wish)
    peft_config.refuse_changed_base(adapter)
    reasons = {m.path: f"is {m.form}, which keeps its own format" for m in adapter.modules if m.form not in PRODUCTS}
    reasons |= {m.path: "is a part of a fused layer" for m in adapter.modules if m.group and m.expert is None}
    refuse("PEFT", reasons)
    if not known:
        others = dict.fromkeys(adapter.other_tensors, "is no part of LoRA")
        refuse("PEFT", others, drop_fix(adapter, others))
    return _anew_from(adapter, wish, renamed, notes)


def _loha(adapter: Adapter, wish: ConvertWish) -> TargetFiles:
    """Return an adapter of LyCORIS as PEFT's LoHa, whose configuration holds for all of its modules."""
    refuse_products(adapter, wish, "PEFT")
    others = dict.fromkeys(adapter.other_tensors, "is no part of LoHa")
    refuse("PEFT", others, drop_fix(adapter, others))
    paths = model_paths(adapter, "PEFT")
    updates = updates_of(adapter, wish, paths)
    config = loha_config(updates, base_name(adapter))
    return TargetFiles(WEIGHTS, loha_tensors(updates), paths, config, {"format": "pt"}, tuple(scaling_notes(adapter)))


def keeps_config(adapter: Adapter) -> bool:
    """Return whether the adapter keeps the configuration that it has, but for what was asked for."""
    return _known(adapter) and not _anew(adapter)


def _known(adapter: Adapter) -> bool:
    return adapter.format == "peft" and "peft_type" in (adapter.config or {})


def _anew(adapter: Adapter) -> bool:
    """Return whether modules of a PEFT adapter are stored as PEFT's LoRA does not load them."""
    return any(
        module.form in ("AdaLoRA", "QALoRA")
        or (module.group is not None and len(module.A.parts[0].tensor.shape) == 3)
        or (module.form == "LoRA" and module.group is None and module.A.parts[0].tensor.shape[0] != module.rank)
        for module in adapter.modules
    )


def _kept(adapter: Adapter, wish: ConvertWish, renamed: Mapping[str, str], notes: tuple[str, ...]) -> TargetFiles:
    updates = updates_of(adapter, wish, {module.path: module.path for module in adapter.modules})
    config = without_code(adapter.config or {})
    padded = any(update.rank != update.module.rank for update in updates)
    wrong = peft_config.of_another_rank(adapter)
    if wrong:
        notes = (*notes, "its configuration gave modules other ranks than their tensors have: these are written")
    if wish.bake:
        config = peft_config.baked(config, [_ranked(update) for update in updates], by_tensor=False)
    elif padded or wrong:
        config = peft_config.with_ranks(config, [_ranked(update) for update in updates])
    if wish.listed and isinstance(config.get("target_modules"), str):
        config["target_modules"] = sorted(unwrapped(update.path)[0] for update in updates)
    changes: dict[str, list[tuple[Factor, NewUpdate]]] = defaultdict(list)
    biases: dict[str, float] = {}
    for update in updates:
        for factor in (update.module.A, update.module.B):
            if isinstance(factor, Factor) and (update.times != 1.0 or update.rank != update.module.rank):
                changes[factor.tensor.name].append((factor, update))
        biases.update(dict.fromkeys(biases_of(update.module), update.times))
    left = _left(adapter)
    tensors = [
        _tensor(
            tensor,
            renamed.get(tensor.name, tensor.name),
            changes.get(tensor.name, ()),
            biases.get(tensor.name, 1.0),
            wish,
        )
        for tensor in _stored(adapter)
        if tensor.name in left
    ]
    paths = {update.module.path: update.path for update in updates}
    return TargetFiles(WEIGHTS, tensors, paths, config, {"format": "pt"}, notes)


def _ranked(update: NewUpdate) -> LoraModule:
    return dataclasses.replace(update.as_module(), group=update.module.group)


def _stored(adapter: Adapter) -> Iterable[StoredTensor]:
    return (tensor for file in adapter.files for tensor in file.tensors.values())


def _left(adapter: Adapter) -> set[str]:
    """Return the names of the tensors that the adapter still has: some of its files' may be dropped."""
    of_modules = {part.tensor.name for module in adapter.modules for part in module.parts}
    return of_modules | {*adapter.other_tensors} | {name for module in adapter.modules for name in module.extras}


def _tensor(
    tensor: StoredTensor, name: str, changes: Sequence[tuple[Factor, NewUpdate]], times: float, wish: ConvertWish
) -> NewTensor:
    """Return a stored tensor with the factors in it that change, in the dtype that was asked for."""
    dtype = wish.dtype if wish.dtype is not None and tensor.dtype in FLOATING else tensor.dtype
    if not changes and times == 1.0:
        return NewTensor(name, dtype, tensor.shape, tensor.array)
    if not changes:
        return NewTensor(name, dtype, tensor.shape, lambda: tensor.array().astype(np.float64) * times)
    first = changes[0][1]
    side = "a" if changes[0][0] is first.module.A else "b"
    if first.module.group is not None and first.rank != first.module.rank:
        return _padded_experts(tensor, name, dtype, [update for _, update in changes], side)
    if first.rank != first.module.rank:
        shape = (first.rank, *tensor.shape[1:]) if side == "a" else (tensor.shape[0], first.rank, *tensor.shape[2:])
        return NewTensor(name, dtype, shape, first.a if side == "a" else first.b)
    return NewTensor(name, dtype, tensor.shape, partial(_changed, tensor, changes))


def _changed(tensor: StoredTensor, changes: Sequence[tuple[Factor, NewUpdate]]) -> Array:
    values = tensor.array().astype(np.float64)
    for factor, update in changes:
        factor.view(values)[...] = update.a() if factor is update.module.A else update.b()
    return values


def _padded_experts(tensor: StoredTensor, name: str, dtype: str, updates: Sequence[NewUpdate], side: str) -> NewTensor:
    """Return lora_A (r′·E, n) or lora_B (m, r′·E) of fused experts, as `adapter/formats/experts.py` describes them."""
    count, rank, module = len(updates), updates[0].rank, updates[0].module

    def make() -> Array:
        if side == "a":
            return np.concatenate([update.a() for update in updates])  # E × (r′, n) -> (r′·E, n)
        return np.stack([update.b() for update in updates], axis=2)  # E × (m, r′) -> (m, r′, E)

    return NewTensor(name, dtype, (rank * count, module.n) if side == "a" else (module.m, rank * count), make)


def _anew_from(adapter: Adapter, wish: ConvertWish, renamed: Mapping[str, str], notes: tuple[str, ...]) -> TargetFiles:
    updates = updates_of(adapter, wish, model_paths(adapter, "PEFT"))
    tensors: list[NewTensor] = []
    for update in updates:
        leaf = ("lora_embedding_A", "lora_embedding_B")
        leaves = leaf if update.module.kind == "embedding" else ("lora_A.weight", "lora_B.weight")
        tensors.extend(update.tensors(*(f"{PREFIX}{update.path}.{name}" for name in leaves)))
    dora = {} if adapter.format == "peft" else lengths_of(adapter, "PEFT")
    tensors.extend(lengths(updates, dora, f"{PREFIX}{{}}.lora_magnitude_vector".format))
    if adapter.format == "peft":
        tensors.extend(_carried(adapter, updates, renamed, wish))
    modules = [update.as_module() for update in updates]
    config = _config(adapter, modules, bake=wish.bake) | ({"use_dora": True} if dora else {})
    told = list(notes)
    told += scaling_notes(adapter)
    if any(module.group is not None for module in adapter.modules):
        told.append("experts are written one each, as models that keep their experts apart name them")
    if config["base_model_name_or_path"] is None:
        told.append("nothing says which base model it belongs to: `base_model_name_or_path` is empty")
    return TargetFiles(
        WEIGHTS, tensors, {u.module.path: u.path for u in updates}, config, {"format": "pt"}, tuple(told)
    )


def _carried(
    adapter: Adapter, updates: Sequence[NewUpdate], renamed: Mapping[str, str], wish: ConvertWish
) -> Iterable[NewTensor]:
    """Yield what a PEFT adapter holds besides the factors: heads, biases, magnitudes."""
    left = _left(adapter) - emptied(adapter) - {part.tensor.name for module in adapter.modules for part in module.parts}
    biases = {name: update.times for update in updates for name in biases_of(update.module)}
    for tensor in _stored(adapter):
        if tensor.name in left and not tensor.name.endswith((".alpha", ".ranknum")):
            yield _tensor(tensor, renamed.get(tensor.name, tensor.name), (), biases.get(tensor.name, 1.0), wish)


def _config(adapter: Adapter, modules: Sequence[LoraModule], *, bake: bool) -> dict[str, Any]:
    """Return a configuration that says nothing but what these modules are."""
    before = adapter.config or {}
    config: dict[str, Any] = {
        "base_model_name_or_path": base_name(adapter),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    if adapter.format == "peft":
        config.update({field: before[field] for field in _KEPT if field in before})
    # Names of projections would also stand for layers, and for towers of the base, that the file has nothing of.
    config["target_modules"] = sorted(module.path for module in modules)
    made = peft_config.baked(config, modules, by_tensor=False) if bake else peft_config.with_ranks(config, modules)
    return dict(sorted(made.items()))


__all__ = ["keeps_config", "to_peft"]
