"""What a kind is, and what the makers of all kinds share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import write_safetensors

Array = np.ndarray[Any, Any]
Stored = dict[str, Array]
#: Dense ΔW (m, n) of every module, in any order, with the scaling that a reader can know.
Updates = list[Array]
Make = Callable[[Path, np.random.Generator], Updates]

GROUPS = ("PEFT", "Other tools for language models", "Picture models", "What is refused")
PREFIX = "base_model.model."
#: Of the tiny Llama that the commands with a model use.
HIDDEN, KEYS, INNER, LAYERS, VOCABULARY = 32, 16, 48, 2, 99
RANK, ALPHA = 3, 6.0
#: Modules of the tiny Llama and their shapes (m, n).
SHAPES = {
    f"model.layers.{i}.self_attn.{p}_proj": (m, HIDDEN) for i in range(LAYERS) for p, m in (("q", HIDDEN), ("v", KEYS))
}


@dataclass(frozen=True)
class Kind:
    """One kind: what it is called, how its keys look, and what makes one.

    `make` fills an empty folder by a generator, and returns the updates. `given` is what a command is given: a file of
    that folder, or the folder itself. `names` are the modules of the base that the adapter is for, with their shapes.
    """

    title: str
    keys: str
    make: Make
    group: str
    given: str = ""
    options: tuple[str, ...] = ()
    names: Mapping[str, tuple[int, ...]] | None = None
    #: Whether the base is the tiny Llama, on which the commands with a model can be tried.
    llama: bool = True
    #: The true updates where the base weights tell them: (what is stored, weights by name) → updates.
    truth: Callable[[Stored, Mapping[str, Array]], Updates] | None = None


def drawn(random: np.random.Generator, *shape: int) -> Array:
    """Return numbers in float32."""
    return random.normal(size=shape).astype(np.float32)


def product(a: Array, b: Array, scale: float = 1.0) -> Array:
    """Return s·B·A of A (r, n) and B (m, r) in float64, kernels flattened."""
    wide = b.reshape(len(b), -1).astype(np.float64) @ a.reshape(len(a), -1).astype(np.float64)
    return np.asarray(scale * wide)


def pair(random: np.random.Generator, m: int, n: int, r: int = RANK) -> tuple[Array, Array]:
    """Return A (r, n) and B (m, r)."""
    return drawn(random, r, n), drawn(random, m, r)


def base_weights(names: Mapping[str, tuple[int, ...]]) -> Stored:
    """Return the weights of a base, the same at every call."""
    random = np.random.default_rng(16)
    return {f"{name}.weight": drawn(random, *shape) for name, shape in names.items()}


def write(folder: Path, name: str, tensors: Stored, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file."""
    write_safetensors(folder / name, tensors, metadata)


def configure(folder: Path, **fields: Any) -> None:
    """Write `adapter_config.json`."""
    (folder / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")


def peft_config(**fields: Any) -> dict[str, Any]:
    """Return the configuration of a LoRA of PEFT for the modules of `SHAPES`."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        **fields,
    }


def save_torch(path: Path, tensors: Any) -> None:
    """Write a file of torch: a dictionary of tensors, or a list of them."""
    import torch

    if isinstance(tensors, dict):
        torch.save({name: torch.from_numpy(values) for name, values in tensors.items()}, path)
    else:
        torch.save([torch.from_numpy(values) for values in tensors], path)
