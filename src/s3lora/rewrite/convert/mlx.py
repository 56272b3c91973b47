"""MLX: `adapters.safetensors` with both factors turned, and the configuration that mlx-lm builds its layers by.

mlx-lm has one rank and one `scale` for all modules. Other ranks are padded with zeros, and other scalings multiplied
into lora_b. It turns the modules of every layer that `keys` names into LoRA; those that the file lacks add nothing.
The experts of a layer are stacked: `switch_mlp.up_proj` with (E, r, n) and (E, m, r).
"""

from __future__ import annotations

import dataclasses
import re

from s3lora.adapter.model import EMBEDDINGS, Adapter
from s3lora.errors import printable
from s3lora.rewrite.convert.dora import lengths, lengths_of
from s3lora.rewrite.convert.experts import EXPERT, MIXTRAL, experts_of, kept_apart, stack, stacked
from s3lora.rewrite.convert.plain import refuse_unless_plain
from s3lora.rewrite.convert.target import (
    ConvertWish,
    TargetFiles,
    base_name,
    model_paths,
    refuse,
    scaling_notes,
    updates_of,
)

WEIGHTS = "adapters.safetensors"
#: Architectures whose experts lie otherwise in mlx-lm than in Transformers 5.
_SPARSE = "block_sparse_moe"
_OLD_NAMES = frozenset(("mixtral", "phimoe"))
_IN_LAYER = re.compile(r".*?\.?layers\.\d+\.(?P<key>.+)")


def to_mlx(adapter: Adapter, wish: ConvertWish) -> TargetFiles:
    """Return the adapter as mlx-lm reads it; raise UnsupportedAdapterError for what it cannot have."""
    refuse_unless_plain(adapter, "MLX", dora=True)
    dora = lengths_of(adapter, "MLX")
    apart = kept_apart(adapter, wish.base, "MLX")
    paths = model_paths(apart, "MLX")
    experts = {path: match for path, new in paths.items() if (match := EXPERT.fullmatch(new))}
    reasons = {m.path: "is a convolution" for m in apart.modules if m.kind == "conv"}
    reasons.update((m.path, "is a part of a fused layer") for m in apart.modules if m.group and m.path not in experts)
    refuse("MLX", reasons)
    for old, match in experts.items():
        paths[old] = _place(match, (wish.base or {}).get("model_type"))
    one_rank = wish if wish.pad is not None else dataclasses.replace(wish, pad=0)
    updates = updates_of(apart, one_rank, paths)
    scalings = {update.scaling for update in updates}
    scale = next(iter(scalings)) if len(scalings) == 1 else 1.0
    updates = [dataclasses.replace(update, scaling=scale) for update in updates]
    alone = [update for update in updates if update.module.path not in experts]
    tensors = [tensor for u in alone for tensor in u.tensors(f"{u.path}.lora_a", f"{u.path}.lora_b", turned=True)]
    layers = stacked([update for update in updates if update.module.path in experts], "MLX", experts_of(wish.base))
    layers = {name.replace(".experts.", ".switch_mlp."): members for name, members in layers.items()}
    keys = sorted({_key(update.path) for update in alone} | {_key(name) for name in layers})
    for name, members in layers.items():
        tensors += stack(members, f"{name}.lora_a", f"{name}.lora_b")
    tensors += lengths(alone, dora, "{}.m".format)
    config = {
        "fine_tune_type": "dora" if dora else "lora",
        "lora_parameters": {"dropout": 0.0, "keys": keys, "rank": updates[0].rank, "scale": scale},
        "model": base_name(adapter),
        "num_layers": -1,  # all: how many the base has is not known
    }
    notes = [*scaling_notes(adapter)]
    if len({module.rank for module in adapter.modules}) > 1:
        notes.append(f"MLX has one rank for all modules: all are padded with zeros to {updates[0].rank}")
    if len(scalings) > 1:
        notes.append("MLX has one scale for all modules: their scalings are multiplied into lora_b")
    embeddings = [update.path for update in updates if update.module.kind == "embedding"]
    tables = [path for path in embeddings if path.rpartition(".")[2] not in EMBEDDINGS]
    if tables:
        table = f"{printable(tables[0], 120)} is an embedding, which neither its name nor a file of MLX's tells"
        notes.append(f"{table}: converted back from there, it would be a linear layer")
    paths = {update.module.path: update.path for update in updates}
    return TargetFiles(WEIGHTS, tensors, paths, config, {"format": "mlx"}, tuple(notes), source=apart)


def _place(match: re.Match[str], kind: object) -> str:
    """Return the path of an expert in mlx-lm, by the architecture of the base where it is known."""
    head, name = match["head"], match["name"]
    if head.endswith(f".{_SPARSE}"):
        name = MIXTRAL.get(name, name)
    elif kind in _OLD_NAMES:
        head = f"{head.removesuffix('.mlp')}.{_SPARSE}"
    return f"{head}.switch_mlp.{match['expert']}.{name}"


def _key(path: str) -> str:
    """Return the name of a module within its layer, or the path of one that is in none."""
    match = _IN_LAYER.fullmatch(path)
    return match["key"] if match else path
