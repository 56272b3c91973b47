"""LoHa and LoKr under the names of PEFT and of LyCORIS: the dense updates, by each tool's own rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import UnsupportedAdapterError
from tests.forms import PREFIX, loha, lokr
from tests.rewrite.converting import converted, stored
from tests.support import write_safetensors

PATHS = [f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_{name}" for name in "qkv"]
KOHYA = {path: "lora_unet_" + path.removeprefix("unet.").replace(".", "_") for path in PATHS}


def products(form: str) -> dict[str, dict[str, Any]]:
    random = np.random.default_rng(3)
    ranks = {"loha": (2, 2, 3), "lokr": (2, 2, 2), "lokr-whole": (None,) * 3}[form]
    made = {}
    for path, rank in zip(PATHS, ranks, strict=True):
        parts = loha(random, r=rank, s=rank) if form == "loha" else lokr(random, None, rank)
        made[path] = {name: values.astype(np.float32) for name, values in parts.items()}
    return made


def update(parts: dict[str, Any]) -> Any:
    one = {name: values.astype(np.float64) for name, values in parts.items()}
    if "hada_w1_a" in one:
        return (one["hada_w1_a"] @ one["hada_w1_b"]) * (one["hada_w2_a"] @ one["hada_w2_b"])
    second = one["lokr_w2"] if "lokr_w2" in one else one["lokr_w2_a"] @ one["lokr_w2_b"]
    return np.kron(one["lokr_w1"], second)


def peft(folder: Path, made: dict[str, dict[str, Any]], alpha: float) -> Path:
    folder.mkdir()
    tensors = {f"{PREFIX}{path}.{name}": values for path, parts in made.items() for name, values in parts.items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    ranks = {path: len(parts["hada_w1_b"]) for path, parts in made.items() if "hada_w1_b" in parts}
    config = {"peft_type": "LOHA" if ranks else "LOKR", "r": 2, "alpha": alpha, "rank_pattern": ranks}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["to_q", "to_k", "to_v"]}))
    return folder


def kohya(path: Path, made: dict[str, dict[str, Any]], alpha: float) -> Path:
    tensors = {f"{KOHYA[path]}.{name}": values for path, parts in made.items() for name, values in parts.items()}
    alphas = {f"{KOHYA[path]}.alpha": np.array(alpha, np.float32) for path in made}
    write_safetensors(path, {**tensors, **alphas})
    return path


@pytest.mark.parametrize("form", ["loha", "lokr"])
def test_peft_becomes_lycoris(tmp_path: Path, form: str):
    made = products(form)
    assert converted(peft(tmp_path / "in", made, 0.7), tmp_path / "out", "kohya").difference < 1e-7
    tensors = stored(tmp_path / "out/lora.safetensors")
    for path, parts in made.items():
        found = {name: tensors[f"{KOHYA[path]}.{name}"] for name in parts}
        rank = len(found["hada_w1_b" if form == "loha" else "lokr_w2_b"])
        scale = tensors[f"{KOHYA[path]}.alpha"] / rank  # LyCORIS: alpha / lora_dim
        assert np.allclose(scale * update(found), 0.7 / rank * update(parts), rtol=1e-6)


def test_loha_of_lycoris_becomes_peft(tmp_path: Path):
    made = products("loha")
    record = converted(kohya(tmp_path / "in.safetensors", made, 5), tmp_path / "out")
    assert record.difference == 0
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    inner = {path: path.removeprefix("unet.") for path in PATHS}
    assert (config["peft_type"], config["r"], config["rank_pattern"]) == ("LOHA", 2, {inner[PATHS[2]]: 3})
    tensors = stored(tmp_path / "out/adapter_model.safetensors")
    for path, parts in made.items():
        found = {name: tensors[f"{PREFIX}{inner[path]}.{name}"] for name in parts}
        rank = config["rank_pattern"].get(inner[path], config["r"])
        scale = config["alpha_pattern"].get(inner[path], config["alpha"]) / rank  # PEFT: alpha / r
        assert np.allclose(scale * update(found), 5 / rank * update(parts))


def test_what_has_no_name_in_the_other_is_refused(tmp_path: Path):
    whole, halves = products("lokr-whole"), products("lokr")
    with pytest.raises(UnsupportedAdapterError, match="of whole matrices, which LyCORIS scales by 1 and not by 2"):
        converted(peft(tmp_path / "whole", whole, 4), tmp_path / "out", "kohya")
    assert converted(peft(tmp_path / "one", whole, 2), tmp_path / "out", "kohya").difference == 0
    with pytest.raises(UnsupportedAdapterError, match="by a factor that the file does not say"):
        converted(kohya(tmp_path / "lokr.safetensors", halves, 2), tmp_path / "peft")
    loha_file = kohya(tmp_path / "loha.safetensors", products("loha"), 2)
    with pytest.raises(UnsupportedAdapterError, match="with another rank, scaling or type"):
        converted(loha_file, tmp_path / "half", "kohya", dtype="float16")
    for to in ("mlx", "diffusers"):
        with pytest.raises(UnsupportedAdapterError, match="is LoHa"):
            converted(loha_file, tmp_path / to, to)
