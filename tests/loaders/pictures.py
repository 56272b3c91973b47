"""What diffusers is given: adapters of tiny picture models, and what s3lora makes of them.

Updates are dense, in float64, by `MODEL.PATH` as diffusers calls it; convolutions are (out, in·height·width).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import s3lora
from s3lora.rewrite.modes import MODES
from tests.loaders.samples import Made, NoSense, Updates, edited
from tests.planning import prune_to
from tests.support import factors, write_safetensors

Shapes = Mapping[str, tuple[int, ...]]
RANK, ALPHA = 4, 2.0
_ATTENTION = {"attn1.to_q": (64, 64), "attn1.to_v": (64, 64), "attn1.to_out.0": (64, 64), "ff.net.0.proj": (512, 64)}
_TEXT = {
    **{f"self_attn.{name}": (32, 32) for name in ("q_proj", "k_proj", "v_proj", "out_proj")},
    "mlp.fc1": (64, 32),
    "mlp.fc2": (32, 64),
}
_UNET = {
    f"{block}.attentions.0.transformer_blocks.0.{name}": shape
    for block in ("down_blocks.1", "mid_block", "up_blocks.0")
    for name, shape in _ATTENTION.items()
}
#: Weights of the modules that are trained, by model.
MODELS: Mapping[str, Shapes] = {
    "sd1": {
        **{f"unet.{path}": shape for path, shape in _UNET.items()},
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (64, 32),
        "unet.down_blocks.1.attentions.0.proj_in": (64, 64, 1, 1),
        "unet.mid_block.resnets.0.conv1": (64, 64, 3, 3),
    },
    "sdxl": {
        **{f"unet.{path}": shape for path, shape in _UNET.items()},
        "unet.mid_block.attentions.0.transformer_blocks.1.attn2.to_k": (64, 64),
        "unet.down_blocks.1.attentions.0.proj_in": (64, 64),
    },
    "flux": {
        **{
            f"transformer.transformer_blocks.0.attn.{name}": (32, 32)
            for name in ("to_q", "to_v", "to_out.0", "add_k_proj")
        },
        "transformer.transformer_blocks.0.ff.net.0.proj": (128, 32),
        "transformer.single_transformer_blocks.0.attn.to_q": (32, 32),
        "transformer.single_transformer_blocks.0.proj_mlp": (128, 32),
        "transformer.single_transformer_blocks.0.proj_out": (32, 160),
    },
}
#: Flux's modules in the original code, as sd-scripts names them, and what diffusers splits each into.
FLUX: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "double_blocks.0.img_attn.qkv": (
        (96, 32),
        tuple(f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv"),
    ),
    "double_blocks.0.img_attn.proj": ((32, 32), ("transformer.transformer_blocks.0.attn.to_out.0",)),
    "double_blocks.0.txt_attn.proj": ((32, 32), ("transformer.transformer_blocks.0.attn.to_add_out",)),
    "double_blocks.0.img_mlp.0": ((128, 32), ("transformer.transformer_blocks.0.ff.net.0.proj",)),
}
#: What kohya's names begin with.
_PREFIXES = {
    "unet": "lora_unet",
    "transformer": "lora_transformer",
    "text_encoder": "lora_te",
    "text_encoder_2": "lora_te2",
}
FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Studio:
    """Where samples of one kind of model are made."""

    folder: Path
    model: str

    @property
    def shapes(self) -> Shapes:
        """Return the weights that are trained."""
        return MODELS[self.model]

    @property
    def gone(self) -> list[str]:
        """Return what is pruned: every third module."""
        return sorted(self.shapes)[::3]

    @cached_property
    def source(self) -> Path:
        """Return an adapter as diffusers saves it, with its configuration in the header."""
        return in_diffusers(self.folder / "source", self.shapes)

    def updates(self, scaling: float = ALPHA / RANK) -> Updates:
        """Return ΔW of the source."""
        return updates_of(self.shapes, scaling)

    def converted(self, source: Path, name: str, to: str) -> Path:
        """Return `source` converted by s3lora."""
        out = self.folder / name
        with s3lora.open_adapter(source) as adapter:
            s3lora.write_converted(s3lora.convert(adapter, to), out)
        return out


def _factors(shapes: Shapes) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Return (A, B) of each module: the first may be a convolution, the second is 1 × 1 there."""
    made = {}
    for i, (path, (m, *rest)) in enumerate(shapes.items()):
        a, b = factors(m, math.prod(rest), RANK, seed=100 + i)
        a, b = a.reshape(RANK, *rest), (b * np.float32(0.05)).reshape(m, RANK, *(1 for _ in rest[1:]))
        made[path] = (a, b)
    return made


def updates_of(shapes: Shapes, scaling: float) -> Updates:
    """Return ΔW of each module."""
    return {
        path: scaling * b.reshape(len(b), RANK).astype(np.float64) @ a.reshape(RANK, -1).astype(np.float64)
        for path, (a, b) in _factors(shapes).items()
    }


def in_diffusers(folder: Path, shapes: Shapes, *, alpha: bool = True) -> Path:
    """Write an adapter as diffusers does; without `alpha`, its header says nothing."""
    tensors, told = {}, {}
    for path, (a, b) in _factors(shapes).items():
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
        model, _, inner = path.partition(".")
        told |= {
            f"{model}.r": RANK,
            f"{model}.lora_alpha": ALPHA,
            f"{model}.peft_type": "LORA",
            f"{model}.bias": "none",
        }
        told.setdefault(f"{model}.target_modules", []).append(inner)
    folder.mkdir(parents=True)
    metadata = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(told)} if alpha else {})
    write_safetensors(folder / FILE, tensors, metadata)
    return folder


def in_kohya(folder: Path, shapes: Shapes) -> Path:
    """Write an adapter as kohya's scripts do."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for path, (a, b) in _factors(shapes).items():
        model, _, inner = path.partition(".")
        name = f"{_PREFIXES[model]}_{inner.replace('.', '_')}"
        if model == "text_encoder" and any(one.startswith("text_encoder_2") for one in shapes):
            name = name.replace("lora_te_", "lora_te1_")
        tensors |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b}
        tensors[f"{name}.alpha"] = np.array(ALPHA, np.float32)
    folder.mkdir(parents=True)
    write_safetensors(folder / "lora.safetensors", tensors, {"format": "pt"})
    return folder


def _pruned(mode: str) -> Callable[[Studio], Made]:
    def make(studio: Studio) -> Made:
        updates = studio.updates()
        updates |= {path: edited(mode, updates[path]) for path in studio.gone}
        name = f"pruned-{mode}"
        return Made(name, prune_to(studio.source, studio.folder / name, studio.gone, MODES[mode]()), updates)

    return make


def _text(name: str, within: str, kohya: bool = False) -> Callable[[Studio], Made | NoSense]:
    """Return what has the text encoders too: within `text_model.`, as most files have them, or without."""

    def make(studio: Studio) -> Made | NoSense:
        if kohya and studio.model == "flux":
            return NoSense(name, "diffusers reads kohya's Flux by the names of the original code alone")
        models = ("text_encoder", "text_encoder_2") if studio.model == "sdxl" else ("text_encoder",)
        more = {f"{model}.{within}encoder.layers.0.{end}": shape for model in models for end, shape in _TEXT.items()}
        shapes = {**studio.shapes, **more}
        write = in_kohya if kohya else in_diffusers
        return Made(name, write(studio.folder / name, shapes), updates_of(shapes, ALPHA / RANK))

    return make


def _kohya(studio: Studio, name: str) -> tuple[Path, dict[str, tuple[str, ...]], Updates]:
    """Return a file of kohya's, what diffusers calls each of its modules, and ΔW; Flux has its original names there."""
    if studio.model != "flux":
        folder = in_kohya(studio.folder / name, studio.shapes)
        told = {f"lora_{path.replace('.', '_')}": (path,) for path in studio.shapes}
        return folder, told, studio.updates()
    shapes = {f"unet.{path}": shape for path, (shape, _) in FLUX.items()}
    folder, updates = in_kohya(studio.folder / name, shapes), {}
    for path, update in updates_of(shapes, ALPHA / RANK).items():
        ends = FLUX[path.removeprefix("unet.")][1]
        updates |= dict(zip(ends, np.split(update, len(ends)), strict=True))
    return folder, {f"lora_unet_{path.replace('.', '_')}": ends for path, (_, ends) in FLUX.items()}, updates


def _original_kohya(studio: Studio) -> Made:
    folder, _, updates = _kohya(studio, "kohya")
    return Made("original-kohya", folder, updates)


def _pruned_kohya(studio: Studio) -> Made:
    folder, names, updates = _kohya(studio, "to-prune")
    gone = sorted(names)[::3]
    updates |= {path: np.zeros_like(updates[path]) for name in gone for path in names[name]}
    return Made("pruned-kohya", prune_to(folder, studio.folder / "pruned-kohya", gone), updates)


def _from_kohya(studio: Studio) -> Made | NoSense:
    folder, _, updates = _kohya(studio, "to-convert")
    return _unless_refused("from-kohya", lambda: studio.converted(folder, "from-kohya", "diffusers"), updates)


def _to_kohya(studio: Studio) -> Made | NoSense:
    if studio.model == "flux":
        return NoSense("to-kohya", "diffusers reads kohya's Flux by the names of the original code alone")
    return Made("to-kohya", studio.converted(studio.source, "to-kohya", "kohya"), studio.updates())


def _back(studio: Studio) -> Made:
    there = studio.converted(studio.source, "there", "kohya")
    return Made("picture-back", studio.converted(there, "back", "diffusers"), studio.updates())


def _unless_refused(name: str, make: Callable[[], Path], updates: Updates) -> Made | NoSense:
    """Return what `make` writes, or why s3lora refuses to."""
    try:
        return Made(name, make(), updates)
    except s3lora.UnsupportedAdapterError as error:
        told = re.sub(r"^source (\S+ \([^)]*\))?:? ?", "", str(error).replace("…", ""))
        return NoSense(name, f"refused: {told.partition('; ')[0]}")


def _resized(studio: Studio) -> Made | NoSense:
    """Through PEFT's form, as the refusal of diffusers' own says."""
    keep, updates = RANK // 2, {}
    for path, update in studio.updates().items():
        u, sigma, vt = np.linalg.svd(update, full_matrices=False)
        updates[path] = (u[:, :keep] * sigma[:keep]) @ vt[:keep]

    def make() -> Path:
        peft = studio.converted(studio.source, "as-peft", "peft")
        s3lora.resize(peft, studio.folder / "smaller", rank=keep)
        return studio.converted(studio.folder / "smaller", "resized", "diffusers")

    return _unless_refused("resized", make, updates)


def _summed(studio: Studio) -> Made | NoSense:
    def make() -> Path:
        s3lora.write_sum([studio.source, studio.source], studio.folder / "both", [1.0, -0.5])
        return studio.converted(studio.folder / "both", "summed", "diffusers")

    return _unless_refused("summed", make, {path: 0.5 * update for path, update in studio.updates().items()})


def _no_alpha(studio: Studio) -> Made:
    source = in_diffusers(studio.folder / "no-alpha", studio.shapes, alpha=False)
    return Made("no-alpha", prune_to(source, studio.folder / "no-alpha-pruned", studio.gone), {
        path: np.zeros_like(update) if path in studio.gone else update
        for path, update in studio.updates(1.0).items()
    })  # fmt: skip


#: Every sample by its name; `rows.PICTURES` has the words.
PICTURES: Mapping[str, Callable[[Studio], Made | NoSense]] = {
    "original": lambda studio: Made("original", studio.source, studio.updates()),
    "original-kohya": _original_kohya,
    "text-encoders": _text("text-encoders", "text_model."),
    "text-encoders-new": _text("text-encoders-new", ""),
    "text-encoders-kohya": _text("text-encoders-kohya", "text_model.", kohya=True),
    **{f"pruned-{mode}": _pruned(mode) for mode in MODES},
    "pruned-kohya": _pruned_kohya,
    "no-alpha": _no_alpha,
    "from-kohya": _from_kohya,
    "to-kohya": _to_kohya,
    "picture-back": _back,
    "resized": _resized,
    "summed": _summed,
}
