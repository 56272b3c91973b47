"""GGUF: what llama.cpp's `convert_lora_to_gguf.py` writes, for architectures whose names need no table of their own.

The base's configuration says which architecture it is, and how many heads share the rows of q and k, which llama.cpp
has in pairs for some. One alpha holds for all modules, and llama.cpp divides it by the rank of each: other scalings
are multiplied into lora_b.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from s3lora.adapter.formats.gguf import ALPHA, ARCHITECTURE, KIND, PAIRED, TYPE, llama_name
from s3lora.adapter.formats.rows import KEY, QUERY, heads_of, paired
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.new_tensors import NewTensor
from s3lora.adapter.tensor import Array
from s3lora.base.configured import model_of
from s3lora.errors import UsageError, printable
from s3lora.rewrite.convert.experts import EXPERT, MIXTRAL, experts_of, kept_apart, stack, stacked
from s3lora.rewrite.convert.plain import refuse_unless_plain
from s3lora.rewrite.convert.target import (
    ConvertWish,
    NewUpdate,
    TargetFiles,
    model_paths,
    refuse,
    scaling_notes,
    updates_of,
)
from s3lora.wording import worded

WEIGHTS = "adapter.gguf"
#: `model_type` of Transformers → the architecture of llama.cpp, where projections are named as in Llama.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "granite": "granite",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "olmoe": "olmoe",
}
#: Types of numbers that are written as they are; others become float32.
_KEPT = ("float32", "float16", "bfloat16")


def to_gguf(adapter: Adapter, wish: ConvertWish) -> TargetFiles:
    """Return the adapter as llama.cpp reads it.

    Raises UnsupportedAdapterError for what it cannot have, and UsageError where the base is not known.
    """
    refuse_unless_plain(adapter, "GGUF")
    architecture = _architecture(wish.base)
    apart = kept_apart(adapter, wish.base, "GGUF")
    paths = {old: _place(path) for old, path in model_paths(apart, "GGUF").items()}
    names = {old: llama_name(_without_number(path)) for old, path in paths.items()}
    heads = {m.path: _heads(m, architecture, wish.base or {}) for m in apart.modules}
    refuse("GGUF", _reasons(apart, paths, names, heads) | _tied_heads(apart, wish))
    updates = updates_of(apart, wish, paths)
    experts = stacked([u for u in updates if EXPERT.fullmatch(u.path)], "GGUF", experts_of(wish.base))
    ranked = {one.path: one for members in experts.values() for one in members if one is not None}
    updates = [ranked.get(update.path, update) for update in updates]
    alphas = Counter(float(np.float32(update.scaling * update.rank)) for update in updates)
    alpha = max(alphas, key=lambda value: (alphas[value], value))
    updates = [dataclasses.replace(update, scaling=alpha / update.rank) for update in updates]
    tensors = [
        tensor
        for update in updates
        if update.path not in ranked
        for tensor in _tensors(update, names[update.module.path] or "", heads[update.module.path])
    ]
    scaled = {update.path: update for update in updates}
    for path, members in experts.items():
        name = f"{llama_name(path)}.weight"
        of_layer = [None if one is None else scaled[one.path] for one in members]
        tensors += map(_kept, stack(of_layer, f"{name}.lora_a", f"{name}.lora_b"))
    keys: dict[str, str | int | float] = {ARCHITECTURE: architecture, TYPE: "adapter", KIND: "lora", ALPHA: alpha}
    for field, projection in (("head_count", QUERY), ("head_count_kv", KEY)):
        if (count := heads_of(wish.base, projection)) is not None:
            keys[f"{architecture}.attention.{field}"] = count
    notes = scaling_notes(adapter)
    if len(alphas) > 1:
        notes.append("GGUF has one alpha for all modules: other scalings are multiplied into lora_b")
    return TargetFiles(WEIGHTS, tensors, paths, notes=tuple(notes), keys=keys, source=apart)


def _place(path: str) -> str:
    """Return the path by which a module of llama.cpp is read again: without Mixtral's old names.

    >>> _place("model.layers.0.block_sparse_moe.experts.7.w1")
    'model.layers.0.mlp.experts.7.gate_proj'
    """
    head, old, rest = path.partition(".block_sparse_moe.")
    if not old:
        return path
    before, dot, name = rest.rpartition(".")
    return f"{head}.mlp.{before}{dot}{MIXTRAL.get(name, name)}"


def _without_number(path: str) -> str:
    match = EXPERT.fullmatch(path)
    return path if match is None else f"{match['head']}.experts.{match['name']}"


def _reasons(
    adapter: Adapter, paths: Mapping[str, str], names: Mapping[str, str | None], heads: Mapping[str, int | None]
) -> dict[str, str]:
    """Return why modules cannot be written, by their paths."""
    reasons = {path: "has a name that is not known in llama.cpp" for path, name in names.items() if name is None}
    for module in adapter.modules:
        count = heads[module.path]
        if module.kind == "embedding":
            reasons[module.path] = "is an embedding, at which llama.cpp stops"
        elif module.group and not EXPERT.fullmatch(paths[module.path]):
            reasons[module.path] = "is a part of a fused layer"
        elif count is not None and (count == 0 or module.m % (2 * count)):
            reasons[module.path] = f"has {module.m} rows, which {count} heads do not share"
    return reasons


def _tied_heads(adapter: Adapter, wish: ConvertWish) -> dict[str, str]:
    """Return why updates of an output layer cannot be written, where the base has none of its own."""
    heads = [module.path for module in adapter.modules if module.projection == "lm_head"]
    tied = bool(heads) and wish.base is not None and model_of(wish.base, "base").tied
    return dict.fromkeys(
        heads if tied else (), "is tied to the embeddings in the base, and llama.cpp finds no such layer"
    )


def _architecture(base: Mapping[str, Any] | None) -> str:
    if base is None:
        raise UsageError(
            "GGUF names the architecture of the base model", fix=worded("give {base} its config.json or folder")
        )
    kind = base.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        what = f"a base of the type {printable(kind, 40)} is not written for llama.cpp"
        raise UsageError(what, fix=f"those that are: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind]


def _heads(module: LoraModule, architecture: str, base: Mapping[str, Any]) -> int | None:
    """Return the heads whose rows lie in pairs, 0 where that is not known, None where no rows do."""
    if architecture not in PAIRED or module.projection not in (QUERY, KEY):
        return None
    return heads_of(base, module.projection) or 0


def _tensors(update: NewUpdate, name: str, heads: int | None) -> list[NewTensor]:
    made = update.tensors(f"{name}.weight.lora_a", f"{name}.weight.lora_b")
    a, b = map(_kept, made)
    if heads is not None:
        b = dataclasses.replace(b, make=partial(_in_pairs, update, heads))
    return [a, b]


def _kept(tensor: NewTensor) -> NewTensor:
    return tensor if tensor.dtype in _KEPT else dataclasses.replace(tensor, dtype="float32")


def _in_pairs(update: NewUpdate, heads: int) -> Array:
    return paired(update.b(), heads=heads)
