"""The configuration of a model → its modules, by the rules of its architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3lora.base.architectures import ARCHITECTURES, COMPOUND, DEFAULT_TEXT, SAME_LAYOUT, Config
from s3lora.base.class_defaults import DEFAULTS, completed
from s3lora.base.model import BaseModel, BaseModule
from s3lora.base.rules import SizeError
from s3lora.base.sizes import sizes_of
from s3lora.errors import printable

#: Architectures whose configurations leave `tie_word_embeddings` out where output layer and embeddings are tied.
_TIED = frozenset(("gpt2", "gpt_neo", "gemma", "gemma2", "gemma3", "gemma3_text", "opt", "bloom", "falcon", "cohere",
                   "cohere2", "starcoder2"))  # fmt: skip
_APART = frozenset(("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "phi", "phi3", "gptj",
                    "gpt_neox", "gpt_oss", "deepseek_v2", "deepseek_v3", "olmo2"))  # fmt: skip


def model_of(config: Config, name: str) -> BaseModel:
    """Return the modules of the model that a configuration describes; none where its architecture is not known.

    >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 12}
    >>> model = model_of({"model_type": "llama", "vocab_size": 20, **sizes}, "tiny")
    >>> model.modules["model.layers.0.mlp.up_proj"].shape
    (12, 8)
    """
    kind = _text(config.get("model_type"))
    place = COMPOUND.get(kind or "")
    inner, text = config, kind
    if place is not None:
        given = config.get("text_config")
        inner = given if isinstance(given, Mapping) else config
        text = _text(inner.get("model_type")) if isinstance(given, Mapping) else None
        text = SAME_LAYOUT.get(text or "", text) or DEFAULT_TEXT.get(kind or "")
        if text not in ARCHITECTURES:
            text = DEFAULT_TEXT.get(kind or "")
    shown = None if kind is None else printable(kind, 60)
    rule = ARCHITECTURES.get(text or "")
    if rule is None:
        why = "names no `model_type`" if kind is None else f"is of the architecture {shown}, whose names are not known"
        return BaseModel(name, shown, notes=(f"the configuration of the base {why}",))
    whose = (_text(inner.get("model_type")), None if inner is config else f"{kind}_text", text)
    inner = completed(inner, next((one for one in whose if one in DEFAULTS), None))
    try:
        layout, sizes = rule(inner), sizes_of(inner)
        found = [_placed(module, place) for module in layout.modules(sizes)]
    except SizeError as error:
        return BaseModel(name, shown, notes=(f"the configuration of the base does not tell its sizes: {error}",))
    body = f"{_path(layout.layers.partition('.{i}')[0], place)}."
    # Beside the language model, and above an encoder, there is what no rule tells.
    complete = place is None and text not in ("bert", "roberta")
    return BaseModel(
        name,
        shown,
        {module.path: module for module in found},
        "configuration",
        complete,
        (body,),
        _tied(config, inner, text),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _path(path: str, place: str | None) -> str:
    return path if place is None or not path.startswith("model.") else f"{place}.{path.removeprefix('model.')}"


def _placed(module: BaseModule, place: str | None) -> BaseModule:
    return BaseModule(_path(module.path, place), module.shape, module.kind, module.experts)


def _tied(config: Config, inner: Config, text: str | None) -> bool | None:
    for one in (config, inner):
        if isinstance(tied := one.get("tie_word_embeddings"), bool):
            return tied
    return True if text in _TIED else False if text in _APART else None
