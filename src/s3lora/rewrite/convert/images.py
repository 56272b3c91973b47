"""Diffusers and kohya: the formats of models that make images, whose keys name the model a module is of.

Diffusers reads `unet.….to_q.lora_A.weight` and finds ranks and alphas in the header, as `lora_adapter_metadata`.
kohya's keys have underscores for dots, and each module its `.alpha`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
import numpy as np

from s3lora.adapter import peft_config
from s3lora.adapter.formats.forms import PRODUCTS
from s3lora.adapter.formats.header import DIFFUSERS
from s3lora.adapter.model import Adapter
from s3lora.adapter.new_tensors import NewTensor
from s3lora.rewrite.convert.dora import lengths, lengths_of
from s3lora.rewrite.convert.dotted import dotted, underscored
from s3lora.rewrite.convert.flux import Places, as_in_diffusers
from s3lora.rewrite.convert.pipelines import PARTS, is_language, split
from s3lora.rewrite.convert.plain import refuse_unless_plain
from s3lora.rewrite.convert.products import PRODUCT_FORMS, alpha_of_product, parts_of_product, refuse_products
from s3lora.rewrite.convert.target import ConvertWish, NewUpdate, TargetFiles, refuse, scaling_notes, updates_of

#: Width of what the two text encoders of SDXL give its U-Net; the one of Stable Diffusion gives 768 or 1024.
SDXL_CONTEXT = 2048
DIFFUSERS_WEIGHTS, KOHYA_WEIGHTS = "pytorch_lora_weights.safetensors", "lora.safetensors"


def to_diffusers(adapter: Adapter, wish: ConvertWish) -> TargetFiles:
    """Return the adapter as Diffusers reads it; raise UnsupportedAdapterError for what it cannot have."""
    refuse_unless_plain(adapter, "Diffusers", dora=True)
    given = adapter
    adapter, known = as_in_diffusers(adapter) if adapter.format == "kohya" else (adapter, {})
    dora = lengths_of(adapter, "Diffusers")
    places = _places(adapter, "Diffusers", known)
    paths = {path: f"{model}.{inner}" for path, (model, inner) in places.items()}
    updates = updates_of(adapter, wish, paths)
    tensors = [
        tensor
        for update in updates
        for tensor in update.tensors(f"{update.path}.lora_A.weight", f"{update.path}.lora_B.weight")
    ]
    tensors += lengths(updates, dora, "{}.lora_magnitude_vector".format)
    told: dict[str, object] = {}
    for model in dict.fromkeys(model for model, _ in places.values()):
        inside = [update for update in updates if places[update.module.path][0] == model]
        modules = [dataclasses.replace(u.as_module(), path=places[u.module.path][1]) for u in inside]
        targets = sorted(module.path for module in modules)
        fields = {"bias": "none", "lora_bias": False, "target_modules": targets}
        config = peft_config.with_ranks({**fields, "use_dora": True} if dora else fields, modules)
        told.update({f"{model}.{field}": value for field, value in config.items()})
    metadata = {"format": "pt", DIFFUSERS: msgspec.json.encode(told, order="sorted").decode()}
    source = None if adapter is given else adapter
    return TargetFiles(DIFFUSERS_WEIGHTS, tensors, paths, None, metadata, tuple(scaling_notes(given)), source=source)


def to_kohya(adapter: Adapter, wish: ConvertWish) -> TargetFiles:
    """Return the adapter as kohya's scripts read it; raise UnsupportedAdapterError for what they cannot have."""
    refuse_unless_plain(adapter, "kohya", dora=True, forms=(*PRODUCTS, *PRODUCT_FORMS))
    refuse_products(adapter, wish, "kohya")
    dora = lengths_of(adapter, "kohya", lycoris=True)
    paths = {module.path: module.path for module in adapter.modules}
    notes = scaling_notes(adapter)
    if adapter.format != "kohya":
        places = _places(adapter, "kohya")
        two = _has_two_encoders(adapter, places)
        if not two and any(model == "text_encoder" for model, _ in places.values()):
            notes.append("the text encoder is named as the only one, `lora_te_`; the first of SDXL is `lora_te1_`")
        named = {path: underscored(model, inner, two=two) for path, (model, inner) in places.items()}
        refuse("kohya", {path: "has a name that cannot be found again under underscores" for path, name in named.items()
                         if name is None})  # fmt: skip
        paths = {path: name for path, name in named.items() if name is not None}
    updates = _of_one_alpha(updates_of(adapter, wish, paths))
    tensors: list[NewTensor] = []
    split: set[str] = set()
    for update in updates:
        if update.module.group is not None:  # only kohya's names get this far
            base, _, part = update.path.rpartition(".")
            tensors += update.tensors(f"{base}.lora_down.{part}.weight", f"{base}.lora_up.{part}.weight")
            if base not in split:
                alpha = np.array(update.scaling * update.rank)
                tensors.append(NewTensor(f"{base}.alpha", "float32", (), alpha.copy))
            split.add(base)
            continue
        if update.module.form in PRODUCT_FORMS:
            tensors += [*parts_of_product(update), alpha_of_product(update)]
            continue
        tensors += update.tensors(f"{update.path}.lora_down.weight", f"{update.path}.lora_up.weight")
        alpha = np.array(update.scaling * update.rank)
        tensors.append(NewTensor(f"{update.path}.alpha", "float32", (), alpha.copy))
    tensors += lengths(updates, dora, "{}.dora_scale".format, lycoris=True)
    return TargetFiles(KOHYA_WEIGHTS, tensors, paths, None, {"format": "pt"}, tuple(notes))


def _has_two_encoders(adapter: Adapter, places: Places) -> bool:
    """Return whether the modules are of SDXL: its second text encoder, or the width of what both give the U-Net."""
    cross = (module for module in adapter.modules if module.path.endswith((".attn2.to_k", ".attn2.to_v")))
    second = any(model == "text_encoder_2" for model, _ in places.values())
    return second or any(module.n == SDXL_CONTEXT for module in cross)


def _of_one_alpha(updates: Sequence[NewUpdate]) -> list[NewUpdate]:
    """Return the updates, the parts of one projection with scalings that one alpha gives them, as sd-scripts has it."""
    alphas: dict[str | None, float] = {}
    made = []
    for update in updates:
        alpha = alphas.setdefault(update.module.group, update.scaling * update.rank)
        made.append(update if update.module.group is None else dataclasses.replace(update, scaling=alpha / update.rank))
    return made


def _places(adapter: Adapter, to: str, known: Places | None = None) -> Places:
    """Return (model, path in it) of each module; that of some may be `known`."""
    if adapter.format == "kohya":
        found = {module.path: (known or {}).get(module.path) or dotted(module.path) for module in adapter.modules}
        reason = "has a name whose underscores cannot be turned into dots"
    else:
        found = {module.path: split(module.path) for module in adapter.modules}
        reason = f"does not begin with a model, such as {', '.join(PARTS[:3])}"
    refuse(to, {path: reason for path, place in found.items() if place is None})
    text = {path: "is a layer of a language model" for path in found if is_language(path)}
    refuse(to, text if adapter.format != "kohya" else {})
    return {path: place for path, place in found.items() if place is not None}
