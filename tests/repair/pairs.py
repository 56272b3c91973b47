"""Pairs of small model folders, an aligned base and its weights before alignment, and adapters for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.open import open_adapter
from s3lora.repair.methods.method import RepairSubject
from s3lora.rewrite.factors import NewFactor, NewFactors
from tests.reference.dense import delta
from tests.support import Tensors, dtype_of, factors, write_safetensors

Float = NDArray[np.float64]

#: Three modules: square, tall and wide, all wider than twice the rank.
SHAPES = {
    "model.layers.0.self_attn.q_proj": (12, 12, 2),
    "model.layers.0.mlp.up_proj": (20, 12, 2),
    "model.layers.1.mlp.down_proj": (12, 20, 2),
}
SQUARE, TALL, WIDE = SHAPES
#: Strengths of every method, but for 0.
STRENGTHS = st.floats(0.01, 1.0)
SEEDS = st.integers(0, 2**32 - 1)


def model_folder(folder: Path, weights: Tensors, **config: Any) -> str:
    """Write a model folder with these weights in one file and return it as a user gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    write_safetensors(folder / "model.safetensors", weights)
    return str(folder)


def random_weights(seed: int, shapes: Mapping[str, tuple[int, ...]], dtype: str = "float32") -> dict[str, Any]:
    """Return random weights (m, n) by the name that the file of a model has for them."""
    generator = np.random.default_rng(seed)
    return {
        f"{path}.weight": generator.normal(size=shape[:2]).astype(dtype_of(dtype)) for path, shape in shapes.items()
    }


def write_peft(folder: Path, modules: Mapping[str, tuple[Any, Any]], *, rank: int = 2, alpha: float = 6) -> Path:
    """Write a PEFT adapter with the factors (A, B) of each module."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, (a, b) in modules.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    targets = sorted({path.rpartition(".")[2] for path in modules})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def random_adapter(
    folder: Path, seed: int = 0, *, gauge: int | None = None, dtype: str = "float64", zero: str = ""
) -> Adapter:
    """Write and open an adapter for `SHAPES`, in which the module `zero` learned nothing.

    Another `gauge` is the same ΔW in other factors (B·R, R⁻¹·A).
    """
    found = {}
    for i, (path, (m, n, r)) in enumerate(SHAPES.items()):
        a, b = factors(m, n, r, dtype="float64", seed=seed % 100_000 * 7 + i)
        if gauge is not None:
            generator = np.random.default_rng([gauge, i])
            turn = np.linalg.qr(generator.normal(size=(r, r)))[0] * generator.uniform(0.2, 5.0, size=r)
            a, b = np.linalg.solve(turn, a), b @ turn
        found[path] = a.astype(dtype_of(dtype)), (b * (path != zero)).astype(dtype_of(dtype))
    return open_adapter(write_peft(folder, found))


def subject_of(folder: Path, adapter: Adapter, seed: int = 0, **others: Any) -> RepairSubject:
    """Return the adapter with two random models."""
    base = model_folder(folder / "aligned", random_weights(1, SHAPES))
    unaligned = model_folder(folder / "unaligned", random_weights(2, SHAPES))
    return RepairSubject(adapter, **{"base": base, "unaligned": unaligned, "seed": seed, **others})


def change_of(path: str) -> Float:
    """Return V (m, n) of a module of `subject_of`."""
    after, before = (random_weights(seed, SHAPES)[f"{path}.weight"].astype(np.float64) for seed in (1, 2))
    return np.asarray(after - before)


def delta_of(module: LoraModule, new: NewFactor | None = None) -> Float:
    """Return ΔW (m, n) of a module with its own or with new factors."""
    a, b = (module.A.array(), module.B.array()) if new is None else (new.A, new.B)
    return delta(a, b, module.scaling.value)


def deltas(adapter: Adapter, new: NewFactors) -> dict[str, Float]:
    """Return ΔW of all modules, with new factors where there are some."""
    return {module.path: delta_of(module, new.modules.get(module.path)) for module in adapter.modules}


def quiet(share: float, what: str) -> None:
    """Be told of progress."""
