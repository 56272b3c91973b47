"""Flux by the names of its original code: for Diffusers, whose layers are parts of fused projections, and for kohya."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import UnsupportedAdapterError, open_adapter
from tests.rewrite.converting import UPDATE, converted
from tests.support import write_safetensors

H, R, ALPHA = 8, 4, 2.0
D, S = "transformer.transformer_blocks.0", "transformer.single_transformer_blocks.3"
#: Outputs, inputs, and what Diffusers calls its rows, one part after the other.
WHOLE: dict[str, tuple[int, int, dict[str, int]]] = {
    "double_blocks_0_img_attn_qkv": (3 * H, H, {f"{D}.attn.to_{part}": H for part in "qkv"}),
    "double_blocks_0_txt_attn_qkv": (3 * H, H, {f"{D}.attn.add_{part}_proj": H for part in "qkv"}),
    "double_blocks_0_img_attn_proj": (H, H, {f"{D}.attn.to_out.0": H}),
    "double_blocks_0_txt_attn_proj": (H, H, {f"{D}.attn.to_add_out": H}),
    "double_blocks_0_img_mlp_0": (4 * H, H, {f"{D}.ff.net.0.proj": 4 * H}),
    "double_blocks_0_txt_mlp_2": (H, 4 * H, {f"{D}.ff_context.net.2": H}),
    "double_blocks_0_img_mod_lin": (6 * H, H, {f"{D}.norm1.linear": 6 * H}),
    "single_blocks_3_linear1": (
        7 * H, H, {**{f"{S}.attn.to_{part}": H for part in "qkv"}, f"{S}.proj_mlp": 4 * H},
    ),
    "single_blocks_3_linear2": (H, 5 * H, {f"{S}.proj_out": H}),
    "single_blocks_3_modulation_lin": (3 * H, H, {f"{S}.norm.linear": 3 * H}),
}  # fmt: skip


def written(folder: Path, whole: dict[str, tuple[int, int, dict[str, int]]], *, split: bool = False) -> UPDATE:
    """Write kohya's file and return ΔW of each of Diffusers' layers; `split` as sd-scripts trains parts apart."""
    folder.mkdir()
    rng = np.random.default_rng(4)
    tensors: dict[str, Any] = {}
    updates = {}
    for name, (m, n, parts) in whole.items():
        base = f"lora_unet_{name}"
        tensors[f"{base}.alpha"] = np.array(ALPHA, np.float32)
        if not split:
            a, b = (rng.standard_normal(size).astype(np.float32) for size in ((R, n), (m, R)))
            tensors |= {f"{base}.lora_down.weight": a, f"{base}.lora_up.weight": b}
            cut = np.split(ALPHA / R * b.astype(float) @ a, np.cumsum([*parts.values()])[:-1])
            updates |= dict(zip(parts, cut, strict=True))
            continue
        for i, (path, size) in enumerate(parts.items()):
            a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((R + i, n), (size, R + i)))
            tensors |= {f"{base}.lora_down.{i}.weight": a, f"{base}.lora_up.{i}.weight": b}
            updates[path] = ALPHA / (R + i) * b.astype(float) @ a
    write_safetensors(folder / "flux.safetensors", tensors)
    return updates


def made(folder: Path) -> UPDATE:
    with open_adapter(folder) as adapter:
        return {m.path: m.scaling.value * m.B.array().astype(float) @ m.A.array() for m in adapter.modules}


def same(found: UPDATE, wanted: UPDATE) -> None:
    assert found.keys() == wanted.keys()
    for path, update in wanted.items():
        np.testing.assert_allclose(found[path], update, rtol=1e-6, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("split", [False, True])
def test_every_layer_of_diffusers_gets_its_rows(tmp_path: Path, split: bool) -> None:
    fused = {name: whole for name, whole in WHOLE.items() if len(whole[2]) > 1}
    updates = written(tmp_path / "in", fused if split else WHOLE, split=split)
    assert converted(tmp_path / "in", tmp_path / "out", "diffusers").difference == 0
    same(made(tmp_path / "out"), updates)


def test_parts_stay_apart_for_kohya(tmp_path: Path) -> None:
    """They have one alpha and several ranks: also where they are padded to one, and where scalings are baked."""
    fused = {name: whole for name, whole in WHOLE.items() if len(whole[2]) > 1}
    written(tmp_path / "in", fused, split=True)
    before = made(tmp_path / "in")
    for more in ({}, {"pad": 0}, {"bake": True}):
        out = tmp_path / f"out-{len(more)}-{next(iter(more), '')}"
        assert converted(tmp_path / "in", out, "kohya", **more).difference < 1e-6
        same(made(out), before)


def test_what_is_not_fluxs_is_refused(tmp_path: Path) -> None:
    for name, m, says in (
        ("double_blocks_0_img_attn_qkv", 3 * H + 1, "has 25 rows, which are not those of q, k and v beside 8 inputs"),
        ("single_blocks_0_linear1", 3 * H, "has 24 rows, which are not"),
        ("img_in", H, "lies in no block of Flux"),
    ):
        written(tmp_path / name, {name: (m, H, {"x": m})})
        with pytest.raises(UnsupportedAdapterError, match=says):
            converted(tmp_path / name, tmp_path / "out", "diffusers")
