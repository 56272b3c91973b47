"""kohya-ss: `lora_unet_down_blocks_0_…_attn1_to_q.lora_down.weight`, `….lora_up.weight`, `….alpha`.

`lora_down` is A (r, n), `lora_up` is B (m, r); convolutions have four dimensions and are flattened. The module's path
is the base of its keys, because underscores cannot be turned back into dots without the model. Some writers join the
halves with an underscore, `…_to_q_lora_down.weight`.

sd-scripts splits a fused projection into several pairs, `….lora_down.0.weight`, `….lora_down.1.weight`: each is an
update of its own, of the rows that it has, and all of one projection come or leave together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from s3lora.adapter.formats.base import Format, Reading, StoredAdapter
from s3lora.adapter.formats.pairs import Pair, read_pairs
from s3lora.adapter.model import path_parts
from s3lora.errors import UnsupportedAdapterError

_KEY = re.compile(r"(?P<base>.+?)(?:[._]lora_(?P<half>down|up)(?:\.(?P<part>\d{1,4}))?\.weight|(?:[._]lora)?[._]alpha)")
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
    return any((match := _KEY.fullmatch(name)) and match["half"] for name in source.tensors) or any(
        name.startswith("lora_") and _other_kind(name) for name in source.tensors
    )


def _read(source: StoredAdapter) -> Reading:
    refuse_other_kinds(source.tensors, source.label)
    pairs: dict[str, Pair] = {}
    of_base: dict[str, list[Pair]] = {}
    rest = []
    for name, tensor in source.tensors.items():
        match = _KEY.fullmatch(name)
        if match is None or not match["half"]:
            rest.append((name, match))
            continue
        base, part = match["base"], match["part"]
        path = base if part is None else f"{base}.{part}"
        if path not in pairs:
            pairs[path] = Pair(path, group=None if part is None else base)
            of_base.setdefault(base, []).append(pairs[path])
        pairs[path].add(match["half"], name, tensor, source.label)
    others = []
    for name, match in rest:
        found = of_base.get(match["base"] if match else name.rpartition(".")[0])
        for pair in found or ():
            if match:
                pair.add("alpha", name, source.tensors[name], source.label)
            else:
                pair.dora = pair.dora or name.endswith(".dora_scale")
                pair.extras.append(name)
        if found is None:
            others.append(name)
    return read_pairs(pairs.values(), others, source, locate=locate)


def locate(path: str) -> tuple[int | None, str]:
    """Return (layer, projection): the number of the first block, and what follows the number of the last.

    >>> locate("lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q")
    (0, 'attn1_to_q')
    >>> locate("lora_te_text_model_encoder_layers_3_self_attn_q_proj")
    (3, 'self_attn_q_proj')
    >>> locate("lora_unet_double_blocks_7_img_attn_proj")
    (7, 'img_attn_proj')
    >>> locate("lora_unet_double_blocks_7_img_attn_qkv.2")
    (7, 'img_attn_qkv.2')
    """
    layer, projection, _ = path_parts(path)
    base, dot, part = path.rpartition(".")
    if "." in base or (dot and not part.isdecimal()):
        return layer, projection
    if dot:
        layer, projection = locate(base)
        return layer, f"{projection}.{part}"
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
