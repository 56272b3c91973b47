"""What others write of a base model: its configuration, and an index of its weights."""

from __future__ import annotations

import json
from pathlib import Path

from s3lora.base.names import ModuleNames, renamings
from s3lora.base.read import read_base
from tests.fuzz.target import Target

_SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 12, "vocab_size": 20}
_LATENT = {"kv_lora_rank": 4, "qk_rope_head_dim": 2, "qk_nope_head_dim": 2, "v_head_dim": 2, "n_routed_experts": 4}
_ASKED = ("model.layers.1.self_attn.q_proj", "h.0.attn.c_attn", "model.layers.0.mlp.experts.3.w1", "lm_head")


def _asked(base: str) -> None:
    model = read_base(base)
    names = ModuleNames(model.modules)
    found = {path: other for path in _ASKED if (other := names.find(path)) is not None}
    renamings(found)
    assert all(model.modules[path] for path in found.values())


def _configuration(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(data)
    _asked(str(folder))


def _index(data: bytes, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_bytes(data)
    _asked(str(folder))


def _configurations() -> list[bytes]:
    kinds = ("llama", "gpt2", "falcon", "qwen2_moe", "gpt_oss", "phi3", "of_ours")
    made = [{"model_type": kind, **_SIZES} for kind in kinds]
    made.append({"model_type": "deepseek_v3", **_SIZES, **_LATENT, "first_k_dense_replace": 1})
    made.append({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **_SIZES}})
    return [json.dumps(one).encode() for one in made]


def _indexes() -> list[bytes]:
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(3)] + ["h.0.attn.c_attn.weight", "x.qweight"]
    return [json.dumps({"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}).encode()]


_WORDS = (
    b'"model_type"',
    b'"text_config"',
    b'"num_hidden_layers"',
    b'"head_dim"',
    b'"weight_map"',
    b"1e400",
    b"null",
    b"-1",
)
TARGETS = (
    Target("base-config", "the configuration of a base model", _configuration, _configurations, _WORDS),
    Target("base-index", "an index of the weights of a base model", _index, _indexes, _WORDS),
)
