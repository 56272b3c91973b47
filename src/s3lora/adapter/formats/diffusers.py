"""Diffusers before its PEFT backend: `unet.….to_q.lora.down.weight` and its older spellings.

    unet.….attn1.to_q.lora.down.weight
    unet.….attn1.processor.to_q_lora.down.weight
    text_encoder.….q_proj.lora_linear_layer.down.weight
    double_blocks.0.processor.proj_lora1.down.weight

`down` is A (r, n), `up` is B (m, r). The `unet.` in front may be missing. Newer diffusers write `lora_A` and `lora_B`,
which `peft` reads. The last line is XLabs' for Flux: 1 is of the image, 2 of the text, as in the base's own names.
"""

from __future__ import annotations

import re

from s3lora.adapter.formats.base import Format, Reading, StoredAdapter
from s3lora.adapter.formats.pairs import Pair, read_pairs
from s3lora.adapter.model import path_parts

_KEY = re.compile(
    r"^(?P<owner>.+?)(?:\.processor)?\.(?:(?P<inner>\w+)_lora(?P<stream>[12])?|lora|lora_linear_layer)"
    r"\.(?:(?P<half>down|up)\.weight|alpha)$"
)
ALPHA = ".alpha"
_STREAMS = {"1": "img_attn", "2": "txt_attn"}


def _recognises(source: StoredAdapter) -> bool:
    return any((match := _KEY.match(name)) is not None and match["half"] for name in source.tensors)


def _read(source: StoredAdapter) -> Reading:
    pairs: dict[str, Pair] = {}
    others = []
    for name, tensor in source.tensors.items():
        match = _KEY.match(name)
        if match is None:
            others.append(name)
            continue
        names = (match["owner"], _STREAMS.get(match["stream"] or ""), match["inner"])
        path = ".".join(one for one in names if one)
        if match["inner"] == "to_out":
            path += ".0"  # to_out is a list of a linear layer and a dropout
        pairs.setdefault(path, Pair(path)).add(match["half"] or "alpha", name, tensor, source.label)
    for name in [name for name in others if name.removesuffix(ALPHA) in pairs]:
        others.remove(name)
        pairs[name.removesuffix(ALPHA)].add("alpha", name, source.tensors[name], source.label)
    return read_pairs(pairs.values(), others, source, locate=lambda path: path_parts(path)[:2])


FORMAT = Format("diffusers", _recognises, _read)
