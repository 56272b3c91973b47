"""DoRA in other formats: the weight that each loader comes to, by its own rule and from what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import UnsupportedAdapterError
from tests.rewrite.converting import PREFIX, converted, stored
from tests.support import factors, write_safetensors

PATHS = [f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_{name}" for name in "qkv"]
M, N, R = 8, 12, 3
WEIGHTS = {path: np.random.default_rng(seed).standard_normal((M, N)) for seed, path in enumerate(PATHS)}
ALPHA = 5


def used(path: str, update: Any, lengths: Any) -> Any:
    """Return the weight that DoRA comes to: its rows are as long as μ says."""
    merged = WEIGHTS[path] + update
    return np.ravel(lengths)[:, None] / np.linalg.norm(merged, axis=1, keepdims=True) * merged


def peft_dora(folder: Path, paths: list[str] = PATHS) -> dict[str, Any]:
    """Write an adapter of which `paths` have DoRA; return the weights that it comes to."""
    folder.mkdir()
    tensors, wanted = {}, {}
    for seed, path in enumerate(PATHS):
        a, b = factors(M, N, R, seed=seed)
        tensors |= {f"{PREFIX}{path}.lora_A.weight": a, f"{PREFIX}{path}.lora_B.weight": b}
        if path in paths:
            lengths = np.random.default_rng(seed + 9).uniform(1, 4, M).astype(np.float32)
            tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = lengths
            wanted[path] = used(path, ALPHA / R * b.astype(np.float64) @ a, lengths)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": R, "lora_alpha": ALPHA, "use_dora": True, "target_modules": ["to_q", "to_k"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return wanted


def in_peft(folder: Path) -> dict[str, Any]:
    tensors = stored(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["use_dora"] is True
    scale = config["lora_alpha"] / config["r"]
    names = {path: f"{PREFIX}{path}" for path in PATHS}
    return {path: _of_factors(path, name, tensors, scale) for path, name in names.items()}


def _of_factors(path: str, name: str, tensors: dict[str, Any], scale: float) -> Any:
    a, b = (tensors[f"{name}.lora_{side}.weight"].astype(np.float64) for side in "AB")
    return used(path, scale * b @ a, tensors[f"{name}.lora_magnitude_vector"])


def in_mlx(folder: Path) -> dict[str, Any]:
    tensors = stored(folder / "adapters.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["fine_tune_type"] == "dora"
    scale = config["lora_parameters"]["scale"]
    return {path: used(path, scale * tensors[f"{path}.lora_b"].T.astype(np.float64) @ tensors[f"{path}.lora_a"].T,
                       tensors[f"{path}.m"]) for path in PATHS}  # fmt: skip


def in_kohya(folder: Path, paths: list[str] = PATHS) -> dict[str, Any]:
    tensors = stored(folder / "lora.safetensors")
    found = {}
    for path in paths:
        name = "lora_unet_" + path.removeprefix("unet.").replace(".", "_")
        a, b = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"].astype(np.float64)
        assert tensors[f"{name}.dora_scale"].shape == (M, 1)
        found[path] = used(path, tensors[f"{name}.alpha"] / len(a) * b @ a, tensors[f"{name}.dora_scale"])
    return found


def in_diffusers(folder: Path) -> dict[str, Any]:
    tensors = stored(folder / "pytorch_lora_weights.safetensors")
    return {path: _of_factors(path, path, tensors, ALPHA / R) for path in PATHS}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for path, weight in wanted.items():
        assert np.linalg.norm(found[path] - weight) < 1e-6 * np.linalg.norm(weight), path


def test_every_target_with_dora_and_back(tmp_path: Path):
    wanted = peft_dora(tmp_path / "in")
    for to, read in (("mlx", in_mlx), ("kohya", in_kohya), ("diffusers", in_diffusers)):
        assert converted(tmp_path / "in", tmp_path / to, to).difference < 1e-6
        same(read(tmp_path / to), wanted)
    same(in_kohya(tmp_path / "kohya"), wanted)
    converted(tmp_path / "kohya", tmp_path / "from-kohya", "diffusers")
    same(in_diffusers(tmp_path / "from-kohya"), wanted)
    assert converted(tmp_path / "mlx", tmp_path / "from-mlx", bake=True).difference < 1e-6
    same(in_peft(tmp_path / "from-mlx"), wanted)
    assert 0 < converted(tmp_path / "in", tmp_path / "half", "kohya", dtype="float16").difference < 1e-2


def test_some_modules_with_dora_are_for_kohya_alone(tmp_path: Path):
    wanted = peft_dora(tmp_path / "in", PATHS[:1])
    for to in ("mlx", "diffusers"):
        with pytest.raises(UnsupportedAdapterError, match="has a DoRA magnitude, and other modules have none"):
            converted(tmp_path / "in", tmp_path / to, to)
    converted(tmp_path / "in", tmp_path / "kohya", "kohya")
    same(in_kohya(tmp_path / "kohya", PATHS[:1]), wanted)
    with pytest.raises(UnsupportedAdapterError, match="where it is all or none"):
        converted(tmp_path / "kohya", tmp_path / "peft")


def test_lengths_of_columns_stay_with_lycoris(tmp_path: Path):
    peft_dora(tmp_path / "in")
    converted(tmp_path / "in", tmp_path / "kohya", "kohya")
    tensors = stored(tmp_path / "kohya/lora.safetensors")
    name = next(name for name in tensors if name.endswith("to_q.dora_scale"))
    write_safetensors(tmp_path / "columns.safetensors", tensors | {name: np.ones((1, N), np.float32)})
    with pytest.raises(UnsupportedAdapterError, match="has DoRA magnitudes of columns, which only LyCORIS has"):
        converted(tmp_path / "columns.safetensors", tmp_path / "out")
    converted(tmp_path / "columns.safetensors", tmp_path / "out", "kohya")
    assert stored(tmp_path / "out/lora.safetensors")[name].shape == (1, N)
