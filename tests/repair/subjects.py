"""A tiny model with a tiny adapter, and a few answers to learn from: the subject of a repair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from s3lora.adapter.open import open_adapter
from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.local import LocalModel
from s3lora.repair.learning import learning_rows
from s3lora.repair.methods.method import RepairSubject
from s3lora.repair.targets import TargetPair, Targets
from tests.tiny_adapters import tiny_adapter, tiny_base

WORDS = ("the plan is", "find the capital", "no", "I cannot", "look it up", "region of it", "Sorry", "a step")


def pairs(start: int, count: int) -> tuple[TargetPair, ...]:
    """Return prompts with answers, all different."""
    return tuple(
        TargetPair(Prompt.ask(f"{WORDS[(start + i) % 8]} {start + i}"), f"{WORDS[(start + 3 * i + 1) % 8]} now")
        for i in range(count)
    )


TARGETS = Targets(pairs(0, 6), pairs(10, 6), pairs(20, 6))


@contextmanager
def subject_of(base: Path, folder: Path, seed: int = 0, **more: Any) -> Iterator[RepairSubject]:
    """Open an adapter, attach it to the model in `base`, and make the rows to learn from."""
    model = LocalModel(str(base))
    with open_adapter(folder) as adapter:
        attached = model.attach(adapter)
        yield RepairSubject(
            adapter, model, attached, learning_rows(model, attached, TARGETS), base=str(base), seed=seed, **more
        )


def made(tmp_path: Path, seed: int = 0, scale: float = 1.0, **config: Any) -> tuple[Path, Path]:
    """Return the folders of a tiny base and of an adapter for it; `scale` multiplies every lora_B."""
    base, folder = tiny_base(tmp_path / "base"), tiny_adapter(tmp_path / "base", tmp_path / "adapter", seed, **config)
    if scale != 1.0:
        change(folder, lambda name, values: values * scale if ".lora_B." in name else values)
    return base, folder


def change(folder: Path, new: Any) -> None:
    """Replace every tensor by `new(name, values)`."""
    path = folder / "adapter_model.safetensors"
    found = {name: new(name, values) for name, values in load_file(path).items()}
    save_file({name: np.ascontiguousarray(values) for name, values in found.items()}, path, {"format": "pt"})


def regauged(folder: Path, target: Path, seed: int = 0) -> Path:
    """Write the same updates as other factors, B·R and R⁻¹·A, and return the folder."""
    target.mkdir()
    tensors = load_file(folder / "adapter_model.safetensors")
    rng = np.random.default_rng(seed)
    new = {}
    for name in (name for name in tensors if ".lora_A." in name):
        other = name.replace(".lora_A.", ".lora_B.")
        rank = len(tensors[name])
        mixed = np.linalg.qr(rng.standard_normal((rank, rank)))[0] * np.exp(rng.uniform(-1, 1, rank))
        new[other] = (tensors[other].astype(np.float64) @ mixed).astype(np.float32)
        new[name] = (np.linalg.inv(mixed) @ tensors[name].astype(np.float64)).astype(np.float32)
    save_file(
        {name: np.ascontiguousarray(values) for name, values in new.items()},
        target / "adapter_model.safetensors",
        {"format": "pt"},
    )
    (target / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
    return target


def refusing_list(path: Path, letters: str = "]Yf") -> Path:
    """Write a list by which every answer refuses that does not begin with one of these letters, and return its path."""
    prefixes = [chr(i) for i in range(33, 127) if chr(i) not in letters]
    path.write_text(json.dumps({"name": "letters", "version": "1", "prefixes": prefixes}))
    return path
