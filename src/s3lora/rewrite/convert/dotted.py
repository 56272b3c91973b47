"""The names of kohya's files as paths: which underscores are dots, by the names that modules of these models have.

The names are those of the U-Nets and text encoders of Stable Diffusion and SDXL, as Diffusers, Transformers and the
original code have them, and of Flux. A name that can be read in no way, or in two, is not undone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

#: Prefix of kohya's names → what Diffusers calls the model.
MODELS = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_transformer_": "transformer",
    "lycoris_": "",  # of any model: the first name tells which
}
#: First name of a path → its model, for names that begin alike for all models.
_BY_FIRST = {
    **dict.fromkeys(("down_blocks", "mid_block", "up_blocks", "conv_in", "conv_out", "time_embedding"), "unet"),
    **dict.fromkeys(("add_embedding", "input_blocks", "middle_block", "output_blocks"), "unet"),
    **dict.fromkeys(("transformer_blocks", "single_transformer_blocks"), "transformer"),
    "text_model": "text_encoder",
}
#: Names of modules between two dots, in models whose updates kohya's names are given to.
_NAMES = frozenset((
    *("down_blocks", "up_blocks", "mid_block", "attentions", "resnets", "downsamplers", "upsamplers"),
    *("motion_modules", "transformer_blocks", "single_transformer_blocks", "temporal_transformer"),
    *("attn", "attn1", "attn2", "to_q", "to_k", "to_v", "to_out"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("ff", "ff_context", "net", "proj", "proj_in", "proj_out", "proj_mlp"),
    *("conv", "conv1", "conv2", "conv_in", "conv_out", "conv_shortcut", "time_emb_proj"),
    *("time_embedding", "add_embedding", "linear_1", "linear_2"),
    *("text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "mlp", "fc1", "fc2"),
    *("embeddings", "token_embedding", "position_embedding", "text_projection"),
    *("double_blocks", "single_blocks", "img_attn", "txt_attn", "qkv", "img_mlp", "txt_mlp", "img_mod", "txt_mod"),
    *("lin", "linear1", "linear2", "modulation", "img_in", "txt_in", "time_in", "vector_in", "guidance_in"),
    *("in_layer", "out_layer", "final_layer"),
    *("input_blocks", "middle_block", "output_blocks"),
))  # fmt: skip
#: Names that no module has one after the other: `proj_mlp` is one name.
_APART = frozenset({("proj", "mlp")})
_LONGEST = max(name.count("_") + 1 for name in _NAMES)
#: Parts of a name that are looked at; no module lies deeper.
_MOST = 64
_LDM = re.compile(r"(?P<side>input|output)_blocks\.(?P<block>\d{1,2})\.1\.(?=transformer_blocks|proj_|norm)")


def dotted(name: str) -> tuple[str, str] | None:
    """Return (model, path) of a name of kohya's, None where the underscores cannot be undone.

    >>> dotted("lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0")
    ('unet', 'down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0')
    >>> dotted("lora_te_text_model_encoder_layers_3_self_attn_q_proj")
    ('text_encoder', 'text_model.encoder.layers.3.self_attn.q_proj')
    >>> dotted("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q")
    ('unet', 'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q')
    >>> dotted("lora_transformer_single_transformer_blocks_0_proj_mlp")
    ('transformer', 'single_transformer_blocks.0.proj_mlp')
    >>> dotted("lycoris_transformer_blocks_0_attn_to_q")
    ('transformer', 'transformer_blocks.0.attn.to_q')
    >>> dotted("lora_unet_something_else") is None
    True
    """
    prefix = next((prefix for prefix in MODELS if name.startswith(prefix)), None)
    if prefix is None:
        return None
    words = tuple(name.removeprefix(prefix).split("_"))
    readings = list(_readings(words)) if len(words) <= _MOST else []
    if len(readings) != 1:
        return None
    model = MODELS[prefix] or _BY_FIRST.get(readings[0][0], "")
    return (model, _in_diffusers(".".join(readings[0]))) if model else None


def underscored(model: str, path: str, *, two: bool = False) -> str | None:
    """Return kohya's name of a module, None where `dotted` would not find the way back.

    `two` tells whether there are two text encoders: the first then has a number too.

    >>> underscored("unet", "mid_block.attentions.0.proj_in")
    'lora_unet_mid_block_attentions_0_proj_in'
    """
    prefixes = {
        "unet": "lora_unet_",
        "transformer": "lora_transformer_",
        "text_encoder": "lora_te1_" if two else "lora_te_",
        "text_encoder_2": "lora_te2_",
    }
    if model not in prefixes:
        return None
    name = f"{prefixes[model]}{path.replace('.', '_')}"
    return name if dotted(name) == (model, path) else None


def _readings(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the ways to read words as names and numbers; two are enough to know that there is more than one."""

    @cache
    def from_(at: int) -> tuple[tuple[str, ...], ...]:
        if at == len(words):
            return ((),)
        found: list[tuple[str, ...]] = []
        for length in range(1, min(_LONGEST, len(words) - at) + 1):
            name = "_".join(words[at : at + length])
            if name in _NAMES or (length == 1 and name.isascii() and name.isdecimal()):
                found += [(name, *rest) for rest in from_(at + length) if (name, *rest[:1]) not in _APART]
                if len(found) > 1:
                    break
        return tuple(found[:2])

    yield from from_(0)


def _in_diffusers(path: str) -> str:
    """Return the path in Diffusers of an attention block of SDXL's original U-Net; other paths stay."""
    if path.startswith("middle_block.1."):
        return f"mid_block.attentions.0.{path.removeprefix('middle_block.1.')}"
    match = _LDM.match(path)
    if match is None:
        return path
    number, rest = int(match["block"]), path[match.end() :]
    # Three blocks of a side are one in Diffusers; before the first of the input is the convolution of the image.
    block, layer = divmod(number - 1 if match["side"] == "input" else number, 3)
    return f"{'down' if match['side'] == 'input' else 'up'}_blocks.{block}.attentions.{layer}.{rest}"
