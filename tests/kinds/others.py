"""What other tools for language models write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.gguf_files import ADAPTER, gguf_bytes
from tests.kinds.kind import (
    ALPHA,
    HIDDEN,
    INNER,
    RANK,
    SHAPES,
    Array,
    Kind,
    Stored,
    Updates,
    configure,
    drawn,
    pair,
    peft_config,
    product,
    save_torch,
    write,
)
from tests.kinds.peft import EXPERTS, OF_EXPERTS

MLX = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": RANK, "scale": 2.5, "dropout": 0.0}}


def pairs(
    random: np.random.Generator, first: str, second: str, scale: float, *, turned: bool = False, cut: str = ""
) -> tuple[Stored, Updates]:
    """Return factors of the modules of `SHAPES` under these keys; `cut` is what the paths lose in front."""
    tensors, updates = {}, []
    for path, (m, n) in SHAPES.items():
        a, b = pair(random, m, n)
        updates.append(product(a, b, scale))
        short = path.removeprefix(cut)
        tensors[first.format(short)] = np.ascontiguousarray(a.T) if turned else a
        tensors[second.format(short)] = np.ascontiguousarray(b.T) if turned else b
    return tensors, updates


def mlx(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = pairs(random, "{}.lora_a", "{}.lora_b", 2.5, turned=True)
    write(folder, "adapters.safetensors", tensors)
    configure(folder, **MLX)
    return updates


def npz(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = pairs(random, "{}.lora_a", "{}.lora_b", 2.5, turned=True)
    np.savez(folder / "adapters.npz", **tensors)  # type: ignore[arg-type]
    configure(folder, **MLX)
    return updates


def mlx_vlm(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = pairs(random, "language_model.{}.A", "language_model.{}.B", ALPHA, turned=True)
    write(folder, "adapters.safetensors", tensors)
    configure(folder, rank=RANK, alpha=ALPHA, dropout=0.0)
    return updates


def stacked(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for name, (m, n) in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER))):
        a, b = drawn(random, EXPERTS, RANK, n), drawn(random, EXPERTS, m, RANK)
        key = f"model.layers.0.mlp.switch_mlp.{name}_proj"
        tensors[f"{key}.lora_a"], tensors[f"{key}.lora_b"] = a, b
        updates += [product(a[e], b[e], 2.5) for e in range(EXPERTS)]
    write(folder, "adapters.safetensors", tensors)
    configure(folder, **MLX)
    return updates


def gguf(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for layer in range(2):
        for name, m in (("ffn_up", INNER), ("ffn_gate", INNER), ("attn_v", 16)):
            a, b = pair(random, m, HIDDEN)
            tensors[f"blk.{layer}.{name}.weight.lora_a"], tensors[f"blk.{layer}.{name}.weight.lora_b"] = a, b
            updates.append(product(a, b, ADAPTER_SCALE))
    (folder / "adapter.gguf").write_bytes(gguf_bytes(tensors, {**ADAPTER, "adapter.lora.alpha": ALPHA}))
    return updates


ADAPTER_SCALE = ALPHA / RANK
#: The modules of the GGUF file: those whose rows llama.cpp leaves in their order.
OF_GGUF = {
    f"model.layers.{i}.{name}": (m, HIDDEN)
    for i in range(2)
    for name, m in (("mlp.up_proj", INNER), ("mlp.gate_proj", INNER), ("self_attn.v_proj", 16))
}


def torchtune(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for layer in range(2):
        for name, (m, n) in (("attn.v_proj", (16, HIDDEN)), ("attn.output_proj", (HIDDEN, HIDDEN))):
            a, b = pair(random, m, n)
            key = f"layers.{layer}.{name}"
            tensors[f"{key}.lora_a.weight"], tensors[f"{key}.lora_b.weight"] = a, b
            updates.append(product(a, b, ALPHA / RANK))
    save_torch(folder / "adapter_0.pt", tensors)
    configure(folder, r=RANK, lora_alpha=ALPHA, target_modules=["v_proj", "output_proj"])
    return updates


OF_TORCHTUNE = {
    f"model.layers.{i}.self_attn.{name}": shape
    for i in range(2)
    for name, shape in (("v_proj", (16, HIDDEN)), ("o_proj", (HIDDEN, HIDDEN)))
}


def megatron(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for layer in range(2):
        for name, m in (("mlp.linear_fc1", 2 * INNER), ("self_attention.linear_proj", HIDDEN)):
            a, b = pair(random, m, HIDDEN)
            key = f"decoder.layers.{layer}.{name}.adapter"
            tensors[f"{key}.linear_in.weight"], tensors[f"{key}.linear_out.weight"] = a, b
            updates.append(product(a, b))
    write(folder, "model.safetensors", tensors)
    return updates


OF_MEGATRON = {
    f"decoder.layers.{i}.{name}": (m, HIDDEN)
    for i in range(2)
    for name, m in (("mlp.linear_fc1", 2 * INNER), ("self_attention.linear_proj", HIDDEN))
}


def minimind(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = pairs(random, "{}.lora.A.weight", "{}.lora.B.weight", 1)
    save_torch(folder / "lora_identity.pth", tensors)
    return updates


def litgpt(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    sizes = (HIDDEN, 16, 16)
    for layer in range(2):
        a, b = drawn(random, 3 * RANK, HIDDEN), drawn(random, sum(sizes), RANK)
        key = f"transformer.h.{layer}.attn.qkv"
        tensors[f"{key}.lora_A"], tensors[f"{key}.lora_B"] = a, b
        row = 0
        for i, size in enumerate(sizes):
            updates.append(product(a[i * RANK :][:RANK], b[row:][:size]))
            row += size
    save_torch(folder / "lit_model.pth.lora", tensors)
    return updates


def turned(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = pairs(random, "{}.lora_A", "{}.lora_B", 1, turned=True)
    write(folder, "lora.safetensors", tensors)
    return updates


def tinker(folder: Path, random: np.random.Generator) -> Updates:
    """Experts of three dimensions, of which those that read the hidden state share A, and the other shares B."""
    tensors, updates = {}, []
    for name, (m, n) in (("w1", (INNER, HIDDEN)), ("w3", (INNER, HIDDEN)), ("w2", (HIDDEN, INNER))):
        shared = name == "w2"
        a: Array = drawn(random, EXPERTS if shared else 1, RANK, n)
        b: Array = drawn(random, 1 if shared else EXPERTS, m, RANK)
        key = f"base_model.model.model.layers.0.mlp.experts.{name}"
        tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"] = a, b
        updates += [product(a[e % len(a)], b[e % len(b)], ALPHA / RANK) for e in range(EXPERTS)]
    write(folder, "adapter_model.safetensors", tensors)
    configure(folder, **peft_config(target_modules="all-linear"))
    return updates


def _kind(title: str, keys: str, make: Any, names: Mapping[str, tuple[int, ...]] = SHAPES, **more: Any) -> Kind:
    return Kind(title, keys, make, "Other tools for language models", names=names, **more)


#: Of a base whose q, k and v are layers of their own, as litGPT's names stand for.
OF_LITGPT = {
    f"model.layers.{i}.self_attn.{p}_proj": (m, HIDDEN)
    for i in range(2)
    for p, m in (("q", HIDDEN), ("k", 16), ("v", 16))
}

KINDS = (
    _kind("MLX", "`lora_a` of (n, r)", mlx),
    _kind("MLX, NPZ", "`adapters.npz`", npz),
    _kind("MLX, experts", "`switch_mlp.up_proj.lora_a`", stacked, OF_EXPERTS, llama=False),
    _kind(
        "mlx-vlm", "`language_model.….A`", mlx_vlm, {f"language_model.{path}": shape for path, shape in SHAPES.items()}
    ),
    _kind("GGUF", "`blk.0.attn_v.weight.lora_a`", gguf, OF_GGUF),
    _kind("torchtune", "`layers.0.attn.v_proj.lora_a.weight`", torchtune, OF_TORCHTUNE),
    _kind("Megatron-Bridge, NeMo", "`adapter.linear_in.weight`", megatron, OF_MEGATRON, llama=False),
    _kind("Tinker, experts that share a factor", "`experts.w1.lora_A` of (1, r, n)", tinker, OF_EXPERTS, llama=False),
    _kind("litGPT", "`transformer.h.0.attn.qkv.lora_A`", litgpt, OF_LITGPT, llama=False),
    _kind("minimind, nanoGPT", "`lora.A.weight`", minimind),
    _kind("Home-made, A as (n, r)", "`lora_A` of (n, r)", turned),
)
