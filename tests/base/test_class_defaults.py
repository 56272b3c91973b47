"""Sizes that a configuration leaves to its class are those that transformers gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s3lora.base.class_defaults import DEFAULTS
from s3lora.base.configured import model_of

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", DEFAULTS)
def test_every_number_is_that_of_the_class(kind: str) -> None:
    made = transformers.AutoConfig.for_model(kind).to_dict()
    assert {name: made[name] for name in DEFAULTS[kind]} == DEFAULTS[kind]


#: What the text model's own configuration says, by the model around it; each is laid out as published ones are.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "gemma3": {"model_type": "gemma3_text", "hidden_size": 320, "intermediate_size": 96, "num_hidden_layers": 2},
    "llava": {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 4},
    "qwen2_vl": {"num_hidden_layers": 1, "hidden_size": 128, "num_attention_heads": 16, "intermediate_size": 32},
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_is_left_out_is_what_the_model_is_built_with(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "text_config": LEFT_OUT[kind]}))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        built = transformers.AutoModelForImageTextToText.from_config(config)
    real = {name: tuple(one.shape) for name, one in built.named_parameters() if "language_model.layers" in name}
    found = model_of(json.loads((tmp_path / "config.json").read_text()), "base").modules
    projections = {f"{path}.weight": one.shape for path, one in found.items() if ".layers." in path}
    assert projections
    assert {name: real[name] for name in projections} == projections


def test_a_size_by_another_name_is_no_size_left_out() -> None:
    config = {"model_type": "bloom", "n_embed": 96, "n_layer": 1, "num_attention_heads": 4}
    found = model_of(config, "base").modules["transformer.h.0.self_attention.query_key_value"]
    assert found.shape == (288, 96)
