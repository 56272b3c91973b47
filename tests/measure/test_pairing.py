"""Names of one module by several tools: paired where that is sure, told, and never guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora.errors import NothingToAuditError
from s3lora.measure.pairing import paired
from tests.gguf_files import ADAPTER, gguf_bytes
from tests.support import factors, make_adapter, write_safetensors

PATHS = [f"model.layers.{i}.self_attn.{name}_proj" for i in range(2) for name in "qv"]
FACTORS = [factors(16, 24, 4, seed=i) for i in range(len(PATHS))]


def peft(folder: Path, rename: Callable[[str], str] = str) -> Path:
    return make_adapter(folder, {rename(path): (16, 24, 4) for path in PATHS})


def tensors(form: Callable[[str], tuple[str, str]], turned: bool = False) -> dict[str, Any]:
    """Return the factors of `peft` under the keys of another tool."""
    made = {}
    for i, path in enumerate(PATHS):
        a, b = factors(16, 24, 4, seed=i)
        for key, values in zip(form(path), (a, b), strict=True):
            made[key] = np.ascontiguousarray(values.T) if turned else values
    return made


def test_transformers_renamed_the_language_model(tmp_path: Path) -> None:
    old = peft(tmp_path / "old")
    new = peft(tmp_path / "new", lambda path: path.replace("model.layers", "model.language_model.layers"))
    compared = s3lora.compare([old, new])
    assert [module.path for module in compared.modules] == PATHS
    assert [module.distance for module in compared.modules] == [(0.0,)] * 4
    (note,) = [one for one in compared.warnings if "match" in one]
    assert note.startswith("new: all 4 names match those of old where `model.language_model.`")
    back = s3lora.compare([new, old])
    assert back.modules[0].path.startswith("model.language_model.layers.0")
    assert len(back) == 4


def test_two_that_have_the_same_names_are_left_alone(tmp_path: Path) -> None:
    compared = s3lora.compare([peft(tmp_path / "a"), peft(tmp_path / "b")])
    assert not [one for one in compared.warnings if "match" in one]


def test_the_same_adapter_by_other_tools(tmp_path: Path) -> None:
    first = peft(tmp_path / "peft")
    mlx = write_safetensors(
        tmp_path / "mlx.safetensors", tensors(lambda p: (f"{p}.lora_a", f"{p}.lora_b"), turned=True)
    )
    wrapped = write_safetensors(
        tmp_path / "vlm.safetensors",
        tensors(lambda p: (f"language_model.{p}.A", f"language_model.{p}.B"), turned=True),
    )
    tune = {"model.": "", "self_attn": "attn"}
    torchtune = write_safetensors(
        tmp_path / "tune.safetensors",
        tensors(
            lambda p: tuple(f"{p.replace('model.', '').replace('self_attn', 'attn')}.lora_{h}.weight" for h in "ab")
        ),  # type: ignore[arg-type,return-value]
    )
    assert tune
    names = {"q_proj": "attn_q", "v_proj": "attn_v"}
    gguf = tmp_path / "x.gguf"
    keys = {**ADAPTER, "general.architecture": "qwen2"}
    made = tensors(lambda p: tuple(  # type: ignore[arg-type,return-value]
        f"blk.{p.split('.')[2]}.{names[p.split('.')[-1]]}.weight.lora_{half}" for half in "ab"
    ))  # fmt: skip
    gguf.write_bytes(gguf_bytes(made, keys))
    for other in (mlx, wrapped, torchtune, gguf):
        compared = s3lora.compare([first, other])
        assert [module.path for module in compared.modules] == PATHS, other
        np.testing.assert_allclose([m.cosine[0] for m in compared.modules], 1.0, rtol=1e-7)


def test_kohya_and_diffusers(tmp_path: Path) -> None:
    places = ["down_blocks.0.attentions.1.to_q", "mid_block.attentions.0.proj_in"]
    old = {
        f"unet.{p}.lora.{half}.weight": x for p in places for half, x in zip(("down", "up"), FACTORS[0], strict=True)
    }
    new = {f"lora_unet_{p.replace('.', '_')}.lora_{half}.weight": x for p in places
           for half, x in zip(("down", "up"), FACTORS[0], strict=True)}  # fmt: skip
    compared = s3lora.compare([
        write_safetensors(tmp_path / "old.safetensors", old), write_safetensors(tmp_path / "new.safetensors", new)
    ])  # fmt: skip
    assert [module.distance for module in compared.modules] == [(0.0,), (0.0,)]
    assert [module.path for module in compared.modules] == [f"unet.{p}" for p in places]


def test_nothing_is_guessed(tmp_path: Path) -> None:
    assert paired([("a", ["x_y.q", "x.y.q"]), ("b", ["unet.x.y.q"])])[0] == [{}, {}], "two would get one name"
    assert (
        paired([("a", ["model.layers.0.q"]), ("b", ["model.layers.0.q", "model.language_model.layers.0.q"])])[0][1]
        == {}
    )
    other = peft(tmp_path / "other", lambda path: path.replace("model.layers", "encoder.block"))
    with pytest.raises(NothingToAuditError, match="no module in common"):
        s3lora.compare([peft(tmp_path / "a"), other])


def test_three_in_a_row_are_named_after_the_first() -> None:
    first, second = ["model.layers.0.q"], ["language_model.model.layers.0.q"]
    made, notes = paired([("a", first), ("b", second), ("c", first)])
    assert made == [{}, {second[0]: first[0]}, {}]
    assert len(notes) == 1
