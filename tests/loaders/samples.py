"""What loaders are given: an adapter of a tiny Llama, and what s3lora makes of it, with the updates that must come out.

The updates are dense, in float64, and computed here without the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import s3lora
from s3lora.rewrite.factors import NewFactor, NewFactors, rounded
from s3lora.rewrite.modes import MODES
from s3lora.rewrite.repaired import write_repaired
from tests.planning import config_of, dense, prune_to, tensors_of
from tests.rewrite.repairing import HOW
from tests.support import make_adapter, write_safetensors

Updates = dict[str, np.ndarray[Any, Any]]
#: Sizes of `tests.tiny_model.tiny_llama`, (m, n) by projection.
SIZES = {
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (16, 32),
    "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32),
    "mlp.gate_proj": (48, 32),
    "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}
LAYERS, RANK = 2, 4
MODULES = {f"model.layers.{i}.{name}": (m, n) for i in range(LAYERS) for name, (m, n) in SIZES.items()}
#: What is pruned: alone in its layer, one of fused q, k, v, one of fused gate and up, and one that stands for itself.
GONE = (
    "model.layers.0.self_attn.v_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.0.mlp.gate_proj",
    "model.layers.1.mlp.down_proj",
)
#: Ranks and alphas by pattern, of which a loader that reads only `r` and `lora_alpha` makes something else.
PATTERNS: dict[str, Any] = {
    "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8},
    "alpha_pattern": {"v_proj": 5},
    "use_rslora": True,
}
#: Small enough that the update does not drown the base, large enough that every one of them shows.
SCALE = 0.05


@dataclass(frozen=True)
class Made:
    """An adapter for a loader, and ΔW of every module as it must be; modules without an update are left out or 0."""

    name: str
    folder: Path
    updates: Updates


@dataclass(frozen=True)
class NoSense:
    """Why a sample makes no sense for a loader."""

    name: str
    reason: str


@dataclass(frozen=True)
class Workshop:
    """Where samples are made: in `folder`, for a loader.

    `loader` is what `--loader` gets where s3lora writes for that loader, and "peft" elsewhere. `to` is the format that
    it reads: "peft", "mlx", or whatever `convert --to` has. `base` is the folder of the base model.
    """

    folder: Path
    base: Path
    loader: str = "peft"
    to: str = "peft"

    @cached_property
    def plain(self) -> Path:
        """Return a plain adapter of PEFT: one rank, one alpha."""
        return source(self.folder / "source")

    @cached_property
    def patterns(self) -> Path:
        """Return an adapter of PEFT with ranks and alphas by pattern, and rsLoRA."""
        return source(self.folder / "source-patterns", **PATTERNS)

    @cached_property
    def second(self) -> Path:
        """Return another adapter of PEFT, of fewer modules, lower rank and another scaling."""
        some = {path: (*MODULES[path], 2) for path in MODULES if path.endswith(("q_proj", "v_proj", "up_proj"))}
        return _smaller(make_adapter(self.folder / "second", some, seed=7, config={"lora_alpha": 3}))

    @cached_property
    def own(self) -> Path:
        """Return the plain adapter in the format of the loader, written here, and not by s3lora."""
        if self.to == "peft":
            return self.plain
        if self.to == "mlx":
            return as_mlx(self.plain, self.folder / "own")
        raise ValueError(f"no {self.to} adapter is written here")

    def converted(self, source: Path, out: Path, to: str, **wishes: Any) -> Path:
        """Return `source` converted by s3lora."""
        with s3lora.open_adapter(source) as adapter:
            if to == "gguf":
                wishes["base"] = self.base
            s3lora.write_converted(s3lora.convert(adapter, to, **wishes), out)
        return out

    def given(self, peft: Path) -> Path:
        """Return what the loader is given of an adapter of PEFT."""
        return peft if self.to == "peft" else self.converted(peft, peft.with_name(f"{peft.name}-{self.to}"), self.to)

    def out(self, name: str) -> Path:
        """Return where a sample is written."""
        return self.folder / "samples" / name


def source(folder: Path, **config: Any) -> Path:
    """Write an adapter of PEFT for every module of the tiny Llama; ranks follow `rank_pattern`."""
    ranks = config.get("rank_pattern", {})
    modules = {
        path: (*size, next((rank for end, rank in ranks.items() if path.endswith(end)), RANK))
        for path, size in MODULES.items()
    }
    return _smaller(make_adapter(folder, modules, seed=1, config={"r": RANK, "lora_alpha": 8, **config}))


def _smaller(folder: Path) -> Path:
    """Multiply every B by a number, so that the updates are of the size of trained ones."""
    tensors = {n: (v * np.float32(SCALE) if "lora_B" in n else v) for n, v in tensors_of(folder).items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    return folder


def as_mlx(peft: Path, out: Path) -> Path:
    """Write a plain adapter of PEFT as mlx-lm saves it: factors the other way round, and one scale."""
    config = config_of(peft)
    tensors = {}
    for name, values in tensors_of(peft).items():
        path, _, factor = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
        tensors[f"{path}.{factor.lower()}"] = np.ascontiguousarray(values.T)
    out.mkdir(parents=True)
    write_safetensors(out / "adapters.safetensors", tensors, {"format": "mlx"})
    keys = sorted(SIZES)
    parameters = {"rank": config["r"], "scale": config["lora_alpha"] / config["r"], "dropout": 0.0, "keys": keys}
    fields = {"fine_tune_type": "lora", "num_layers": LAYERS, "lora_parameters": parameters, "model": "some/base-model"}
    (out / "adapter_config.json").write_text(json.dumps(fields))
    return out


def _original(shop: Workshop) -> Made:
    return Made("original", shop.own, dense(shop.plain))


def _patterns(shop: Workshop) -> Made | NoSense:
    if shop.to != "peft":
        return NoSense("patterns", f"{shop.to} has one rank and one scale for all modules")
    return Made("patterns", shop.patterns, dense(shop.patterns))


def edited(mode: str, update: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what a mode makes of ΔW, with its default settings."""
    if mode in ("remove", "zero"):
        return np.zeros_like(update)
    if mode == "scale":
        return 0.5 * update
    if mode == "clip":
        u, sigma, vt = np.linalg.svd(update, full_matrices=False)
        return (u * np.minimum(sigma, sigma[1])) @ vt
    raise ValueError(f"nobody has written what the mode {mode} makes of an update")


def _pruned(mode: str) -> Callable[[Workshop], Made]:
    def make(shop: Workshop) -> Made:
        name = f"pruned-{mode}"
        updates = dense(shop.plain)
        updates |= {path: edited(mode, updates[path]) for path in GONE}
        out = prune_to(shop.own, shop.out(name), GONE, MODES[mode](), loader=shop.loader)
        return Made(name, out, updates)

    return make


def _baked(shop: Workshop) -> Made | NoSense:
    """Patterns and rsLoRA multiplied into B, and one rank: what a loader needs that reads neither."""
    if shop.to != "peft":
        return NoSense("baked", f"{shop.to} gets them by `convert --to {shop.to}`")
    out = shop.converted(shop.patterns, shop.out("baked"), "peft", bake=True, pad=0)
    return Made("baked", out, dense(shop.patterns))


def _padded(shop: Workshop) -> Made | NoSense:
    if shop.to != "peft":
        return NoSense("padded", f"{shop.to} gets them by `convert --to {shop.to}`")
    mixed = source(shop.folder / "source-mixed", rank_pattern={"q_proj": 2})
    return Made("padded", shop.converted(mixed, shop.out("padded"), "peft", pad=0), dense(mixed))


def _converted(shop: Workshop) -> Made:
    """Return what comes from another format: that of MLX for who reads PEFT's, and that of PEFT for all others."""
    start = as_mlx(shop.plain, shop.folder / "mlx") if shop.to == "peft" else shop.plain
    return Made("converted", shop.converted(start, shop.out("converted"), shop.to), dense(shop.plain))


def _converted_patterns(shop: Workshop) -> Made:
    """Return ranks and alphas by pattern in the loader's format: for PEFT, there and back again through MLX."""
    start = shop.patterns
    if shop.to == "peft":
        start = shop.converted(start, shop.folder / "patterns-as-mlx", "mlx")
    out = shop.converted(start, shop.out("converted-patterns"), shop.to)
    return Made("converted-patterns", out, dense(shop.patterns))


def _converted_back(shop: Workshop) -> Made:
    """Return the loader's own format, converted to another and back."""
    other = "mlx" if shop.to == "peft" else "peft"
    there = shop.converted(shop.own, shop.folder / "there", other)
    return Made("converted-back", shop.converted(there, shop.out("converted-back"), shop.to), dense(shop.plain))


def _resized(shop: Workshop) -> Made:
    keep = RANK // 2
    s3lora.resize(shop.plain, shop.out("resized"), rank=keep, loader=shop.loader)
    updates = {}
    for path, update in dense(shop.plain).items():
        u, sigma, vt = np.linalg.svd(update, full_matrices=False)
        updates[path] = (u[:, :keep] * sigma[:keep]) @ vt[:keep]
    return Made("resized", shop.given(shop.out("resized")), updates)


def _repaired(shop: Workshop) -> Made:
    """Return what a patch leaves: random factors of rank 2 beside those of the adapter, in every module."""
    random = np.random.default_rng(5)
    made: dict[str, NewFactor] = {}
    updates = {}
    with s3lora.open_adapter(shop.plain) as adapter:
        for module in adapter.modules:
            a, b = module.A.array().astype(np.float64), module.B.array().astype(np.float64)
            a = np.vstack((a, 0.2 * random.standard_normal((2, module.n))))
            b = np.hstack((b, 0.2 * random.standard_normal((module.m, 2))))
            made[module.path] = rounded(module, a, b)
            updates[module.path] = 2.0 * b @ a
        write_repaired(adapter, NewFactors(made), HOW, shop.out("repaired"), loader=shop.loader)
    return Made("repaired", shop.given(shop.out("repaired")), updates)


def _summed(shop: Workshop) -> Made:
    s3lora.write_sum([shop.plain, shop.second], shop.out("summed"), [1.0, -0.5])
    updates = dense(shop.plain)
    for path, update in dense(shop.second).items():
        updates[path] = updates[path] - 0.5 * update
    return Made("summed", shop.given(shop.out("summed")), updates)


#: Every sample by its name, in the order of the table.
SAMPLES: Mapping[str, Callable[[Workshop], Made | NoSense]] = {
    "original": _original,
    "patterns": _patterns,
    **{f"pruned-{mode}": _pruned(mode) for mode in MODES},
    "baked": _baked,
    "padded": _padded,
    "converted": _converted,
    "converted-patterns": _converted_patterns,
    "converted-back": _converted_back,
    "resized": _resized,
    "repaired": _repaired,
    "summed": _summed,
}
