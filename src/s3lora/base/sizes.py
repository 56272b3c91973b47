"""The numbers of a configuration by one letter each, whatever its architecture calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3lora.base.rules import MAX_EXPERTS, MAX_LAYERS, SizeError, Sizes, whole

_HIDDEN = ("hidden_size", "n_embed", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_KEYS = ("num_key_value_heads", "num_kv_heads")
#: Name of a field → all names of what it says.
NAMES = {name: names for names in (_HIDDEN, _HEADS, _LAYERS, _INNER, _EXPERTS, _KEYS) for name in names}


def layers_of(config: Mapping[str, Any]) -> int:
    """Return the number of layers; raise SizeError where there is none that a model has."""
    count = whole(config, *_LAYERS)
    if count > MAX_LAYERS:
        raise SizeError(f"{count} layers are more than any model has")
    return count


def sizes_of(config: Mapping[str, Any]) -> Sizes:
    """Return the sizes: h hidden, v vocabulary, f inner, a head, q all queries, kv all keys, e experts, g of an expert.

    Raises SizeError where the configuration lacks one that has no default.
    """
    hidden, heads = whole(config, *_HIDDEN), whole(config, *_HEADS)
    head = whole(config, "head_dim", default=max(1, hidden // heads))
    # Old Falcon models share one key and value head; `num_kv_heads` counts those of the new ones.
    keys = whole(config, *_KEYS, default=heads)
    inner = whole(config, *_INNER, default=4 * hidden)
    experts = whole(config, *_EXPERTS, default=1)
    if experts > MAX_EXPERTS:
        raise SizeError(f"{experts} experts are more than any model has")
    each = whole(config, "moe_intermediate_size", default=inner)
    return {
        "h": hidden,
        "v": whole(config, "vocab_size", default=1),
        "f": inner,
        "a": head,
        "q": heads * head,
        "kv": keys * head,
        "e": experts,
        "g": each,
        "s": whole(config, "shared_expert_intermediate_size", default=each),
        **_latent(config, heads),
    }


def _latent(config: Mapping[str, Any], heads: int) -> Sizes:
    """Return the sizes of multi-head latent attention, as DeepSeek has it; none for other models."""
    if config.get("kv_lora_rank") is None:
        return {}
    rotary = whole(config, "qk_rope_head_dim")
    plain = whole(config, "qk_nope_head_dim")
    value = whole(config, "v_head_dim")
    latent = whole(config, "kv_lora_rank")
    return {
        "ql": whole(config, "q_lora_rank", default=1),
        "qm": heads * (plain + rotary),
        "kvl": latent,
        "kva": latent + rotary,
        "kvb": heads * (plain + value),
        "ov": heads * value,
        "gs": whole(config, "moe_intermediate_size", default=1) * whole(config, "n_shared_experts", default=1),
    }
