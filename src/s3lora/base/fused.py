"""Where a weight lies in a base that calls it otherwise, or stores it as a part of a larger one.

Rows of a fused q, k and v lie, by the model's own code in Transformers,

    whole after whole      all heads of q, then those of k, then those of v: Phi-3, GPT-2, MPT; Falcon with one
                           head of k and v for all
    head after head        q, k and v of the first head, then of the next: GPT-NeoX, BLOOM, Falcon without either
    group after group      the heads of q that share k and v, then these: Falcon's new architecture

Experts of one parameter are (E, outputs, inputs) in Mixtral, Qwen, OLMoE, Phi and DeepSeek, and (E, inputs, outputs) in
Llama 4 and GPT-OSS. gate comes before up, but in GPT-OSS, where their outputs take turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GATE_FIRST", "are_upright", "fused_parts", "gate_up_rows", "other_names", "qkv_rows"]

Rows = NDArray[np.int64]
#: Architectures whose experts are (E, outputs, inputs), all rows of gate before those of up.
GATE_FIRST = frozenset(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "deepseek_v2", "deepseek_v3"))
#: Those whose experts are (E, inputs, outputs) → whether outputs of gate and up take turns.
_TURNED = {"gpt_oss": True, "llama4": False, "llama4_text": False}
_WHOLES = frozenset(("phi3", "gpt2", "openai-gpt", "imagegpt", "decision_transformer", "mpt"))
_BY_HEAD = frozenset(("gpt_neox", "bloom"))
_GATE_UP = frozenset(("phi3", "glm", "glm4"))
#: Mixtral's old names of projections, which Tinker has for all models, and theirs.
_OLD = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_NEW = {new: old for old, new in _OLD.items()}
_EXPERT = re.compile(
    r"(?P<head>.+?)\.(?:mlp|block_sparse_moe|feed_forward)\.(?:experts|switch_mlp)\.(?P<rest>\d{1,6})\.(?P<name>\w+)"
)
_LIT = re.compile(r"(?:transformer\.)?h\.(?P<layer>\d{1,6})\.(?P<name>.+)")
#: litGPT's names in a layer → those of the models that it loads, Llama's and GPT-NeoX's kind.
_LIT_NAMES = {
    "model.layers": {
        **{f"attn.qkv.{part}": f"self_attn.{part}_proj" for part in "qkv"},
        "attn.proj": "self_attn.o_proj",
        "mlp.fc_1": "mlp.gate_proj",
        "mlp.fc_2": "mlp.up_proj",
        "mlp.proj": "mlp.down_proj",
    },
    "gpt_neox.layers": {
        **{f"attn.qkv.{part}": f"attention.{part}_proj" for part in "qkv"},
        "attn.proj": "attention.dense",
        "mlp.fc": "mlp.dense_h_to_4h",
        "mlp.proj": "mlp.dense_4h_to_h",
    },
}
_PART = re.compile(r"(?P<head>.+)\.(?P<part>[qkv])(?:_proj)?")
_JOINED = ("qkv_proj", "c_attn", "query_key_value", "qkv", "Wqkv")


def other_names(path: str) -> Iterator[str]:
    """Yield what a module may be called in its base by another tool, or in another version.

    >>> list(other_names("model.layers.0.mlp.switch_mlp.3.up_proj"))[:2]
    ['model.layers.0.mlp.experts.3.up_proj', 'model.layers.0.mlp.experts.3.w3']
    >>> list(other_names("transformer.h.1.attn.qkv.q"))
    ['model.layers.1.self_attn.q_proj', 'gpt_neox.layers.1.attention.q_proj']
    """
    if (match := _EXPERT.fullmatch(path)) is not None:
        names = (match["name"], _OLD.get(match["name"]) or _NEW.get(match["name"]) or match["name"])
        for layer in ("mlp", "block_sparse_moe", "feed_forward"):
            for name in dict.fromkeys(names):
                yield f"{match['head']}.{layer}.experts.{match['rest']}.{name}"
    elif (match := _LIT.fullmatch(path)) is not None:
        for head, inner in _LIT_NAMES.items():
            if match["name"] in inner:
                yield f"{head}.{match['layer']}.{inner[match['name']]}"


def fused_parts(path: str) -> Iterator[tuple[str, str]]:
    """Yield the fused weights that a module may be a part of, with which part it is.

    >>> [*fused_parts("layers.0.self_attn.k_proj")][0], [*fused_parts("layers.0.mlp.up_proj")]
    (('layers.0.self_attn.qkv_proj', 'k'), [('layers.0.mlp.gate_up_proj', 'up')])
    """
    head, _, name = path.rpartition(".")
    if name in ("gate_proj", "up_proj"):
        yield f"{head}.gate_up_proj", name.removesuffix("_proj")
    elif (match := _PART.fullmatch(path)) is not None:
        inside = match["head"].rpartition(".")
        if inside[2] in _JOINED:  # `….qkv.q`
            yield match["head"], match["part"]
            head = inside[0]
        yield from ((f"{head}.{joined}", match["part"]) for joined in _JOINED)


def are_upright(config: Mapping[str, Any]) -> bool | None:
    """Return whether a model's fused experts are (E, outputs, inputs), None where that is not known."""
    kind = config.get("model_type")
    return True if kind in GATE_FIRST else False if kind in _TURNED else None


def gate_up_rows(config: Mapping[str, Any], part: str, size: int, *, experts: bool) -> Rows | str:
    """Return which of the 2·size outputs of `gate_up_proj` are gate's or up's, or why that is not known."""
    kind, second = config.get("model_type"), part == "up"
    if experts and _TURNED.get(str(kind)):
        return np.arange(size) * 2 + second
    if kind in ((*GATE_FIRST, *_TURNED) if experts else _GATE_UP):
        return np.arange(size) + second * size
    return f"is a part of a fused gate_up_proj, in an order that is not known of {kind}"


def qkv_rows(config: Mapping[str, Any], part: str, total: int) -> Rows | str:
    """Return which of the `total` rows of a fused q, k and v are those of a part, or why that is not known."""
    kind = config.get("model_type")
    heads, hidden = (_number(config, *names) for names in (("num_attention_heads", "n_head", "n_heads"),
                                                           ("hidden_size", "n_embd", "d_model")))  # fmt: skip
    if not heads or not hidden:
        return "is a part of a fused weight, and the configuration does not tell how many heads it has"
    size, i = _number(config, "head_dim") or hidden // heads, "qkv".index(part)
    shared = _number(config, "num_key_value_heads", "num_kv_heads") or heads
    by_head = kind in _BY_HEAD
    if kind == "falcon" and not config.get("new_decoder_architecture"):
        shared, by_head = 1, not config.get("multi_query", True)
    by_group = kind == "falcon" and bool(config.get("new_decoder_architecture")) and heads % shared == 0
    if not (by_head or by_group or kind in _WHOLES or kind == "falcon"):
        return f"is a part of a fused weight, whose rows lie in an order that is not known of {kind}"
    # Of groups, each has its queries, one key and one value.
    wanted = (3 * heads if by_head else heads + 2 * shared) * size
    if wanted != total:  # before anything of that size is made
        return f"is a part of a fused weight of {total} rows, where the configuration tells of {wanted}"
    if by_head:
        rows = np.arange(total).reshape(heads, 3, size)[:, i]
    elif by_group:
        each = heads // shared
        parts = slice(0, each) if part == "q" else slice(each + i - 1, each + i)
        rows = np.arange(total).reshape(shared, each + 2, size)[:, parts]
    else:
        starts = (0, heads * size, (heads + shared) * size, total)
        rows = np.arange(starts[i], starts[i + 1])
    return rows.ravel()


def _number(config: Mapping[str, Any], *names: str) -> int:
    found = (config[name] for name in names if isinstance(config.get(name), int))
    return max(0, next(found, 0))
