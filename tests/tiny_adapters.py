"""LoRA adapters for the tiny model, as PEFT writes them."""

from __future__ import annotations

import json
import warnings
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


def tiny_base(folder: Path) -> Path:
    """Write the model and its tokenizer into a folder, always the same, and return it."""
    return tiny_folder(folder)


def tiny_adapter(base: Path, folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write an adapter for the model in `base`, filled at random with the seed, and return its folder."""
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
    return folder


def learned_adapter(base: Path, folder: Path) -> Path:
    """Write an adapter by which the built-in plans are likelier than by the base in `base`: noise that happens to help.

    `tune` has nothing to look for where an adapter learned nothing.
    """
    return tiny_adapter(base, folder, 3, lora_alpha=1)
