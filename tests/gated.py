"""Adapters for tests of rules: good ones, and ones that hold NaN."""

from __future__ import annotations

import math
from pathlib import Path

from tests.support import factors, make_adapter, write_safetensors

LAYERS = {f"model.layers.{i}.self_attn.{name}": (16, 12, 4) for i in range(4) for name in ("q_proj", "v_proj")}


def good(folder: Path, seed: int = 0) -> Path:
    """Write an adapter of eight modules."""
    return make_adapter(folder, LAYERS, seed=seed)


def damaged(folder: Path, *paths: str, value: float = math.nan) -> Path:
    """Write an adapter like `good`, in whose modules `paths` one number is `value`."""
    made = good(folder)
    tensors = {}
    for i, (path, (m, n, r)) in enumerate(LAYERS.items()):
        a, b = factors(m, n, r, seed=i)
        if path in paths:
            b[3, 1] = value
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
    write_safetensors(made / "adapter_model.safetensors", tensors, {"format": "pt"})
    return made
