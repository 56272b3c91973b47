"""Adapters that some loaders stop at or misread: `s3lora check` must say of each what the loader really does.

Each is the plain adapter of a workshop with one thing changed. As in `samples`, ΔW is computed without the code under
test; `beyond` tells what else the adapter means, which no ΔW of a module holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.rewrite.modes import MODES
from tests.loaders.samples import GONE, LAYERS, SIZES, Updates, Workshop, edited, source
from tests.planning import PREFIX, config_of, dense, prune_to, tensors_of
from tests.support import factors, write_safetensors

Tensors = dict[str, np.ndarray[Any, Any]]
WORDS, WIDE = 99, 32


@dataclass(frozen=True)
class Fault:
    """An adapter: where it lies, ΔW of its modules, and what it means beyond them."""

    folder: Path
    updates: Updates
    beyond: str = ""


Making = Callable[[Workshop, Path], Fault]


def _with(
    shop: Workshop,
    out: Path,
    change: Callable[[Tensors], Tensors] = lambda held: held,
    drop: tuple[str, ...] = (),
    **fields: Any,
) -> Path:
    """Write the plain adapter with other tensors, and other fields of the configuration; `drop` takes fields out."""
    out.mkdir(parents=True)
    write_safetensors(out / "adapter_model.safetensors", change(tensors_of(shop.plain)), {"format": "pt"})
    config = {name: value for name, value in {**config_of(shop.plain), **fields}.items() if name not in drop}
    (out / "adapter_config.json").write_text(json.dumps(config))
    return out


def _renamed(old: str, new: str) -> Making:
    """Change a part of every key."""

    def make(shop: Workshop, out: Path) -> Fault:
        folder = _with(shop, out, lambda held: {name.replace(old, new): value for name, value in held.items()})
        return Fault(folder, dense(shop.plain))

    return make


def _fields(beyond: str = "", drop: tuple[str, ...] = (), **fields: Any) -> Making:
    """Change the configuration, and no update with it."""

    def make(shop: Workshop, out: Path) -> Fault:
        return Fault(_with(shop, out, drop=drop, **fields), dense(shop.plain), beyond)

    return make


def _other_source(**config: Any) -> Making:
    """Make the whole adapter anew, whose updates follow its configuration."""

    def make(shop: Workshop, out: Path) -> Fault:
        folder = source(out, **config)
        return Fault(folder, dense(folder))

    return make


def _more(make_tensors: Callable[[], Tensors], beyond: str, **fields: Any) -> Making:
    """Add tensors that are no updates of the modules."""

    def make(shop: Workshop, out: Path) -> Fault:
        return Fault(_with(shop, out, lambda held: held | make_tensors(), **fields), dense(shop.plain), beyond)

    return make


def _left_out(*ends: str) -> Making:
    """Take the tensors of modules out, as a tool would that knows no loader."""

    def keeps(name: str) -> bool:
        return not any(f".{end}." in name for end in ends)

    def make(shop: Workshop, out: Path) -> Fault:
        folder = _with(shop, out, lambda held: {name: value for name, value in held.items() if keeps(name)})
        updates = {path: value for path, value in dense(shop.plain).items() if keeps(f"{path}.")}
        return Fault(folder, updates)

    return make


def _pruned(mode: str, loader: str) -> Making:
    """Prune for one loader; another reads it."""

    def make(shop: Workshop, out: Path) -> Fault:
        updates = dense(shop.plain)
        updates |= {path: edited(mode, updates[path]) for path in GONE}
        return Fault(prune_to(shop.plain, out, GONE, MODES[mode](), loader=loader), updates)

    return make


def _random(*shape: int, seed: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _dora() -> Tensors:
    """Return magnitudes for every module."""
    return {
        f"{PREFIX}model.layers.{i}.{name}.lora_magnitude_vector": 1 + abs(_random(m))
        for i in range(LAYERS)
        for name, (m, _) in SIZES.items()
    }


def _saved(*paths: str, rows: int = WORDS) -> Callable[[], Tensors]:
    return lambda: {f"{PREFIX}{path}": _random(rows, WIDE) for path in paths}


def _biases(kind: str) -> Callable[[], Tensors]:
    """Return biases of the LoRA layers, or of the base."""
    end = "lora_B.bias" if kind == "lora" else "base_layer.bias"
    return lambda: {
        f"{PREFIX}model.layers.{i}.{name}.{end}": _random(m) for i in range(LAYERS) for name, (m, _) in SIZES.items()
    }


def _embeddings(path: str, *, named: bool = True, along: bool = False) -> Making:
    """Add an update of the embeddings or of the output layer; `along`: the base's weight is saved beside it."""

    def make(shop: Workshop, out: Path) -> Fault:
        a, b = factors(WIDE, WORDS, 4, seed=9) if path.endswith("embed_tokens") else factors(WORDS, WIDE, 4, seed=9)
        if path.endswith("embed_tokens"):
            new = {f"{PREFIX}{path}.lora_embedding_A": a, f"{PREFIX}{path}.lora_embedding_B": b}
        else:
            new = {f"{PREFIX}{path}.lora_A.weight": a, f"{PREFIX}{path}.lora_B.weight": b}
        if along:
            new[f"{PREFIX}{path}.base_layer.weight"] = _random(WORDS, WIDE)
        targets = config_of(shop.plain)["target_modules"] + ([path.rpartition(".")[2]] if named else [])
        folder = _with(shop, out, lambda held: held | new, target_modules=targets)
        return Fault(folder, dense(shop.plain) | {path: 2.0 * b.astype(float) @ a.astype(float)})

    return make


def _one_module(path: str, m: int, n: int) -> Making:
    """Add a module that the base has not."""

    def make(shop: Workshop, out: Path) -> Fault:
        a, b = factors(m, n, 4, seed=9)
        new = {f"{PREFIX}{path}.lora_A.weight": a, f"{PREFIX}{path}.lora_B.weight": b}
        targets = sorted({*config_of(shop.plain)["target_modules"], path.rpartition(".")[2]})
        folder = _with(shop, out, lambda held: held | new, target_modules=targets)
        return Fault(folder, dense(shop.plain) | {path: 2.0 * b.astype(float) @ a.astype(float)})

    return make


def _pickled(shop: Workshop, out: Path) -> Fault:
    folder = _with(shop, out)
    torch = pytest.importorskip("torch")
    (folder / "adapter_model.safetensors").unlink()
    held = {name: torch.from_numpy(value.copy()) for name, value in tensors_of(shop.plain).items()}
    torch.save(held, folder / "adapter_model.bin")
    return Fault(folder, dense(shop.plain))


def _two_files(shop: Workshop, out: Path) -> Fault:
    """Put a second file of weights beside the adapter's: a checkpoint, as training leaves it."""
    folder = _with(shop, out)
    other = {name: value * np.float32(3) for name, value in tensors_of(shop.plain).items()}
    write_safetensors(folder / "checkpoint.safetensors", other, {"format": "pt"})
    return Fault(folder, dense(shop.plain))


def _with_words(shop: Workshop, out: Path) -> Fault:
    folder = _with(shop, out)
    (folder / "added_tokens.json").write_text(json.dumps({"<one>": WORDS, "<two>": WORDS + 1}))
    return Fault(folder, dense(shop.plain), "two new tokens")


#: Every fault by its name.
MAKING: Mapping[str, Making] = {
    "wrapped": _renamed(PREFIX, f"{PREFIX}_orig_mod."),
    "twice-wrapped": _renamed(PREFIX, PREFIX * 2),
    "bare": _renamed(PREFIX, ""),
    "named-default": lambda shop, out: Fault(
        _with(shop, out, lambda held: {n.replace(".weight", ".default.weight"): v for n, v in held.items()}),
        dense(shop.plain),
    ),
    "mixed-ranks": _other_source(rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 4}),
    "several-scalings": _other_source(alpha_pattern={"v_proj": 5}),
    "rslora": _other_source(use_rslora=True),
    "other-rank": _fields(r=8, lora_alpha=16),
    "high-rank": _other_source(rank_pattern={"q_proj": 600}),
    "dora": _more(_dora, "magnitudes", use_dora=True),
    "lora-bias": _more(_biases("lora"), "biases", lora_bias=True),
    "base-bias": _more(_biases("base"), "biases", bias="all"),
    "bias-lora-only": _fields(bias="lora_only"),
    "alora": _fields("only after its invocation tokens", alora_invocation_tokens=[5, 6]),
    "replicated": _fields("other layers", layer_replication=[[0, 2], [1, 2]]),
    "pissa": _fields("a base from which B·A was taken", init_lora_weights="pissa"),
    "olora": _fields("a base from which B·A was taken", init_lora_weights="olora"),
    "lora-ga": _fields("a base from which B·A was taken", init_lora_weights="lora_ga"),
    "eva": _fields(init_lora_weights="eva"),
    "qalora": _fields("pooled inputs", use_qalora=True, qalora_group_size=2),
    "score": _more(_saved("score.weight", rows=2), "a head", modules_to_save=["score"], task_type="SEQ_CLS"),
    "saved-head": _more(_saved("lm_head.weight"), "an output layer", modules_to_save=["lm_head"]),
    "saved-embeddings": _more(_saved("model.embed_tokens.weight"), "embeddings", modules_to_save=["embed_tokens"]),
    "tokens": _more(lambda: {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": _random(2, WIDE)},
                    "tokens", trainable_token_indices=[1, 2]),
    "norms": _more(lambda: {f"{PREFIX}model.layers.0.input_layernorm.weight": _random(WIDE)}, "a norm"),
    "last-norm": _more(lambda: {f"{PREFIX}model.norm.weight": _random(WIDE)}, "a norm"),
    "base-weight": _more(
        lambda: {f"{PREFIX}model.layers.0.self_attn.q_proj.base_layer.weight": _random(32, WIDE)}, "a base weight"
    ),
    "embeddings": _embeddings("model.embed_tokens"),
    "embeddings-along": _embeddings("model.embed_tokens", along=True),
    "embeddings-unnamed": _embeddings("model.embed_tokens", named=False),
    "output-layer": _embeddings("lm_head"),
    "output-layer-along": _embeddings("lm_head", along=True),
    "without-q": _left_out("q_proj"),
    "without-k": _left_out("k_proj"),
    "without-v": _left_out("v_proj"),
    "without-q-k": _left_out("q_proj", "k_proj"),
    "without-q-v": _left_out("q_proj", "v_proj"),
    "without-gate": _left_out("gate_proj"),
    "without-up": _left_out("up_proj"),
    "nothing": _left_out(*(name.rpartition(".")[2] for name in SIZES)),
    "v-of-one-layer": lambda shop, out: Fault(
        _with(shop, out, lambda held: {n: v for n, v in held.items() if "layers.0.self_attn.v_proj" not in n}),
        {path: value for path, value in dense(shop.plain).items() if path != "model.layers.0.self_attn.v_proj"},
    ),
    "other-projection": _one_module("model.layers.0.self_attn.w_pack", 32, 32),
    "other-layer": _one_module("model.layers.7.self_attn.o_proj", 32, 32),
    "pattern-targets": _fields(target_modules=".*_proj"),
    "all-linear": _fields(target_modules="all-linear"),
    "few-targets": _fields(target_modules=["q_proj", "k_proj", "v_proj"]),
    "full-targets": _fields(target_modules=[f"model.layers.{i}.{name}" for i in range(LAYERS) for name in SIZES]),
    "no-rank": _fields(drop=("r",)),
    "no-alpha": _fields(drop=("lora_alpha",)),
    "no-targets": _fields(drop=("target_modules",)),
    "no-base": _fields(drop=("base_model_name_or_path",)),
    "fan-in": _fields(fan_in_fan_out=True),
    "pickled": _pickled,
    "two-files": _two_files,
    "added-tokens": _with_words,
    **{f"pruned-{mode}-for-peft": _pruned(mode, "peft") for mode in MODES},
}  # fmt: skip
