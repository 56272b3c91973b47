"""Adapters in MLX's format, sound and faulty, on which `s3lora check` is held against mlx-lm."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from tests.loaders.faults import V1, WIDTH, Faulty, Tensors, base_tensors, random_values
from tests.loaders.samples import Workshop, as_mlx
from tests.planning import config_of, dense
from tests.support import write_safetensors

FILE = "adapters.safetensors"


def _own(shop: Workshop, name: str) -> tuple[Path, Tensors, dict[str, Any]]:
    out = as_mlx(shop.plain, shop.folder / "faults" / name)
    return out, dict(load_file(out / FILE)), config_of(out)


def _write(out: Path, tensors: Mapping[str, np.ndarray[Any, Any]], config: Mapping[str, Any]) -> Path:
    write_safetensors(out / FILE, {key: np.ascontiguousarray(value) for key, value in tensors.items()})
    (out / "adapter_config.json").write_text(json.dumps(config))
    return out


def _parameters(change: Mapping[str, Any], *, drop: str = "", **fields: Any) -> Callable[[Workshop, str], Faulty]:
    """Return what changes `lora_parameters`, or leaves one out, and fields beside them."""

    def make(shop: Workshop, name: str) -> Faulty:
        out, tensors, config = _own(shop, name)
        parameters = {key: value for key, value in {**config["lora_parameters"], **change}.items() if key != drop}
        config = {
            key: value for key, value in {**config, "lora_parameters": parameters, **fields}.items() if key != drop
        }
        return Faulty(_write(out, tensors, config), dense(shop.plain))

    return make


def _no_configuration(shop: Workshop, name: str) -> Faulty:
    out = _own(shop, name)[0]
    (out / "adapter_config.json").unlink()
    return Faulty(out, dense(shop.plain))


def _as_npz(shop: Workshop, name: str) -> Faulty:
    out, tensors, _ = _own(shop, name)
    np.savez(out / "adapters.npz", **tensors)
    (out / FILE).unlink()
    return Faulty(out, dense(shop.plain))


def _renamed(change: Callable[[str], str]) -> Callable[[Workshop, str], Faulty]:
    def make(shop: Workshop, name: str) -> Faulty:
        out, tensors, config = _own(shop, name)
        return Faulty(_write(out, {change(key): value for key, value in tensors.items()}, config), dense(shop.plain))

    return make


def _norm(shop: Workshop, name: str) -> Faulty:
    out, tensors, config = _own(shop, name)
    norm = 1 + random_values(WIDTH)
    return Faulty(_write(out, {**tensors, "model.norm.weight": norm}, config), dense(shop.plain),
                  {"model.norm.weight": norm})  # fmt: skip


def _lacking(shop: Workshop, name: str) -> Faulty:
    """A module that `keys` names and the file has not."""
    out, tensors, config = _own(shop, name)
    updates = {path: update for path, update in dense(shop.plain).items() if path != V1}
    return Faulty(_write(out, {key: value for key, value in tensors.items() if V1 not in key}, config), updates)


def _elsewhere(shop: Workshop, name: str) -> Faulty:
    out, tensors, config = _own(shop, name)
    more = {key.replace("layers.1.", "layers.7."): value for key, value in tensors.items() if V1 in key}
    return Faulty(_write(out, {**tensors, **more}, {**config, "num_layers": 8}), dense(shop.plain), fits=False)


def _other_shape(shop: Workshop, name: str) -> Faulty:
    out, tensors, config = _own(shop, name)
    tensors[f"{V1}.lora_b"] = np.hstack((tensors[f"{V1}.lora_b"],) * 2)
    return Faulty(_write(out, tensors, config), dense(shop.plain), fits=False)


def _dora(declared: bool) -> Callable[[Workshop, str], Faulty]:
    def make(shop: Workshop, name: str) -> Faulty:
        out, tensors, config = _own(shop, name)
        base, weights = base_tensors(shop), {}
        for path, update in dense(shop.plain).items():
            weight = base[f"{path}.weight"].astype(np.float64)
            magnitude = (1.3 * np.linalg.norm(weight, axis=1)).astype(np.float32)
            tensors[f"{path}.m"] = magnitude
            changed = weight + update
            weights[f"{path}.weight"] = changed * (magnitude / np.linalg.norm(changed, axis=1))[:, None]
        kind = "dora" if declared else "lora"
        return Faulty(_write(out, tensors, {**config, "fine_tune_type": kind}), {}, weights)

    return make


def _of_peft(shop: Workshop, name: str) -> Faulty:
    return Faulty(shop.plain, dense(shop.plain))


#: Every input by its name; `rows.MLX_FAULTS` has the words.
MLX_INPUTS: Mapping[str, Callable[[Workshop, str], Faulty]] = {
    "mlx-of-peft": _of_peft,
    "mlx-no-configuration": _no_configuration,
    "mlx-no-num_layers": _parameters({}, drop="num_layers"),
    "mlx-no-scale": _parameters({"alpha": 8.0}, drop="scale"),
    "mlx-no-rank": _parameters({}, drop="rank"),
    "mlx-no-dropout": _parameters({}, drop="dropout"),
    "mlx-alpha-beside": _parameters({"alpha": 16.0}),
    "mlx-other-rank": _parameters({"rank": 8}),
    "mlx-few-layers": _parameters({}, num_layers=1),
    "mlx-all-layers": _parameters({}, num_layers=-1),
    "mlx-few-keys": _parameters({"keys": ["self_attn.q_proj", "self_attn.v_proj"]}),
    "mlx-no-keys": _parameters({}, drop="keys"),
    "mlx-npz": _as_npz,
    "mlx-vlm-names": _renamed(lambda key: key.replace("lora_a", "A").replace("lora_b", "B")),
    "mlx-prefix": _renamed(lambda key: f"base_model.model.{key}"),
    "mlx-norm": _norm,
    "mlx-lacking": _lacking,
    "mlx-elsewhere": _elsewhere,
    "mlx-other-shape": _other_shape,
    "mlx-dora": _dora(True),
    "mlx-dora-undeclared": _dora(False),
}
