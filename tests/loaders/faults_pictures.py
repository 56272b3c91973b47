"""Adapters of a tiny Stable Diffusion, sound and faulty, on which `s3lora check` is held against diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.loaders.pictures import ALPHA, FILE, RANK, Studio, in_diffusers, in_kohya, updates_of
from tests.loaders.samples import Made
from tests.planning import tensors_of
from tests.support import write_safetensors

_LAYER = "text_encoder.text_model.encoder.layers.0."
_SOME = {f"{_LAYER}self_attn.{end}_proj": (32, 32) for end in "qv"}
_MORE = {**_SOME, f"{_LAYER}mlp.fc1": (64, 32)}
_ALL = {
    **_MORE,
    f"{_LAYER}self_attn.k_proj": (32, 32),
    f"{_LAYER}self_attn.out_proj": (32, 32),
    f"{_LAYER}mlp.fc2": (32, 64),
}


def _text(
    write: Callable[..., Path], within: bool = True, text: Mapping[str, tuple[int, ...]] = _ALL, **how: bool
) -> Callable[[Studio, str], Made]:
    def make(studio: Studio, name: str) -> Made:
        named = {path if within else path.replace("text_model.", ""): shape for path, shape in text.items()}
        shapes = {**studio.shapes, **named}
        scaling = 1.0 if how.get("alpha") is False else ALPHA / RANK
        return Made(name, write(studio.folder / name, shapes, **how), updates_of(shapes, scaling))

    return make


def _npz(studio: Studio, name: str) -> Made:
    out = in_diffusers(studio.folder / name, studio.shapes)
    np.savez(out / "pytorch_lora_weights.npz", **tensors_of(out))
    (out / FILE).unlink()
    return Made(name, out, studio.updates())


def _other_names(studio: Studio, name: str) -> Made:
    """Keys as PEFT itself saves them of a U-Net alone: they do not begin with a part of the pipeline."""
    out = in_diffusers(studio.folder / name, studio.shapes, alpha=False)
    renamed = {f"base_model.model.{key.removeprefix('unet.')}": value for key, value in tensors_of(out).items()}
    write_safetensors(out / FILE, renamed, {"format": "pt"})
    return Made(name, out, studio.updates(1.0))


def _bare(studio: Studio, name: str) -> Made:
    """Keys of a U-Net alone, as diffusers' `save_lora_adapter` leaves them."""
    out = in_diffusers(studio.folder / name, studio.shapes, alpha=False)
    renamed = {key.removeprefix("unet."): value for key, value in tensors_of(out).items()}
    write_safetensors(out / FILE, renamed, {"format": "pt"})
    return Made(name, out, studio.updates(1.0))


#: Every input by its name; `rows.PICTURE_FAULTS` has the words.
PICTURE_INPUTS: Mapping[str, Callable[[Studio, str], Made]] = {
    "picture-npz": _npz,
    "picture-peft-names": _other_names,
    "picture-bare-names": _bare,
    "picture-text": _text(in_diffusers),
    "picture-text-bare": _text(in_diffusers, alpha=False),
    "picture-text-new": _text(in_diffusers, within=False),
    "picture-text-kohya": _text(in_kohya),
    "picture-text-kohya-some": _text(in_kohya, text=_SOME),
    "picture-text-kohya-more": _text(in_kohya, text=_MORE),
}
