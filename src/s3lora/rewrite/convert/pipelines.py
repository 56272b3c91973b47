"""Which model of a pipeline a module is of, by the first name of its path, as Diffusers writes it."""

from __future__ import annotations

import re

from s3lora.adapter.formats.wrappers import PREFIX
from s3lora.adapter.model import Adapter

#: What a pipeline calls the models that it loads LoRA into.
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
#: What language models hold that are called `transformer` too: GPT-2, Falcon, BLOOM, DistilBERT, ChatGLM, MPT, DBRX.
_LANGUAGE = re.compile(
    r"(?:h|layer|encoder\.layers)\.\d+\..+|blocks\.\d+\.(?:norm_attn_norm\..+|attn\.(?:Wqkv|out_proj)"
    r"|ffn\.(?:up_proj|gate_proj|down_proj|router\..+|experts\..+))|(?:wte|wpe|word_embeddings|output_layer)(?:\..+)?"
)
#: Names by which a `transformer` is one that makes pictures, whatever else it has: its blocks, or its attention.
_PICTURES = re.compile(r"transformer\.(?:\w*blocks\.|.*\.to_(?:q|k|v|out|add_out)(?:\.|$))")


def split(path: str) -> tuple[str, str] | None:
    """Return (model, path in it), None where the path does not begin with a model of a pipeline.

    >>> split("unet.mid_block.attentions.0.proj_in"), split("model.layers.0.mlp.up_proj")
    (('unet', 'mid_block.attentions.0.proj_in'), None)
    """
    model, dot, rest = path.partition(".")
    return (model, rest) if dot and model in PARTS else None


def is_language(path: str) -> bool:
    """Return whether a path that begins like one of a pipeline is that of a language model."""
    return _LANGUAGE.fullmatch(path.partition(".")[2]) is not None


def of_pipeline(adapter: Adapter) -> dict[str, tuple[str, str]]:
    """Return (model, path in it) of each module of an adapter that is stored for a pipeline, empty for any other.

    Keys with PEFT's prefix are of one model, whatever it calls its parts. Where only some modules begin with a model,
    those of the others are "".
    """
    if adapter.format not in ("diffusers", "peft") or adapter.config is not None:
        return {}
    if any(name.startswith(PREFIX) for module in adapter.modules for name in module.tensor_names):
        return {}
    found = {module.path: split(module.path) for module in adapter.modules if not is_language(module.path)}
    models = {place[0] for place in found.values() if place is not None}
    if not models or (models == {"transformer"} and not any(_PICTURES.match(path) for path in found)):
        return {}
    return {module.path: found.get(module.path) or ("", module.path) for module in adapter.modules}
