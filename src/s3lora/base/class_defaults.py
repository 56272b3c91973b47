"""What the class of a configuration in transformers gives the sizes that a config.json leaves out.

A file that `save_pretrained` wrote lacks what is the class's own in the configuration of a language model within
another: that of Gemma 3 has hidden size and layers alone. The numbers are those of transformers 5.24; what a class
computes from others, as the size of a head from the hidden size, is not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3lora.base.sizes import NAMES

#: `model_type` → field → number. What is None there has no entry.
DEFAULTS: dict[str, dict[str, int | bool]] = {
    "llama": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 11008,
        "vocab_size": 32000},
    "mistral": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 32000},
    "ministral": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 32000},
    "qwen2": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 22016,
        "num_key_value_heads": 32, "vocab_size": 151936},
    "qwen3": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 22016,
        "head_dim": 128, "num_key_value_heads": 32, "vocab_size": 151936},
    "gemma": {"hidden_size": 3072, "num_attention_heads": 16, "num_hidden_layers": 28, "intermediate_size": 24576,
        "head_dim": 256, "num_key_value_heads": 16, "vocab_size": 256000},
    "gemma2": {"hidden_size": 2304, "num_attention_heads": 8, "num_hidden_layers": 26, "intermediate_size": 9216,
        "head_dim": 256, "num_key_value_heads": 4, "vocab_size": 256000},
    "gemma3_text": {"hidden_size": 2304, "num_attention_heads": 8, "num_hidden_layers": 26,
        "intermediate_size": 9216, "head_dim": 256, "num_key_value_heads": 4, "vocab_size": 262208},
    "granite": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 11008, "vocab_size": 32000},
    "olmo": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 11008,
        "vocab_size": 50304},
    "olmo2": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 11008,
        "vocab_size": 50304},
    "olmo3": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 11008,
        "vocab_size": 50304},
    "smollm3": {"hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 36,
        "intermediate_size": 11008, "num_key_value_heads": 4, "vocab_size": 128256},
    "stablelm": {"hidden_size": 2560, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 6912, "num_key_value_heads": 32, "vocab_size": 50304},
    "cohere": {"hidden_size": 8192, "num_attention_heads": 64, "num_hidden_layers": 40,
        "intermediate_size": 22528, "vocab_size": 256000},
    "cohere2": {"hidden_size": 8192, "num_attention_heads": 64, "num_hidden_layers": 40,
        "intermediate_size": 22528, "vocab_size": 256000},
    "seed_oss": {"hidden_size": 4096, "num_attention_heads": 80, "num_hidden_layers": 64,
        "intermediate_size": 27648, "head_dim": 128, "num_key_value_heads": 8, "vocab_size": 155136},
    "ernie4_5": {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 18,
        "intermediate_size": 3072, "head_dim": 128, "num_key_value_heads": 2, "vocab_size": 103424},
    "exaone4": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 16384, "num_key_value_heads": 32, "vocab_size": 102400},
    "hunyuan_v1_dense": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 11008, "vocab_size": 290943},
    "mixtral": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 14336, "num_local_experts": 8, "num_key_value_heads": 8, "vocab_size": 32000},
    "phimoe": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 6400,
        "num_local_experts": 16, "num_key_value_heads": 8, "vocab_size": 32064},
    "olmoe": {"hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 16, "intermediate_size": 2048,
        "num_experts": 64, "vocab_size": 50304},
    "qwen2_moe": {"hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 24,
        "intermediate_size": 5632, "num_experts": 60, "num_key_value_heads": 16, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "vocab_size": 151936, "decoder_sparse_step": 1},
    "qwen3_moe": {"hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 24,
        "intermediate_size": 6144, "num_local_experts": 128, "num_key_value_heads": 4,
        "moe_intermediate_size": 768, "vocab_size": 151936, "decoder_sparse_step": 1},
    "gpt_oss": {"hidden_size": 2880, "num_attention_heads": 64, "num_hidden_layers": 36,
        "intermediate_size": 2880, "num_local_experts": 128, "head_dim": 64, "num_key_value_heads": 8,
        "vocab_size": 201088},
    "deepseek_v2": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 11008, "n_routed_experts": 64, "head_dim": 64, "moe_intermediate_size": 1407,
        "vocab_size": 102400, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
        "v_head_dim": 128, "q_lora_rank": 1536, "n_shared_experts": 2, "first_k_dense_replace": 0},
    "deepseek_v3": {"hidden_size": 7168, "num_attention_heads": 128, "num_hidden_layers": 61,
        "intermediate_size": 18432, "n_routed_experts": 256, "head_dim": 64, "num_key_value_heads": 128,
        "moe_intermediate_size": 2048, "vocab_size": 129280, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128, "v_head_dim": 128, "q_lora_rank": 1536, "n_shared_experts": 1,
        "first_k_dense_replace": 3},
    "starcoder2": {"hidden_size": 3072, "num_attention_heads": 24, "num_hidden_layers": 30,
        "intermediate_size": 12288, "num_key_value_heads": 2, "vocab_size": 49152},
    "nemotron": {"hidden_size": 6144, "num_attention_heads": 48, "num_hidden_layers": 32,
        "intermediate_size": 24576, "vocab_size": 256000},
    "arcee": {"hidden_size": 2560, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 18432,
        "vocab_size": 32000},
    "apertus": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 14336, "vocab_size": 131072},
    "phi": {"hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 24, "intermediate_size": 8192,
        "vocab_size": 51200},
    "phi3": {"hidden_size": 3072, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 8192,
        "vocab_size": 32064},
    "glm": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 40, "intermediate_size": 13696,
        "head_dim": 128, "num_key_value_heads": 2, "vocab_size": 151552},
    "glm4": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 40, "intermediate_size": 13696,
        "head_dim": 128, "num_key_value_heads": 2, "vocab_size": 151552},
    "gpt2": {"n_embd": 768, "n_head": 12, "n_layer": 12, "vocab_size": 50257},
    "gptj": {"n_embd": 4096, "n_head": 16, "n_layer": 28, "vocab_size": 50400},
    "gpt_neo": {"hidden_size": 2048, "num_heads": 16, "num_layers": 24, "vocab_size": 50257},
    "gpt_neox": {"hidden_size": 6144, "num_attention_heads": 64, "num_hidden_layers": 44,
        "intermediate_size": 24576, "vocab_size": 50432},
    "bloom": {"hidden_size": 64, "n_head": 8, "n_layer": 2, "vocab_size": 250880},
    "falcon": {"hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32, "vocab_size": 65024,
        "new_decoder_architecture": False, "multi_query": True},
    "opt": {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "ffn_dim": 3072,
        "vocab_size": 50272},
    "bert": {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072,
        "vocab_size": 30522},
    "roberta": {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072,
        "vocab_size": 50265},
    "qwen2_vl_text": {"hidden_size": 8192, "num_attention_heads": 64, "num_hidden_layers": 80,
        "intermediate_size": 29568, "num_key_value_heads": 8, "vocab_size": 152064},
    "qwen2_5_vl_text": {"hidden_size": 8192, "num_attention_heads": 64, "num_hidden_layers": 80,
        "intermediate_size": 29568, "num_key_value_heads": 8, "vocab_size": 152064},
    "qwen3_vl_text": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 22016, "head_dim": 128, "num_key_value_heads": 32, "vocab_size": 151936},
    "qwen3_vl_moe_text": {"hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 24,
        "intermediate_size": 5632, "num_local_experts": 60, "num_key_value_heads": 16,
        "moe_intermediate_size": 1408, "vocab_size": 151936, "decoder_sparse_step": 1},
    "glm4v_text": {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 40,
        "intermediate_size": 13696, "num_key_value_heads": 2, "vocab_size": 151552},
}  # fmt: skip


def completed(config: Mapping[str, Any], kind: str | None) -> Mapping[str, Any]:
    """Return a configuration with what its class gives the sizes of which it has no name at all.

    >>> completed({"hidden_size": 2560, "num_attention_heads": 8}, "gemma3_text")["head_dim"]
    256
    """
    own = DEFAULTS.get(kind or "", {})
    left = {name: value for name, value in own.items() if not any(one in config for one in NAMES.get(name, (name,)))}
    return {**left, **config}
