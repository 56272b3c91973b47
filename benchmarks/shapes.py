"""Adapters of the shapes that people train, with random factors, for timing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np


class Shape(NamedTuple):
    """Sizes of a Llama-like model and of its LoRA."""

    layers: int
    hidden: int
    kv: int
    inner: int
    rank: int
    dtype: str


SHAPES = {
    "8b": Shape(32, 4096, 1024, 14336, 16, "bfloat16"),
    "1b": Shape(16, 2048, 512, 8192, 16, "float32"),
    "70b": Shape(80, 8192, 1024, 28672, 64, "bfloat16"),
    "50mb": Shape(32, 4096, 1024, 14336, 10, "bfloat16"),
}
CODES = {"bfloat16": ("BF16", ml_dtypes.bfloat16), "float32": ("F32", np.float32)}


def projections(shape: Shape) -> dict[str, tuple[int, int]]:
    """Return (m, n) of each projection of one layer."""
    h, kv, i = shape.hidden, shape.kv, shape.inner
    attention = {"q_proj": (h, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, h)}
    mlp = {"gate_proj": (i, h), "up_proj": (i, h), "down_proj": (h, i)}
    return {f"self_attn.{name}": size for name, size in attention.items()} | {
        f"mlp.{name}": size for name, size in mlp.items()
    }


def write(folder: Path, modules: dict[str, tuple[int, int, int]], dtype: str, seed: int = 0) -> Path:
    """Write a PEFT adapter with seeded random factors; `modules` maps paths to (m, n, r). Existing ones are kept."""
    if (folder / "adapter_config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    code, kind = CODES[dtype]
    size = np.dtype(kind).itemsize
    entries: dict[str, tuple[int, int]] = {}
    for path, (m, n, r) in modules.items():
        entries[f"base_model.model.{path}.lora_A.weight"] = (r, n)
        entries[f"base_model.model.{path}.lora_B.weight"] = (m, r)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (rows, columns) in sorted(entries.items()):
        start, end = end, end + rows * columns * size
        header[name] = {"dtype": code, "shape": [rows, columns], "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    random = np.random.default_rng(seed)
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for _, (rows, columns) in sorted(entries.items()):
            file.write(random.standard_normal((rows, columns), dtype=np.float32).astype(kind).tobytes())
    rank = next(iter(modules.values()))[2]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "random"}))
    return folder


def experts(folder: Path) -> Path:
    """Write an adapter of many small modules: 48 layers × 256 experts × 3 projections of 64 × 48, rank 16, bfloat16."""
    names = ("gate_proj", "up_proj", "down_proj")
    return write(
        folder / "experts",
        {
            f"model.layers.{layer}.mlp.experts.{expert}.{name}": (64, 48, 16)
            for layer in range(48)
            for expert in range(256)
            for name in names
        },
        "bfloat16",
    )


def wide(folder: Path) -> Path:
    """Write an adapter of 28 modules of rank 512."""
    modules = {f"model.layers.{layer}.self_attn.q_proj": (4096, 4096, 512) for layer in range(28)}
    return write(folder / "r512", modules, "bfloat16")


def model(folder: Path, name: str) -> Path:
    """Write the adapter of one of `SHAPES`, `experts` or `r512`."""
    if name == "experts":
        return experts(folder)
    if name == "r512":
        return wide(folder)
    shape = SHAPES[name]
    modules = {
        f"model.layers.{layer}.{path}": (*size, shape.rank)
        for layer in range(shape.layers)
        for path, size in projections(shape).items()
    }
    return write(folder / name, modules, shape.dtype)
