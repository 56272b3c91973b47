"""kohya-ss: `lora_unet_down_blocks_0_…_attn1_to_q.lora_down.weight`, `….lora_up.weight`, `….alpha`.

`lora_down` is A (r, n), `lora_up` is B (m, r); convolutions have four dimensions and are flattened. The module's path
is the base of its keys, because underscores cannot be turned back into dots without the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from s3lora.adapter.formats.base import Format, Reading, StoredAdapter
from s3lora.adapter.formats.pairs import Pair, read_pairs
from s3lora.adapter.model import path_parts
from s3lora.errors import UnsupportedAdapterError

_ROLES = {".lora_down.weight": "down", ".lora_up.weight": "up", ".alpha": "alpha"}
#: Tensors of other update rules that the same tools write, by the end of the key.
_OTHER_KINDS = (
    (re.compile(r"\.lora_mid\.weight$"), "LoCon with a Tucker core (lora_mid)"),
    (re.compile(r"\.hada_[wt]\d(_[ab])?$"), "LoHa"),
    (re.compile(r"\.lokr_[wt]\d(_[ab])?$"), "LoKr"),
    (re.compile(r"\.(oft_blocks|oft_diag|boft_\w+)$"), "OFT"),
    (re.compile(r"\.[ab][12]\.weight$"), "GLoRA"),
    (re.compile(r"\.on_input$"), "IA³"),
)
_AFTER_BLOCK = re.compile(
    r"^.*_(?:blocks?|layers?|h|attentions|resnets|downsamplers|upsamplers|resblocks)(?:_\d+)+_(?P<projection>.+)$"
)
_PREFIX = re.compile(r"^lora_(?:unet|te\d?|transformer)_")


def _recognises(source: StoredAdapter) -> bool:
    return any(name.endswith((".lora_down.weight", ".lora_up.weight")) for name in source.tensors) or any(
        name.startswith("lora_") and _other_kind(name) for name in source.tensors
    )


def _read(source: StoredAdapter) -> Reading:
    refuse_other_kinds(source.tensors, source.label)
    pairs: dict[str, Pair] = {}
    rest = []
    for name, tensor in source.tensors.items():
        base, role = _split(name)
        if role in ("down", "up"):
            pairs.setdefault(base, Pair(base)).add(role, name, tensor, source.label)
        else:
            rest.append(name)
    others = []
    for name in rest:
        base, role = _split(name)
        pair = pairs.get(base if role else name.rpartition(".")[0])
        if pair is None:
            others.append(name)
        elif role:
            pair.add(role, name, source.tensors[name], source.label)
        else:
            pair.dora = pair.dora or name.endswith(".dora_scale")
            pair.extras.append(name)
    return read_pairs(pairs.values(), others, source.label, locate=locate)


def _split(name: str) -> tuple[str, str | None]:
    """Return (module, role) of a key; the role is None for keys that are neither factor nor alpha."""
    for ending, role in _ROLES.items():
        if name.endswith(ending):
            return name.removesuffix(ending), role
    return name, None


def locate(path: str) -> tuple[int | None, str]:
    """Return (layer, projection): the number of the first block, and what follows the number of the last.

    >>> locate("lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q")
    (0, 'attn1_to_q')
    >>> locate("lora_te_text_model_encoder_layers_3_self_attn_q_proj")
    (3, 'self_attn_q_proj')
    >>> locate("lora_unet_double_blocks_7_img_attn_proj")
    (7, 'img_attn_proj')
    """
    layer, projection, _ = path_parts(path)
    if "." in path:
        return layer, projection
    match = _AFTER_BLOCK.match(path)
    return layer, match["projection"] if match else _PREFIX.sub("", path)


def refuse_other_kinds(names: Iterable[str], label: str) -> None:
    """Raise UnsupportedAdapterError if a tensor belongs to an update that is not one product B·A."""
    for name in names:
        if kind := _other_kind(name):
            raise UnsupportedAdapterError(
                f"is {kind}, whose update is not one product B·A; s3lora reads LoRA only", file=label, module=name
            )


def _other_kind(name: str) -> str | None:
    return next((kind for pattern, kind in _OTHER_KINDS if pattern.search(name)), None)


FORMAT = Format("kohya", _recognises, _read)
