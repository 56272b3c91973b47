"""`model_type` of a configuration → the modules of the model, as transformers 5 names them.

Each rule is a function of the configuration that returns an `ArchitectureLayout`. They were held against the models of
transformers 5.24 with configurations of odd sizes. What is not in the table is not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from s3lora.base.rules import ArchitectureLayout
from s3lora.base.sizes import layers_of

Config = Mapping[str, Any]
_ATTENTION = {
    "self_attn.q_proj": "q h",
    "self_attn.k_proj": "kv h",
    "self_attn.v_proj": "kv h",
    "self_attn.o_proj": "h q",
}
_GATED = {"mlp.gate_proj": "f h", "mlp.up_proj": "f h", "mlp.down_proj": "h f"}
_FUSED = {"mlp.gate": "e h", "=mlp.experts.gate_up_proj": "2*g h", "=mlp.experts.down_proj": "h g"}
_TEXT = {"model.embed_tokens": "~v h", "lm_head": "v h"}


def _gated(config: Config) -> ArchitectureLayout:
    return ArchitectureLayout("model.layers.{i}", {**_ATTENTION, **_GATED}, _TEXT, layers_of(config))


def _mixtral(config: Config) -> ArchitectureLayout:
    return ArchitectureLayout("model.layers.{i}", {**_ATTENTION, **_FUSED}, _TEXT, layers_of(config))


def _phimoe(config: Config) -> ArchitectureLayout:
    experts = {"mlp.router": "e h", **_FUSED}
    del experts["mlp.gate"]
    return ArchitectureLayout("model.layers.{i}", {**_ATTENTION, **experts}, _TEXT, layers_of(config))


def _sparse(config: Config, shared: Mapping[str, str]) -> ArchitectureLayout:
    """Return layers of experts, but for those that the configuration makes dense."""
    count = layers_of(config)
    step = config.get("decoder_sparse_step", 1)
    named = config.get("mlp_only_layers")
    plain = {one for one in named if isinstance(one, int)} if isinstance(named, list) else set()
    regular = isinstance(step, int) and not isinstance(step, bool) and step > 0
    sparse = frozenset(i for i in range(count) if i not in plain and (not regular or (i + 1) % step == 0))
    dense = frozenset(range(count)) - sparse
    only = {**dict.fromkeys((*_FUSED, *shared), sparse), **dict.fromkeys(_GATED, dense)}
    return ArchitectureLayout("model.layers.{i}", {**_ATTENTION, **_GATED, **_FUSED, **shared}, _TEXT, count, only)


_SHARED = {
    "mlp.shared_expert.gate_proj": "s h",
    "mlp.shared_expert.up_proj": "s h",
    "mlp.shared_expert.down_proj": "h s",
    "mlp.shared_expert_gate": "1 h",
}


def _gpt_oss(config: Config) -> ArchitectureLayout:
    experts = {"mlp.router": "e h", "=mlp.experts.gate_up_proj": "2*f h", "=mlp.experts.down_proj": "h f"}
    return ArchitectureLayout("model.layers.{i}", {**_ATTENTION, **experts}, _TEXT, layers_of(config))


def _deepseek(config: Config) -> ArchitectureLayout:
    count = layers_of(config)
    query = {"self_attn.q_a_proj": "ql h", "self_attn.q_b_proj": "qm ql"}
    if config.get("q_lora_rank") is None:
        query = {"self_attn.q_proj": "qm h"}
    attention = {
        **query,
        "self_attn.kv_a_proj_with_mqa": "kva h",
        "self_attn.kv_b_proj": "kvb kvl",
        "self_attn.o_proj": "h ov",
    }
    shared = {
        "mlp.shared_experts.gate_proj": "gs h",
        "mlp.shared_experts.up_proj": "gs h",
        "mlp.shared_experts.down_proj": "h gs",
    }
    first = config.get("first_k_dense_replace", 0)
    dense = frozenset(range(min(count, first if isinstance(first, int) else 0)))
    sparse = frozenset(range(count)) - dense
    only = {**dict.fromkeys((*_FUSED, *shared), sparse), **dict.fromkeys(_GATED, dense)}
    return ArchitectureLayout("model.layers.{i}", {**attention, **_GATED, **_FUSED, **shared}, _TEXT, count, only)


def _starcoder2(config: Config) -> ArchitectureLayout:
    inner = {**_ATTENTION, "mlp.c_fc": "f h", "mlp.c_proj": "h f"}
    return ArchitectureLayout("model.layers.{i}", inner, _TEXT, layers_of(config))


def _nemotron(config: Config) -> ArchitectureLayout:
    inner = {**_ATTENTION, "mlp.up_proj": "f h", "mlp.down_proj": "h f"}
    return ArchitectureLayout("model.layers.{i}", inner, _TEXT, layers_of(config))


def _phi(config: Config) -> ArchitectureLayout:
    inner = {**_ATTENTION, "self_attn.dense": "h q", "mlp.fc1": "f h", "mlp.fc2": "h f"}
    del inner["self_attn.o_proj"]
    return ArchitectureLayout("model.layers.{i}", inner, _TEXT, layers_of(config))


def _phi3(config: Config) -> ArchitectureLayout:
    inner = {
        "self_attn.qkv_proj": "q+2*kv h",
        "self_attn.o_proj": "h q",
        "mlp.gate_up_proj": "2*f h",
        "mlp.down_proj": "h f",
    }
    return ArchitectureLayout("model.layers.{i}", inner, _TEXT, layers_of(config))


def _glm(config: Config) -> ArchitectureLayout:
    inner = {**_ATTENTION, "mlp.gate_up_proj": "2*f h", "mlp.down_proj": "h f"}
    return ArchitectureLayout("model.layers.{i}", inner, _TEXT, layers_of(config))


def _gpt2(config: Config) -> ArchitectureLayout:
    inner = {"attn.c_attn": "3*h h", "attn.c_proj": "h h", "mlp.c_fc": "f h", "mlp.c_proj": "h f"}
    outer = {"transformer.wte": "~v h", "lm_head": "v h"}
    return ArchitectureLayout("transformer.h.{i}", inner, outer, layers_of(config))


def _gptj(config: Config) -> ArchitectureLayout:
    inner = {
        **{f"attn.{name}_proj": "h h" for name in ("q", "k", "v", "out")},
        "mlp.fc_in": "f h",
        "mlp.fc_out": "h f",
    }
    outer = {"transformer.wte": "~v h", "lm_head": "v h"}
    return ArchitectureLayout("transformer.h.{i}", inner, outer, layers_of(config))


def _gpt_neo(config: Config) -> ArchitectureLayout:
    inner = {
        **{f"attn.attention.{name}_proj": "h h" for name in ("q", "k", "v", "out")},
        "mlp.c_fc": "f h",
        "mlp.c_proj": "h f",
    }
    outer = {"transformer.wte": "~v h", "lm_head": "v h"}
    return ArchitectureLayout("transformer.h.{i}", inner, outer, layers_of(config))


_NEOX = {"mlp.dense_h_to_4h": "f h", "mlp.dense_4h_to_h": "h f"}


def _gpt_neox(config: Config) -> ArchitectureLayout:
    inner = {"attention.query_key_value": "3*h h", "attention.dense": "h h", **_NEOX}
    outer = {"gpt_neox.embed_in": "~v h", "lm_head": "v h"}
    return ArchitectureLayout("gpt_neox.layers.{i}", inner, outer, layers_of(config))


def _bloom(config: Config) -> ArchitectureLayout:
    inner = {"self_attention.query_key_value": "3*h h", "self_attention.dense": "h h",
             "mlp.dense_h_to_4h": "4*h h", "mlp.dense_4h_to_h": "h 4*h"}  # fmt: skip
    outer = {"transformer.word_embeddings": "~v h", "lm_head": "v h"}
    return ArchitectureLayout("transformer.h.{i}", inner, outer, layers_of(config))


def _falcon(config: Config) -> ArchitectureLayout:
    fused = "q+2*kv h"
    if not config.get("new_decoder_architecture"):
        fused = "h+2*a h" if config.get("multi_query", True) else "3*h h"
    inner = {"self_attention.query_key_value": fused, "self_attention.dense": "h h", **_NEOX}
    outer = {"transformer.word_embeddings": "~v h", "lm_head": "v h"}
    return ArchitectureLayout("transformer.h.{i}", inner, outer, layers_of(config))


def _opt(config: Config) -> ArchitectureLayout:
    inner = {
        **{f"self_attn.{name}_proj": "h h" for name in ("k", "v", "q", "out")},
        "fc1": "f h",
        "fc2": "h f",
    }
    wide = config.get("word_embed_proj_dim") in (None, config.get("hidden_size"))
    outer = {"model.decoder.embed_tokens": "~v h", "lm_head": "v h"} if wide else {}
    return ArchitectureLayout("model.decoder.layers.{i}", inner, outer, layers_of(config))


def _bert(config: Config) -> ArchitectureLayout:
    prefix = str(config.get("model_type"))
    inner = {
        **{f"attention.self.{name}": "h h" for name in ("query", "key", "value")},
        "attention.output.dense": "h h",
        "intermediate.dense": "f h",
        "output.dense": "h f",
    }
    # What lies above depends on the task: heads are not told.
    return ArchitectureLayout(f"{prefix}.encoder.layer.{{i}}", inner, {f"{prefix}.embeddings.word_embeddings": "~v h"},
                  layers_of(config))  # fmt: skip


#: `model_type` → the rule.
ARCHITECTURES: dict[str, Callable[[Config], ArchitectureLayout]] = {
    **dict.fromkeys(
        ("llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite", "olmo",
         "olmo2", "olmo3", "smollm3", "stablelm", "cohere", "cohere2", "seed_oss", "ernie4_5", "exaone4",
         "hunyuan_v1_dense"),
        _gated,
    ),
    "mixtral": _mixtral,
    "phimoe": _phimoe,
    "olmoe": _mixtral,
    "qwen2_moe": lambda config: _sparse(config, _SHARED),
    "qwen3_moe": lambda config: _sparse(config, {}),
    "gpt_oss": _gpt_oss,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "starcoder2": _starcoder2,
    "nemotron": _nemotron,
    "arcee": _nemotron,
    "apertus": _nemotron,
    "phi": _phi,
    "phi3": _phi3,
    "glm": _glm,
    "glm4": _glm,
    "gpt2": _gpt2,
    "gptj": _gptj,
    "gpt_neo": _gpt_neo,
    "gpt_neox": _gpt_neox,
    "bloom": _bloom,
    "falcon": _falcon,
    "opt": _opt,
    "bert": _bert,
    "roberta": _bert,
}  # fmt: skip
#: `model_type` of models that see or hear → where their language model lies. Its configuration is `text_config`.
COMPOUND = {
    **dict.fromkeys(
        ("gemma3", "llava", "llava_next", "llava_onevision", "mistral3", "paligemma", "qwen2_vl", "qwen2_5_vl",
         "qwen3_vl", "qwen3_vl_moe", "internvl", "aya_vision", "vipllava", "glm4v"),
        "model.language_model",
    ),
    "idefics3": "model.text_model",
    "smolvlm": "model.text_model",
}  # fmt: skip
#: Language models of compound ones → those of the same layout.
SAME_LAYOUT = {
    "gemma3_text": "gemma3_text",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "glm4v_text": "glm4",
}
#: What a compound model's language model is where its configuration does not say.
DEFAULT_TEXT = {
    "gemma3": "gemma3_text",
    "llava": "llama",
    "llava_next": "llama",
    "mistral3": "mistral",
    "paligemma": "gemma",
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
    "idefics3": "llama",
    "smolvlm": "llama",
}
