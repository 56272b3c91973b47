"""LoRA adapters for the tiny model, as PEFT writes them."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import LAYERS, tiny_folder, torch, transformers

peft = pytest.importorskip("peft")

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
#: Every module that a tiny adapter changes, in the order of the model.
MODULES = tuple(f"model.layers.{i}.self_attn.{name}" for i in range(LAYERS) for name in PROJECTIONS)
#: All that a Llama has, for adapters with many modules.
EVERYWHERE = (*PROJECTIONS, "o_proj", "gate_proj", "up_proj", "down_proj")


@cache
def _kept() -> Path:
    """Return a folder that lives as long as this process: what is always the same is made once."""
    folder = Path(tempfile.mkdtemp(prefix="s3lora-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _once(name: str, folder: Path, make: Callable[[Path], object]) -> Path:
    """Let `folder` hold what `make` writes, out of a copy if this process has made it before."""
    made = _kept() / name
    if not made.exists():
        make(made)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder


def tiny_base(folder: Path) -> Path:
    """Write the model and its tokenizer into a folder, always the same, and return it."""
    return _once("base", folder, tiny_folder)


def tiny_adapter(base: Path, folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write an adapter for the model in `base`, filled at random with the seed, and return its folder."""
    files = [path.read_bytes() for path in sorted(base.iterdir()) if path.is_file()]
    told = json.dumps([seed, config], sort_keys=True, default=str).encode()
    name = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (*files, told))).hexdigest()
    return _once(name, folder, lambda made: _adapter(base, made, seed, config))


def _adapter(base: Path, folder: Path, seed: int, config: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        fields = {"r": 4, "lora_alpha": 8, "target_modules": list(PROJECTIONS), "task_type": "CAUSAL_LM", **config}
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**fields)).eval()
        random = torch.Generator().manual_seed(seed)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                # Factors of different size, so that the rankings by sharpness and by magnitude differ.
                parameter.data = torch.randn(parameter.shape, generator=random) * torch.rand(1, generator=random)
        wrapped.save_pretrained(folder)
    # PEFT writes where the base was on this disk.
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "tiny"}))


def learned_adapter(base: Path, folder: Path) -> Path:
    """Write an adapter by which the built-in plans are likelier than by the base in `base`: noise that happens to help.

    `tune` has nothing to look for where an adapter learned nothing.
    """
    return tiny_adapter(base, folder, 3, lora_alpha=1)
