"""Adapters as people have them, sound and faulty, on which `s3lora check` is held against what a loader does.

What they mean is what their training meant: a loader that computes something else "loads something else".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from tests.gguf_files import gguf_bytes
from tests.loaders.samples import PATTERNS, RANK, SCALE, Updates, Workshop, source
from tests.planning import PREFIX, config_of, dense, tensors_of
from tests.support import factors, write_safetensors

Tensors = dict[str, np.ndarray[Any, Any]]
Q0, V1 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"
WIDTH = 32
#: Tokens that switch an aLoRA on, and where they stand in what the model reads (`reference.TOKENS`).
INVOCATION, SINCE = [63, 21], 2


@dataclass(frozen=True)
class Faulty:
    """An adapter and what it means.

    `updates` are ΔW by module, `weights` other values of parameters, `since` the first token on which they act,
    `layers` those of which the model is put together anew, and `fits` tells whether the base has all that it changes.
    """

    folder: Path
    updates: Updates
    weights: Tensors = field(default_factory=dict)
    since: int = 0
    layers: tuple[int, ...] = ()
    fits: bool = True


def _copy(shop: Workshop, name: str, *, of: Path | None = None, **config: Any) -> Path:
    """Write the plain adapter, or another, with changed fields, and return its folder."""
    start, out = of or shop.plain, shop.folder / "faults" / name
    _write(out, tensors_of(start), {**config_of(start), **config})
    return out


def _write(folder: Path, tensors: Tensors, config: Mapping[str, Any] | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))


def _renamed(change: Callable[[str], str]) -> Callable[[Workshop, str], Faulty]:
    def make(shop: Workshop, name: str) -> Faulty:
        out = _copy(shop, name)
        _write(out, {change(key): value for key, value in tensors_of(out).items()}, config_of(out))
        return Faulty(out, dense(shop.plain))

    return make


def _configured(**config: Any) -> Callable[[Workshop, str], Faulty]:
    return lambda shop, name: Faulty(_copy(shop, name, **config), dense(shop.plain))


def _with(tensors: Callable[[], Tensors], meant: Callable[[], Tensors] = dict, **config: Any):  # type: ignore[no-untyped-def]
    """Return what adds tensors, under names without PEFT's prefix, which mean these weights."""

    def make(shop: Workshop, name: str) -> Faulty:
        out = _copy(shop, name, **config)
        added = {f"{PREFIX}{key}": value for key, value in tensors().items()}
        _write(out, {**tensors_of(out), **added}, config_of(out))
        return Faulty(out, dense(shop.plain), meant())

    return make


def random_values(*shape: int, scale: float = 0.4) -> np.ndarray[Any, Any]:
    """Return random numbers, always the same of one shape."""
    return (scale * np.random.default_rng(11).standard_normal(shape)).astype(np.float32)


def base_tensors(shop: Workshop) -> Tensors:
    """Return the weights of the base model by name."""
    return {name: value for file in shop.base.glob("*.safetensors") for name, value in load_file(file).items()}


def _patterns(shop: Workshop, name: str) -> Faulty:
    fields = {key: value for key, value in PATTERNS.items() if key != "use_rslora"}
    made = source(shop.folder / "faults" / name, **fields)
    return Faulty(made, dense(made))


def _rslora(shop: Workshop, name: str) -> Faulty:
    made = source(shop.folder / "faults" / name, use_rslora=True)
    return Faulty(made, dense(made))


def _mixed_ranks(shop: Workshop, name: str) -> Faulty:
    """Several ranks that no pattern tells."""
    made = source(shop.folder / "faults" / name, rank_pattern={"q_proj": 2})
    updates = dense(made)
    fields = config_of(made)
    del fields["rank_pattern"]
    (made / "adapter_config.json").write_text(json.dumps(fields))
    return Faulty(made, updates)


def _dora(shop: Workshop, name: str) -> Faulty:
    out = _copy(shop, name, use_dora=True)
    tensors, base, weights = tensors_of(out), base_tensors(shop), {}
    for path, update in dense(shop.plain).items():
        weight = base[f"{path}.weight"].astype(np.float64)
        norms = np.linalg.norm(weight, axis=1)
        magnitude = (1.3 * norms).astype(np.float32)
        tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = magnitude
        changed = weight + update
        weights[f"{path}.weight"] = changed * (magnitude / np.linalg.norm(changed, axis=1))[:, None]
    _write(out, tensors, config_of(out))
    return Faulty(out, {}, weights)


def _pissa(shop: Workshop, name: str) -> Faulty:
    """PiSSA: the base loses its largest components first."""
    out = _copy(shop, name, init_lora_weights="pissa")
    updates, base = dense(shop.plain), base_tensors(shop)
    for path in updates:
        u, sigma, vt = np.linalg.svd(base[f"{path}.weight"].astype(np.float64), full_matrices=False)
        updates[path] = updates[path] - (u[:, :RANK] * sigma[:RANK]) @ vt[:RANK]
    return Faulty(out, updates)


def _embeddings(shop: Workshop, name: str) -> Faulty:
    out = _copy(shop, name)
    words = base_tensors(shop)["model.embed_tokens.weight"].shape[0]
    a, b = factors(WIDTH, words, RANK, seed=3)
    b = b * np.float32(SCALE)
    key = f"{PREFIX}model.embed_tokens.lora_embedding_"
    targets = [*config_of(out)["target_modules"], "embed_tokens"]
    _write(out, {**tensors_of(out), f"{key}A": a, f"{key}B": b}, {**config_of(out), "target_modules": targets})
    update = 2.0 * (b.astype(np.float64) @ a.astype(np.float64)).T
    return Faulty(out, {**dense(shop.plain), "model.embed_tokens": update})


def _head(shop: Workshop, name: str) -> Faulty:
    head = random_values(*base_tensors(shop)["lm_head.weight"].shape)
    return _with(lambda: {"lm_head.weight": head}, lambda: {"lm_head.weight": head},
                 modules_to_save=["lm_head"])(shop, name)  # fmt: skip


def _tokens(shop: Workshop, name: str) -> Faulty:
    """Trained rows of the embeddings: the tokens of the invocation, so that the model reads them."""
    words = base_tensors(shop)["model.embed_tokens.weight"].copy()
    rows = random_values(len(INVOCATION), WIDTH)
    words[INVOCATION] = rows
    return _with(
        lambda: {"model.embed_tokens.token_adapter.trainable_tokens_delta": rows},
        lambda: {"model.embed_tokens.weight": words},
        trainable_token_indices=INVOCATION,
    )(shop, name)


def _bias(shop: Workshop, name: str) -> Faulty:
    """Biases of lora_B: the base has none there, so that they are added with the scaling."""
    biases = {path: random_values(*update.shape[:1]) for path, update in dense(shop.plain).items()}
    return _with(
        lambda: {f"{path}.lora_B.bias": value for path, value in biases.items()},
        lambda: {f"{path}.bias": 2.0 * value.astype(np.float64) for path, value in biases.items()},
        lora_bias=True,
    )(shop, name)


def _alora(shop: Workshop, name: str) -> Faulty:
    out = _copy(shop, name, alora_invocation_tokens=INVOCATION)
    return Faulty(out, dense(shop.plain), since=SINCE)


def _replicated(shop: Workshop, name: str) -> Faulty:
    """Layers 0, 1, 1: the adapter has an update for each of the three."""
    out = _copy(shop, name, layer_replication=[[0, 2], [1, 2]])
    more = {key.replace("layers.1.", "layers.2."): value[::-1].copy() for key, value in tensors_of(out).items()
            if "layers.1." in key}  # fmt: skip
    _write(out, {**tensors_of(out), **more}, config_of(out))
    return Faulty(out, dense(out), layers=(0, 1, 1))


def _lacking(**config: Any) -> Callable[[Workshop, str], Faulty]:
    """Return what leaves out the tensors of two modules that `target_modules` names."""

    def make(shop: Workshop, name: str) -> Faulty:
        out = _copy(shop, name, **config)
        _write(out, {k: v for k, v in tensors_of(out).items() if Q0 not in k and V1 not in k}, config_of(out))
        return Faulty(out, {path: update for path, update in dense(shop.plain).items() if path not in (Q0, V1)})

    return make


def _elsewhere(shop: Workshop, name: str) -> Faulty:
    """A module of a layer that the base has not."""
    out = _copy(shop, name)
    more = {key.replace("layers.1.", "layers.7."): value for key, value in tensors_of(out).items() if V1 in key}
    _write(out, {**tensors_of(out), **more}, config_of(out))
    return Faulty(out, dense(out), fits=False)


def _other_shape(shop: Workshop, name: str) -> Faulty:
    out = _copy(shop, name)
    tensors = tensors_of(out)
    key = f"{PREFIX}{V1}.lora_B.weight"
    tensors[key] = np.vstack((tensors[key], tensors[key]))
    _write(out, tensors, config_of(out))
    return Faulty(out, dense(out), fits=False)


def _called(file: str) -> Callable[[Workshop, str], Faulty]:
    def make(shop: Workshop, name: str) -> Faulty:
        out = _copy(shop, name)
        (out / "adapter_model.safetensors").rename(out / file)
        return Faulty(out, dense(shop.plain))

    return make


def _as_npz(file: str) -> Callable[[Workshop, str], Faulty]:
    def make(shop: Workshop, name: str) -> Faulty:
        out = _copy(shop, name)
        np.savez(out / file, **tensors_of(out))
        (out / "adapter_model.safetensors").unlink()
        return Faulty(out, dense(shop.plain))

    return make


def _as_gguf(shop: Workshop, name: str) -> Faulty:
    """What llama.cpp's converter leaves, beside PEFT's configuration; q and k are not turned here."""
    out = _copy(shop, name)
    tensors = {}
    for i in range(2):
        for end, short in (("v_proj", "attn_v"), ("o_proj", "attn_output")):
            for letter in "AB":
                key = f"{PREFIX}model.layers.{i}.self_attn.{end}.lora_{letter}.weight"
                tensors[f"blk.{i}.{short}.weight.lora_{letter.lower()}"] = tensors_of(shop.plain)[key]
    (out / "adapter.gguf").write_bytes(gguf_bytes(tensors))
    (out / "adapter_model.safetensors").unlink()
    updates = {path: update for path, update in dense(shop.plain).items() if path.endswith(("v_proj", "o_proj"))}
    return Faulty(out, updates)


def _plain_norm(shop: Workshop, name: str) -> Faulty:
    norm = 1 + random_values(WIDTH)
    return _with(lambda: {"model.norm.weight": norm}, lambda: {"model.norm.weight": norm})(shop, name)


def _base_layer(shop: Workshop, name: str) -> Faulty:
    """A weight of the base beside its LoRA, as PEFT saves it for embeddings."""
    weight = random_values(WIDTH, WIDTH)
    return _with(lambda: {f"{Q0}.base_layer.weight": weight}, lambda: {f"{Q0}.weight": weight})(shop, name)


#: Fields that PEFT 0.21 writes and older releases have not.
NEWEST: dict[str, Any] = {
    "alora_invocation_tokens": None, "arrow_config": None, "corda_config": None, "ensure_weight_tying": False,
    "eva_config": None, "exclude_modules": None, "lora_bias": False, "peft_version": "0.21.2", "qalora_group_size": 16,
    "target_parameters": None, "trainable_token_indices": None, "use_qalora": False,
}  # fmt: skip

#: Every input by its name; `rows.FAULTS` has the words.
INPUTS: Mapping[str, Callable[[Workshop, str], Faulty]] = {
    "wrapper-orig_mod": _renamed(lambda key: f"_orig_mod.{key}"),
    "wrapper-module": _renamed(lambda key: f"module.{key}"),
    "wrapper-fsdp": _renamed(lambda key: key.replace(".layers.", "._fsdp_wrapped_module.layers.")),
    "wrapper-checkpoint": _renamed(lambda key: key.replace(".self_attn.", "._checkpoint_wrapped_module.self_attn.")),
    "wrapper-twice": _renamed(lambda key: f"{PREFIX}{key}"),
    "no-prefix": _renamed(lambda key: key.removeprefix(PREFIX)),
    "default-names": _renamed(lambda key: key.replace(".weight", ".default.weight")),
    "other-names": _renamed(lambda key: key.replace(".weight", ".mine.weight")),
    "mixed-ranks": _mixed_ranks,
    "patterns": _patterns,
    "rslora": _rslora,
    "regex": _configured(target_modules=".*_proj"),
    "all-linear": _configured(target_modules="all-linear"),
    "newest-fields": _configured(**NEWEST),
    "unknown-field": _configured(some_field_of_tomorrow=1),
    "dora": _dora,
    "alora": _alora,
    "pissa": _pissa,
    "replicated": _replicated,
    "head": _head,
    "tokens": _tokens,
    "bias": _bias,
    "embeddings": _embeddings,
    "norm": _plain_norm,
    "base-layer": _base_layer,
    "lacking": _lacking(),
    "lacking-at-random": _lacking(init_lora_weights=False),
    "elsewhere": _elsewhere,
    "other-shape": _other_shape,
    "called-adapters": _called("adapters.safetensors"),
    "called-model": _called("model.safetensors"),
    "npz-of-mlx": _as_npz("adapters.npz"),
    "npz": _as_npz("adapter_model.npz"),
    "gguf": _as_gguf,
}
