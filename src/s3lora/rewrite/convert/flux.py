"""Flux by the names of its original code → by those of Diffusers, where fused projections are several layers.

A fused projection has the rows of q, k and v one after the other, and in single blocks those of the feed-forward layer
behind them. So each part has the A of the whole, and its rows of B: no number changes. sd-scripts can train the parts
apart (`….lora_down.0.weight`); then each is a layer of Diffusers already.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from s3lora.adapter.factors import Factor
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.rewrite.convert.dotted import dotted
from s3lora.rewrite.convert.rows import some_rows
from s3lora.rewrite.convert.target import refuse

_BLOCK = re.compile(r"(double|single)_blocks\.(\d+)\.(.+)")
_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
#: What a module of a block is in Diffusers: a layer, or several, whose rows lie one after the other.
_INNER = {
    "double": {
        "img_attn.qkv": _QKV,
        "img_attn.proj": ("attn.to_out.0",),
        "img_mod.lin": ("norm1.linear",),
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn.proj": ("attn.to_add_out",),
        "txt_mod.lin": ("norm1_context.linear",),
        "img_mlp.0": ("ff.net.0.proj",),
        "img_mlp.2": ("ff.net.2",),
        "txt_mlp.0": ("ff_context.net.0.proj",),
        "txt_mlp.2": ("ff_context.net.2",),
    },
    "single": {"linear1": (*_QKV, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",)},
}
_OUTER = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
#: Modules outside of blocks, which Diffusers' own converter leaves out too.
_ENDS = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer")
#: Where each module of an adapter is: (model, path in it).
Places = dict[str, tuple[str, str]]


def as_in_diffusers(adapter: Adapter) -> tuple[Adapter, Places]:
    """Return an adapter of kohya's with its modules of Flux as Diffusers has them, and where these are.

    An adapter without such names is returned as it is. Raises UnsupportedAdapterError for modules whose rows are not
    those of Flux, for DoRA of a projection that is split, and for what lies in no block.
    """
    places: Places = {}
    reasons: dict[str, str] = {}
    modules: list[LoraModule] = []
    for module in adapter.modules:
        base, dot, part = module.path.rpartition(".")
        split = bool(dot) and module.group == base and part.isdecimal()
        found = dotted(base if split else module.path)
        match = None if found is None else _BLOCK.fullmatch(found[1])
        if match is None:
            if found is not None and found[1].startswith(_ENDS):
                reasons[module.path] = "lies in no block of Flux, and Diffusers does not read it by its original name"
            modules.append(module)
            continue
        outer = f"{_OUTER[match[1]]}.{match[2]}"
        inner = _INNER[match[1]].get(match[3], ())
        if not inner or (split and int(part) >= len(inner)):
            reasons[module.path] = "is no module of Flux's blocks"
        elif split or len(inner) == 1:
            places[module.path] = "transformer", f"{outer}.{inner[int(part) if split else 0]}"
            modules.append(dataclasses.replace(module, group=None))
        elif module.dora:
            reasons[module.path] = "has DoRA magnitudes of a whole projection, which Diffusers splits"
        elif (sizes := _sizes(module, len(inner))) is None:
            reasons[module.path] = f"has {module.m} rows, which are not those of q, k and v beside {module.n} inputs"
        else:
            for one, leaf in zip(_parts(module, sizes), inner, strict=True):
                places[one.path] = "transformer", f"{outer}.{leaf}"
                modules.append(one)
    refuse("Diffusers", reasons)
    return (dataclasses.replace(adapter, modules=tuple(modules)), places) if places else (adapter, {})


def _sizes(module: LoraModule, count: int) -> list[int] | None:
    """Return how many rows q, k and v, and the feed-forward layer, have, None where that does not fit the input."""
    left = module.m - 3 * module.n
    if count == len(_QKV):
        return [module.n] * count if not left else None
    return [*[module.n] * len(_QKV), left] if left > 0 else None


def _parts(module: LoraModule, sizes: list[int]) -> Iterator[LoraModule]:
    start = 0
    for i, size in enumerate(sizes):
        assert isinstance(module.B, Factor)  # those of kohya's LoRA are as they are stored
        path, projection = f"{module.path}.{i}", f"{module.projection}.{i}"
        yield dataclasses.replace(module, path=path, projection=projection, B=some_rows(module.B, start, size))
        start += size


__all__ = ["Places", "as_in_diffusers"]
