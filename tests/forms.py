"""Made-up adapters whose updates are no pair of factors, written as PEFT and LyCORIS write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import dtype_of, write_safetensors

Stored = dict[str, np.ndarray[Any, Any]]
PREFIX = "base_model.model."
PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qv"]
M, N, RANK = 12, 20, 3
#: Of AdaLoRA: what the numbers in E are, 0 for a direction that was pruned.
SPREAD = {0: (2.0, 0.5, 1.0), 1: (0.0, 3.0, 0.25)}


def loha(random: np.random.Generator, m: int = M, n: int = N, r: int = RANK, s: int = RANK) -> Stored:
    return {
        "hada_w1_a": random.normal(size=(m, r)),
        "hada_w1_b": random.normal(size=(r, n)),
        "hada_w2_a": random.normal(size=(m, s)),
        "hada_w2_b": random.normal(size=(s, n)),
    }


def lokr(random: np.random.Generator, first: int | None = None, second: int | None = 2, conv: int = 1) -> Stored:
    """Return W1 (3 × 4) ⊗ W2 (4 × 5·conv²); the numbers are the ranks of those that are stored as two factors."""
    made: Stored = {}
    for name, (rows, columns), rank in (("lokr_w1", (3, 4), first), ("lokr_w2", (4, 5 * conv**2), second)):
        if rank is None:
            made[name] = random.normal(size=(rows, columns))
        else:
            made[f"{name}_a"] = random.normal(size=(rows, rank))
            made[f"{name}_b"] = random.normal(size=(rank, columns))
    if conv > 1 and "lokr_w2" in made:
        made["lokr_w2"] = made["lokr_w2"].reshape(4, 5, conv, conv)
    return made


def adalora(random: np.random.Generator, layer: int = 0) -> Stored:
    return {
        "lora_A": random.normal(size=(RANK, N)),
        "lora_B": random.normal(size=(M, RANK)),
        "lora_E": np.array(SPREAD[layer]).reshape(RANK, 1),
    }


def _write(folder: Path, tensors: Stored, config: Mapping[str, Any] | None, dtype: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: values.astype(dtype_of(dtype)) for name, values in tensors.items()}
    write_safetensors(folder / "adapter_model.safetensors", stored, {"format": "pt"})
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def peft_adapter(folder: Path, form: str, dtype: str = "float32", seed: int = 0, **fields: Any) -> Path:
    """Write an adapter of PEFT for the modules at `PATHS`.

    `form` is loha, lokr, lokr-whole, adalora, vera or qalora.
    """
    random = np.random.default_rng(seed)
    config: dict[str, Any] = {
        "peft_type": form.partition("-")[0].upper(),
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "some/base-model",
        "task_type": "CAUSAL_LM",
    }
    tensors: Stored = {}
    for path in PATHS:
        if form == "loha":
            parts = loha(random)
        elif form.startswith("lokr"):
            parts = lokr(random, None, None if form == "lokr-whole" else 2)
        elif form == "adalora":
            parts = adalora(random, int(path.split(".")[2]))
        elif form == "vera":
            parts = {"vera_lambda_b": random.normal(size=M), "vera_lambda_d": random.normal(size=RANK)}
        else:
            parts = {
                "lora_A.weight": random.normal(size=(RANK, N // 4)),
                "lora_B.weight": random.normal(size=(M, RANK)),
            }
        tensors.update({f"{PREFIX}{path}.{name}": values for name, values in parts.items()})
    if form == "vera":
        tensors["base_model.vera_A"] = random.normal(size=(RANK, N))
        tensors["base_model.vera_B"] = random.normal(size=(M + 2, RANK))
        config.update(r=RANK, save_projection=True)
    elif form == "adalora":
        config.update(init_r=RANK + 1, lora_alpha=8, target_r=2, total_step=10)
    elif form == "qalora":
        config.update(peft_type="LORA", use_qalora=True, qalora_group_size=4, r=RANK, lora_alpha=6)
    else:
        config.update(r=2 if form.startswith("lokr") else RANK, alpha=6)
    return _write(folder, tensors, {**config, **fields}, dtype)


def lycoris_adapter(folder: Path, modules: Mapping[str, Stored], dtype: str = "float32") -> Path:
    """Write parts by the bases of their keys, as LyCORIS does."""
    tensors = {f"{base}.{name}": values for base, parts in modules.items() for name, values in parts.items()}
    return _write(folder, tensors, None, dtype)
