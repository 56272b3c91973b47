"""kohya-ss: `lora_unet_down_blocks_0_…_attn1_to_q.lora_down.weight`, `….lora_up.weight`, `….alpha`.

`lora_down` is A (r, n), `lora_up` is B (m, r); convolutions have four dimensions and are flattened. The module's path
is the base of its keys, because underscores cannot be turned back into dots without the model. LoHa and LoKr lie in the
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

_ROLES = {".lora_down.weight": "down", ".lora_up.weight": "up", ".alpha": "alpha"}
_AFTER_BLOCK = re.compile(
    r"^.*_(?:blocks?|layers?|h|attentions|resnets|downsamplers|upsamplers|resblocks)(?:_\d+)+_(?P<projection>.+)$"
)
_PREFIX = re.compile(r"^(?:lora_(?:unet|te\d?|transformer)|lycoris)_")


def _recognises(source: StoredAdapter) -> bool:
    pairs = any(name.endswith((".lora_down.weight", ".lora_up.weight")) for name in source.tensors)
    return pairs or lycoris.is_product(source.tensors)


def _read(source: StoredAdapter) -> Reading:
    refuse_kinds(source.tensors, source.label)
    products = lycoris.collect(source.tensors, source.label)
    pairs: dict[str, Pair] = {}
    rest = []
    for name, tensor in source.tensors.items():
        if lycoris.KEY.match(name):
            continue
        base, role = _split(name)
        if role in ("down", "up"):
            pairs.setdefault(base, Pair(base)).add(role, name, tensor, source.label)
        else:
            rest.append(name)
    others = []
    alphas: dict[str, Tensor] = {}
    for name in rest:
        base, role = _split(name)
        owner = base if role else name.rpartition(".")[0]
        if (product := products.get(owner)) is not None and owner not in pairs:
            product.dora = product.dora or name.endswith(".dora_scale")
            product.extras.append(name)
            if role:
                alphas[owner] = source.tensors[name]
            continue
        pair = pairs.get(owner)
        if pair is None:
            others.append(name)
        elif role:
            pair.add(role, name, source.tensors[name], source.label)
        else:
            pair.dora = pair.dora or name.endswith(".dora_scale")
            pair.extras.append(name)
    made = [_product(product, alphas.get(base), source.label) for base, product in products.items()]
    return read_pairs(pairs.values(), others, source.label, locate=locate, products=made)


def _product(product: lycoris.Product, alpha: Tensor | None, label: str) -> LoraModule:
    """Return a LoHa or LoKr module, with alpha / r as LyCORIS has it."""
    scaling = Scaling(1.0, "unknown")
    rank = product.rank()
    if rank is None:
        scaling = Scaling(1.0, "always 1")
    elif alpha is not None and rank:
        scaling = alpha_scaling(alpha, rank, label)
    return lycoris.module_of(product, scaling, (*locate(product.path), None), label)


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


FORMAT = Format("kohya", _recognises, _read)
