"""MLX: `adapters.safetensors` with both factors turned, and the configuration that mlx-lm builds its layers by.

mlx-lm has one rank and one `scale` for all modules. Other ranks are padded with zeros, and other scalings multiplied
into lora_b. It turns the modules of every layer that `keys` names into LoRA; those that the file lacks add nothing.
The experts of a layer are stacked: `switch_mlp.up_proj` with (E, r, n) and (E, m, r).
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from s3lora.adapter.model import Adapter
from s3lora.adapter.new_tensors import NewTensor
from s3lora.adapter.tensor import Array
from s3lora.rewrite.convert.plain import refuse_unless_plain
from s3lora.rewrite.convert.target import (
    ConvertWish,
    NewUpdate,
    TargetFiles,
    base_name,
    model_paths,
    refuse,
    scaling_notes,
    updates_of,
    wide_enough,
)

WEIGHTS = "adapters.safetensors"
_EXPERT = re.compile(r"(?P<head>.+)\.(?:experts|switch_mlp)\.(?P<expert>\d{1,9})\.(?P<name>[^.]+)")
_IN_LAYER = re.compile(r".*?\.?layers\.\d+\.(?P<key>.+)")


def to_mlx(adapter: Adapter, wish: ConvertWish) -> TargetFiles:
    """Return the adapter as mlx-lm reads it; raise UnsupportedAdapterError for what it cannot have."""
    refuse_unless_plain(adapter, "MLX")
    paths = model_paths(adapter, "MLX")
    experts = {path: match for path, new in paths.items() if (match := _EXPERT.fullmatch(new))}
    reasons = {m.path: "is a convolution" for m in adapter.modules if m.kind == "conv"}
    reasons.update((m.path, "is a part of a fused layer") for m in adapter.modules if m.group and m.path not in experts)
    reasons.update((path, "is two projections in one, which MLX keeps apart") for path, match in experts.items()
                   if match["name"] == "gate_up_proj")  # fmt: skip
    refuse("MLX", reasons)
    for old, match in experts.items():
        paths[old] = f"{match['head']}.switch_mlp.{match['expert']}.{match['name']}"
    one_rank = wish if wish.pad is not None else dataclasses.replace(wish, pad=0)
    updates = updates_of(adapter, one_rank, paths)
    scalings = {update.scaling for update in updates}
    scale = next(iter(scalings)) if len(scalings) == 1 else 1.0
    updates = [dataclasses.replace(update, scaling=scale) for update in updates]
    alone = [update for update in updates if update.module.path not in experts]
    tensors = [tensor for u in alone for tensor in u.tensors(f"{u.path}.lora_a", f"{u.path}.lora_b", turned=True)]
    stacked = _stacked([update for update in updates if update.module.path in experts], experts)
    keys = sorted({_key(update.path) for update in alone} | {_key(name) for name in stacked})
    for name, members in stacked.items():
        tensors += _stack(name, members)
    config = {
        "fine_tune_type": "lora",
        "lora_parameters": {"dropout": 0.0, "keys": keys, "rank": updates[0].rank, "scale": scale},
        "model": base_name(adapter),
        "num_layers": -1,  # all: how many the base has is not known
    }
    notes = [*scaling_notes(adapter)]
    if len({module.rank for module in adapter.modules}) > 1:
        notes.append(f"MLX has one rank for all modules: all are padded with zeros to {updates[0].rank}")
    if len(scalings) > 1:
        notes.append("MLX has one scale for all modules: their scalings are multiplied into lora_b")
    return TargetFiles(
        WEIGHTS, tensors, {u.module.path: u.path for u in updates}, config, {"format": "mlx"}, tuple(notes)
    )


def _key(path: str) -> str:
    """Return the name of a module within its layer, or the path of one that is in none."""
    match = _IN_LAYER.fullmatch(path)
    return match["key"] if match else path


def _stacked(updates: Sequence[NewUpdate], experts: Mapping[str, re.Match[str]]) -> dict[str, list[NewUpdate]]:
    """Return the experts of each fused layer, in their order."""
    numbered: dict[str, dict[int, NewUpdate]] = defaultdict(dict)
    for update in updates:
        match = experts[update.module.path]
        numbered[f"{match['head']}.switch_mlp.{match['name']}"][int(match["expert"])] = update
    for found in numbered.values():
        if sorted(found) != [*range(len(found))]:
            reason = "is one of several experts of which others have no update, and MLX stacks all"
            refuse("MLX", {update.module.path: reason for update in found.values()})
    return {name: [found[number] for number in sorted(found)] for name, found in numbered.items()}


def _stack(name: str, updates: Sequence[NewUpdate]) -> list[NewTensor]:
    first = updates[0]
    count, rank, m, n = len(updates), first.rank, first.module.m, first.module.n
    reasons = {u.module.path: "has another shape than the other experts" for u in updates
               if (u.module.m, u.module.n) != (m, n)}  # fmt: skip
    refuse("MLX", reasons)
    a = wide_enough("/".join(dict.fromkeys(update.module.A.dtype for update in updates)))
    b = wide_enough("/".join(dict.fromkeys(update.module.B.dtype for update in updates)))

    def all_a() -> Array:
        return np.stack([update.a() for update in updates])  # E × (r, n) -> (E, r, n)

    def all_b() -> Array:
        return np.stack([update.b() for update in updates])  # E × (m, r) -> (E, m, r)

    return [
        NewTensor(f"{name}.lora_a", first.dtype or a, (count, rank, n), all_a),
        NewTensor(f"{name}.lora_b", first.dtype or b, (count, m, rank), all_b),
    ]
