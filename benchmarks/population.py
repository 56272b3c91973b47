"""A made-up population of adapters: several bases, ranks and recipes, sharp ones among them, and duplicates.

    python -m benchmarks.population FOLDER [COUNT]

Random factors, so that a scan has real work to do and every run makes the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file


class Base(NamedTuple):
    """A base model: its name, how many layers it has, and its shapes, {projection: (m, n)}."""

    name: str
    layers: int
    shapes: dict[str, tuple[int, int]]


BASES = (
    Base("example/alpha-1B", 16, {"q_proj": (768, 768), "v_proj": (256, 768), "o_proj": (768, 768)}),
    Base("example/beta-2B-instruct", 24, {"q_proj": (512, 512), "k_proj": (128, 512), "v_proj": (128, 512)}),
    Base("example/gamma-3B", 9, {f"{name}_proj": (1024 if name in "qo" else 256, 1024) for name in "qkvo"}),
)  # fmt: skip
RANKS = (8, 16)


def write_one(folder: Path, number: int, bases: tuple[Base, ...] = BASES) -> Path:
    """Write adapter `number` into `folder`, sharper the further its number stands within a hundred."""
    random = np.random.default_rng(number)
    base = bases[number % len(bases)]
    rank = RANKS[number // len(bases) % len(RANKS)]
    decay = np.exp(-np.arange(rank) * (0.05 + 0.4 * (number % 100) / 100))
    tensors: dict[str, Any] = {}
    for layer in range(base.layers):
        for projection, (m, n) in base.shapes.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{projection}"
            tensors[f"{key}.lora_A.weight"] = random.standard_normal((rank, n), dtype=np.float32)
            tensors[f"{key}.lora_B.weight"] = (0.01 * random.standard_normal((m, rank)) * decay).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.05 * (number % 2),
        "target_modules": sorted(base.shapes),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_population(folder: Path, count: int, bases: tuple[Base, ...] = BASES) -> Path:
    """Write `count` adapters into folders `00000`, `00001`, … of `folder`."""
    for number in range(count):
        write_one(folder / f"{number:05d}", number, bases)
    return folder


if __name__ == "__main__":
    write_population(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
