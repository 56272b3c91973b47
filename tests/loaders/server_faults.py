"""More adapters as people have them, for loaders that go by keys and shapes: `faults.INPUTS`, and these."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.rewrite.modes import MODES
from tests.loaders.faults import INPUTS, WIDTH, Faulty, Tensors
from tests.loaders.samples import GONE, RANK, SCALE, SIZES, Workshop, edited, source
from tests.planning import PREFIX, config_of, dense, prune_to, tensors_of
from tests.support import factors, write_safetensors

Making = Callable[[Workshop, str], Faulty]
#: Tokens of the tiny Llama.
WORDS = 99


def _copy(
    shop: Workshop,
    name: str,
    change: Callable[[Tensors], Tensors] = dict,
    drop: tuple[str, ...] = (),
    **fields: Any,
) -> Path:
    """Write the plain adapter with other tensors and other fields; `drop` takes fields out."""
    out = shop.folder / "faults" / name
    out.mkdir(parents=True)
    write_safetensors(out / "adapter_model.safetensors", change(tensors_of(shop.plain)), {"format": "pt"})
    config = {key: value for key, value in {**config_of(shop.plain), **fields}.items() if key not in drop}
    (out / "adapter_config.json").write_text(json.dumps(config))
    return out


def _fields(drop: tuple[str, ...] = (), **fields: Any) -> Making:
    """Change the configuration, and nothing that the adapter means."""
    return lambda shop, name: Faulty(_copy(shop, name, drop=drop, **fields), dense(shop.plain))


def _unfit(**fields: Any) -> Making:
    """Change the configuration so that B·A is no longer all that is meant."""
    return lambda shop, name: Faulty(_copy(shop, name, **fields), {}, fits=False)


def _source(**config: Any) -> Making:
    """Make the whole adapter anew, whose updates follow its configuration."""

    def make(shop: Workshop, name: str) -> Faulty:
        folder = source(shop.folder / "faults" / name, **config)
        return Faulty(folder, dense(folder))

    return make


def _saved(*paths: str, rows: int = WORDS, **fields: Any) -> Making:
    """Add whole weights, under names without PEFT's prefix."""

    def make(shop: Workshop, name: str) -> Faulty:
        weights = {path: _random(rows, WIDTH) for path in paths}
        added = {f"{PREFIX}{path}": value for path, value in weights.items()}
        return Faulty(_copy(shop, name, lambda held: held | added, **fields), dense(shop.plain), weights)

    return make


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def _norm(shop: Workshop, name: str) -> Faulty:
    weights = {"model.layers.0.input_layernorm.weight": 1 + 0.4 * _random(WIDTH)}
    added = {f"{PREFIX}{path}": value.astype(np.float32) for path, value in weights.items()}
    return Faulty(_copy(shop, name, lambda held: held | added), dense(shop.plain), weights)


def _biases_of_the_base(shop: Workshop, name: str) -> Faulty:
    weights = {f"{path}.bias": _random(len(update)) for path, update in dense(shop.plain).items()}
    added = {f"{PREFIX}{path.removesuffix('bias')}base_layer.bias": value for path, value in weights.items()}
    return Faulty(_copy(shop, name, lambda held: held | added, bias="all"), dense(shop.plain), weights)


def _left_out(*ends: str, layer: str = "") -> Making:
    """Take the tensors of modules out, as a tool would that knows no loader."""

    def stays(name: str) -> bool:
        return layer not in name or not any(f".{end}." in f"{name}." for end in ends)

    def make(shop: Workshop, name: str) -> Faulty:
        folder = _copy(shop, name, lambda held: {key: value for key, value in held.items() if stays(key)})
        return Faulty(folder, {path: update for path, update in dense(shop.plain).items() if stays(path)})

    return make


def _pruned(mode: str) -> Making:
    """Prune for PEFT, whatever else reads it."""

    def make(shop: Workshop, name: str) -> Faulty:
        updates = dense(shop.plain)
        updates |= {path: edited(mode, updates[path]) for path in GONE}
        return Faulty(prune_to(shop.plain, shop.folder / "faults" / name, GONE, MODES[mode]()), updates)

    return make


def _added(path: str, m: int, n: int, *, named: bool = True, along: bool = False, fits: bool = True) -> Making:
    """Add an update of a module; `along`: the weight of the base is saved beside it."""
    embedding = path.endswith("embed_tokens")
    first, second = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")

    def make(shop: Workshop, name: str) -> Faulty:
        a, b = factors(n, m, RANK, seed=9) if embedding else factors(m, n, RANK, seed=9)
        b = b * np.float32(SCALE)
        more = {f"{PREFIX}{path}.{first}": a, f"{PREFIX}{path}.{second}": b}
        update = 2.0 * b.astype(np.float64) @ a.astype(np.float64)
        if along:
            more[f"{PREFIX}{path}.base_layer.weight"] = _base_weight(shop, path)
        targets = sorted({*config_of(shop.plain)["target_modules"], *([path.rpartition(".")[2]] if named else [])})
        folder = _copy(shop, name, lambda held: held | more, target_modules=targets)
        return Faulty(folder, dense(shop.plain) | {path: update.T if embedding else update}, fits=fits)

    return make


def _base_weight(shop: Workshop, path: str) -> np.ndarray[Any, Any]:
    from safetensors.numpy import load_file

    return load_file(shop.base / "model.safetensors")[f"{path}.weight"]


def _pooled(shop: Workshop, name: str) -> Faulty:
    """QALoRA, whose A acts on means of two inputs."""
    half = _copy(shop, name, lambda held: {key: value[:, : value.shape[1] // 2].copy() if "lora_A" in key else value
                                           for key, value in held.items()},
                 use_qalora=True, qalora_group_size=2)  # fmt: skip
    return Faulty(half, {}, fits=False)


def _pickled(shop: Workshop, name: str) -> Faulty:
    torch = pytest.importorskip("torch")
    folder = _copy(shop, name)
    (folder / "adapter_model.safetensors").unlink()
    held = {key: torch.from_numpy(value.copy()) for key, value in tensors_of(shop.plain).items()}
    torch.save(held, folder / "adapter_model.bin")
    return Faulty(folder, dense(shop.plain))


def _two_files(shop: Workshop, name: str) -> Faulty:
    """Put a second file of weights beside the adapter's, as an interrupted training leaves it."""
    folder = _copy(shop, name)
    other = {key: value * np.float32(3) for key, value in tensors_of(shop.plain).items()}
    write_safetensors(folder / "checkpoint.safetensors", other, {"format": "pt"})
    return Faulty(folder, dense(shop.plain))


def _words(first: int) -> Making:
    """Put the file of a tokenizer with two more words beside the adapter."""

    def make(shop: Workshop, name: str) -> Faulty:
        folder = _copy(shop, name)
        (folder / "added_tokens.json").write_text(json.dumps({"<one>": first, "<two>": first + 1}))
        return Faulty(folder, dense(shop.plain))

    return make


#: Every input by its name; `rows.FAULTS` has the words.
MORE: Mapping[str, Making] = {
    "told-ranks": _source(rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 4}),
    "told-alphas": _source(alpha_pattern={"v_proj": 5}),
    "high-rank": _source(rank_pattern={"q_proj": 600}),
    "base-bias": _biases_of_the_base,
    "bias-field": _fields(bias="lora_only"),
    "olora": _unfit(init_lora_weights="olora"),
    "lora-ga": _unfit(init_lora_weights="lora_ga"),
    "eva": _fields(init_lora_weights="eva"),
    "qalora": _pooled,
    "fan-in": _fields(fan_in_fan_out=True),
    "score": _saved("score.weight", rows=2, modules_to_save=["score"], task_type="SEQ_CLS"),
    "saved-embeddings": _saved("model.embed_tokens.weight", modules_to_save=["embed_tokens"]),
    "layer-norm": _norm,
    "embeddings-along": _added("model.embed_tokens", WORDS, WIDTH, along=True),
    "embeddings-unnamed": _added("model.embed_tokens", WORDS, WIDTH, named=False),
    "output": _added("lm_head", WORDS, WIDTH),
    "output-along": _added("lm_head", WORDS, WIDTH, along=True),
    "without-q": _left_out("q_proj"),
    "without-k": _left_out("k_proj"),
    "without-v": _left_out("v_proj"),
    "without-q-k": _left_out("q_proj", "k_proj"),
    "without-gate": _left_out("gate_proj"),
    "without-up": _left_out("up_proj"),
    "without-one-v": _left_out("v_proj", layer="layers.0."),
    "other-projection": _added("model.layers.0.self_attn.w_pack", 32, 32, fits=False),
    "few-targets": _fields(target_modules=["q_proj", "k_proj", "v_proj"]),
    "full-targets": _fields(target_modules=[f"model.layers.{i}.{name}" for i in range(2) for name in SIZES]),
    "no-rank": _fields(drop=("r",)),
    "no-alpha": _fields(drop=("lora_alpha",)),
    "no-targets": _fields(drop=("target_modules",)),
    "no-base": _fields(drop=("base_model_name_or_path",)),
    "pickled": _pickled,
    "two-files": _two_files,
    "more-words": _words(WORDS),
    "words-again": _words(3),
    **{f"pruned-{mode}-for-peft": _pruned(mode) for mode in MODES},
}
#: All that servers and llama.cpp are given.
ALL: Mapping[str, Making] = {**INPUTS, **MORE}
