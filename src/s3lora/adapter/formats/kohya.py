"""kohya-ss: `lora_unet_down_blocks_0_…_attn1_to_q.lora_down.weight`, `….lora_up.weight`, `….alpha`.

`lora_down` is A (r, n), `lora_up` is B (m, r); convolutions have four dimensions and are flattened. The module's path
is the base of its keys, because underscores cannot be turned back into dots without the model. Some writers join the
halves with an underscore, `…_to_q_lora_down.weight`. sd-scripts splits a fused projection into several pairs,
`….lora_down.0.weight`, `….lora_down.1.weight`: each is an update of its own, of the rows that it has, and all of one
projection come or leave together. LoHa and LoKr lie in the
same files, by the keys of LyCORIS (`lycoris.py`): alpha is divided by their rank, and a LoKr of two whole matrices is
scaled by 1 whatever its alpha.
"""

from __future__ import annotations

import re

from s3lora.adapter.formats import lycoris
from s3lora.adapter.formats.base import Format, Reading, StoredAdapter, alpha_scaling
from s3lora.adapter.formats.others import refuse_kinds
from s3lora.adapter.formats.pairs import Pair, read_pairs
from s3lora.adapter.model import LoraModule, Scaling, path_parts
from s3lora.adapter.tensor import Tensor

_KEY = re.compile(r"(?P<base>.+?)(?:[._]lora_(?P<half>down|up)(?:\.(?P<part>\d{1,4}))?\.weight|(?:[._]lora)?[._]alpha)")
_AFTER_BLOCK = re.compile(
    r"^.*_(?:blocks?|layers?|h|attentions|resnets|downsamplers|upsamplers|resblocks)(?:_\d+)+_(?P<projection>.+)$"
)
_PREFIX = re.compile(r"^(?:lora_(?:unet|te\d?|transformer)|lycoris)_")


def _recognises(source: StoredAdapter) -> bool:
    pairs = any((match := _KEY.fullmatch(name)) and match["half"] for name in source.tensors)
    return pairs or lycoris.is_product(source.tensors)


def _read(source: StoredAdapter) -> Reading:
    refuse_kinds(source.tensors, source.label)
    products = lycoris.collect(source.tensors, source.label)
    pairs: dict[str, Pair] = {}
    of_base: dict[str, list[Pair]] = {}
    rest = []
    for name, tensor in source.tensors.items():
        if lycoris.KEY.match(name):
            continue
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
    alphas: dict[str, Tensor] = {}
    for name, match in rest:
        owner = match["base"] if match else name.rpartition(".")[0]
        if (product := products.get(owner)) is not None and owner not in of_base:
            product.dora = product.dora or name.endswith(".dora_scale")
            product.extras.append(name)
            if match:
                alphas[owner] = source.tensors[name]
            continue
        if owner not in of_base:
            others.append(name)
        for pair in of_base.get(owner, ()):
            if match:
                pair.add("alpha", name, source.tensors[name], source.label)
            else:
                pair.dora = pair.dora or name.endswith(".dora_scale")
                pair.extras.append(name)
    made = [_product(product, alphas.get(base), source.label) for base, product in products.items()]
    return read_pairs(pairs.values(), others, source, locate=locate, products=made)


def _product(product: lycoris.Product, alpha: Tensor | None, label: str) -> LoraModule:
    """Return a LoHa or LoKr module, with alpha / r as LyCORIS has it."""
    scaling = Scaling(1.0, "unknown")
    rank = product.rank()
    if rank is None:
        scaling = Scaling(1.0, "always 1")
    elif alpha is not None and rank:
        scaling = alpha_scaling(alpha, rank, label)
    return lycoris.module_of(product, scaling, (*locate(product.path), None), label)


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


FORMAT = Format("kohya", _recognises, _read)
