"""What tools for picture models write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.kinds.kind import ALPHA, RANK, Array, Kind, Stored, Updates, drawn, pair, product, write

#: Modules of the U-Net of Stable Diffusion, and a convolution; their sizes are smaller.
ATTENTION = {
    f"unet.down_blocks.{i}.attentions.0.transformer_blocks.0.attn1.{name}": (24, 24)
    for i in (0, 1)
    for name in ("to_q", "to_v")
}
CONV = {"unet.down_blocks.0.resnets.0.conv1": (16, 8, 3, 3)}
FLUX = {f"transformer.transformer_blocks.{i}.attn.{name}": (24, 24) for i in (0, 1) for name in ("to_q", "to_k")}
TUCKER = 2


def _flat(path: str) -> str:
    return "lora_unet_" + path.removeprefix("unet.").replace(".", "_")


def diffusers(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for path, (m, n) in FLUX.items():
        a, b = pair(random, m, n)
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = a, b
        updates.append(product(a, b, ALPHA / RANK))
    told = {"transformer.r": RANK, "transformer.lora_alpha": ALPHA, "transformer.target_modules": ["to_q", "to_k"]}
    write(folder, "pytorch_lora_weights.safetensors", tensors, {"lora_adapter_metadata": json.dumps(told)})
    return updates


def old_diffusers(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for path, (m, n) in ATTENTION.items():
        a, b = pair(random, m, n)
        block, name = path.rsplit(".", 1)
        tensors[f"{block}.processor.{name}_lora.down.weight"] = a
        tensors[f"{block}.processor.{name}_lora.up.weight"] = b
        updates.append(product(a, b))
    write(folder, "pytorch_lora_weights.safetensors", tensors)
    return updates


def kohya(
    folder: Path, random: np.random.Generator, names: Mapping[str, tuple[int, ...]] = ATTENTION, join: str = "."
) -> Updates:
    tensors, updates = {}, []
    for path, shape in names.items():
        a, b = drawn(random, RANK, *shape[1:]), drawn(random, shape[0], RANK, *[1] * (len(shape) - 2))
        key = _flat(path)
        tensors[f"{key}{join}lora_down.weight"], tensors[f"{key}{join}lora_up.weight"] = a, b
        if join == ".":
            tensors[f"{key}.alpha"] = np.array(ALPHA, np.float32)
        updates.append(product(a, b, ALPHA / RANK if join == "." else 1))
    write(folder, "lora.safetensors", tensors)
    return updates


def split(folder: Path, random: np.random.Generator) -> Updates:
    tensors: Stored = {}
    updates = []
    for block in range(2):
        key = f"lora_unet_double_blocks_{block}_img_attn_qkv"
        tensors[f"{key}.alpha"] = np.array(ALPHA, np.float32)
        for part in range(3):
            a, b = pair(random, 24, 24)
            tensors[f"{key}.lora_down.{part}.weight"], tensors[f"{key}.lora_up.{part}.weight"] = a, b
            updates.append(product(a, b, ALPHA / RANK))
    write(folder, "lora.safetensors", tensors)
    return updates


def xlabs(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for block in range(2):
        for name, m in (("proj_lora1", 24), ("qkv_lora1", 72)):
            a, b = pair(random, m, 24)
            key = f"double_blocks.{block}.processor.{name}"
            tensors[f"{key}.down.weight"], tensors[f"{key}.up.weight"] = a, b
            updates.append(product(a, b))
    write(folder, "lora.safetensors", tensors)
    return updates


def lcm(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for path, (m, n) in ATTENTION.items():
        a, b = pair(random, m, n)
        short = path.removeprefix("unet.")
        tensors[f"{short}.lora_A_1.default_0.weight"], tensors[f"{short}.lora_B_1.default_0.weight"] = a, b
        updates.append(product(a, b))
    write(folder, "pytorch_lora_weights.safetensors", tensors)
    return updates


def lycoris(folder: Path, random: np.random.Generator, form: str) -> Updates:
    tensors: Stored = {}
    updates = []
    for path, (m, n) in ATTENTION.items():
        parts: Stored
        if form == "loha":
            parts = {f"hada_w{i}_{half}": drawn(random, *size) for i in (1, 2) for half, size in
                     (("a", (m, RANK)), ("b", (RANK, n)))}  # fmt: skip
            first, second = (product(parts[f"hada_w{i}_b"], parts[f"hada_w{i}_a"]) for i in (1, 2))
            updates.append(ALPHA / RANK * first * second)
        else:
            parts = {"lokr_w1": drawn(random, 4, 4), "lokr_w2": drawn(random, m // 4, n // 4)}
            updates.append(np.kron(*(parts[f"lokr_w{i}"].astype(np.float64) for i in (1, 2))))
        tensors.update({f"{_flat(path)}.{name}": values for name, values in parts.items()})
        tensors[f"{_flat(path)}.alpha"] = np.array(ALPHA, np.float32)
    write(folder, "lora.safetensors", tensors)
    return updates


def numbered(folder: Path, random: np.random.Generator, keys: tuple[str, str]) -> Updates:
    tensors, updates = {}, []
    for number in range(4):
        a, b = pair(random, 24, 24)
        tensors[keys[0].format(number)], tensors[keys[1].format(number)] = a, b
        updates.append(product(a, b))
    write(folder, "lora.safetensors", tensors)
    return updates


def tucker(folder: Path, random: np.random.Generator, form: str) -> Updates:
    """Return nothing: a core of four dimensions makes no product of matrices."""
    (path,) = CONV
    m, n, *_ = CONV[path]
    core: Array = drawn(random, TUCKER, TUCKER, 3, 3)
    if form == "lokr":
        parts = {
            "lokr_w1": drawn(random, 4, 4),
            "lokr_t2": core,
            "lokr_w2_a": drawn(random, TUCKER, m // 4),
            "lokr_w2_b": drawn(random, TUCKER, n // 4),
        }
    else:
        parts = {
            f"hada_w{i}_{half}": drawn(random, TUCKER, size) for i in (1, 2) for half, size in (("a", m), ("b", n))
        }
        parts |= {"hada_t1": core, "hada_t2": drawn(random, TUCKER, TUCKER, 3, 3)}
    write(folder, "lora.safetensors", {f"{_flat(path)}.{name}": values for name, values in parts.items()})
    return []


def _kind(title: str, keys: str, make: Any, names: Mapping[str, tuple[int, ...]] = ATTENTION, **more: Any) -> Kind:
    bare = {path.removeprefix("unet.").removeprefix("transformer."): shape for path, shape in names.items()}
    return Kind(title, keys, make, "Picture models", names=bare, llama=False, **more)


_BLOCKS = {f"double_blocks.{i}.img_attn.{name}": (m, 24) for i in (0, 1) for name, m in (("qkv", 72), ("proj", 24))}
_BOTH = {**ATTENTION, **CONV}
_UNET, _SAM = ("unet:{}:down", "unet:{}:up"), ("w_a_{:03}", "w_b_{:03}")
KINDS = (
    _kind("Diffusers", "`transformer.….lora_A.weight`", diffusers, FLUX),
    _kind("Diffusers, older keys", "`processor.to_q_lora.down.weight`", old_diffusers),
    _kind("kohya", "`lora_unet_….lora_down.weight`", kohya),
    _kind("kohya, joined by an underscore", "`lora_unet_…_lora_down.weight`", partial(kohya, join="_")),
    _kind("kohya, convolutions (LoCon)", "`lora_down.weight` of (r, n, 3, 3)", partial(kohya, names=_BOTH), _BOTH),
    _kind("sd-scripts, split q, k, v", "`lora_down.0.weight`", split, _BLOCKS),
    _kind("LyCORIS LoHa", "`lora_unet_….hada_w1_a`", partial(lycoris, form="loha")),
    _kind("LyCORIS LoKr", "`lora_unet_….lokr_w1`", partial(lycoris, form="lokr")),
    _kind("XLabs' Flux", "`processor.proj_lora1.down.weight`", xlabs, _BLOCKS),
    _kind("LCM", "`lora_A_1.default_0.weight`", lcm),
    _kind("Numbered pairs of Stable Diffusion", "`unet:9:down`", partial(numbered, keys=_UNET)),
    _kind("Numbered pairs of Segment Anything", "`w_a_000`", partial(numbered, keys=_SAM)),
)
