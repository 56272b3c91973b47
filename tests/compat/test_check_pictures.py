"""What a check says of adapters of picture models, as diffusers was seen to do; what pruning keeps for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from s3lora import UnsupportedAdapterError, check, convert, open_adapter
from tests.planning import prune_to, tensors_of
from tests.support import write_safetensors

A, B = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)
UNET = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn"
KOHYA = "lora_te_text_model_encoder_layers_0"


def written(folder: Path, *paths: str, kohya: bool = False, targets: list[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ends = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
    tensors = {f"{path}.{end}.weight": value for path in paths for end, value in zip(ends, (A, B), strict=True)}
    told = {"text_encoder.r": 2, "text_encoder.lora_alpha": 2, "text_encoder.target_modules": targets}
    metadata = {} if targets is None else {"lora_adapter_metadata": json.dumps(told)}
    write_safetensors(folder / "pytorch_lora_weights.safetensors", tensors, {"format": "pt", **metadata})
    return folder


def told(folder: Path, loader: str = "diffusers") -> tuple[str, str]:
    verdict = check(folder, loaders=[loader]).loaders[0]
    return verdict.verdict, " | ".join(reason.what for reason in verdict.reasons)


def test_keys_that_name_no_part(tmp_path: Path) -> None:
    assert told(written(tmp_path / "a", UNET))[0] == "same"
    for prefix in ("", "base_model.model."):
        verdict, why = told(written(tmp_path / "b", prefix + UNET.removeprefix("unet.")))
        assert (verdict, "no part of a pipeline" in why) == ("other", True)


def test_text_encoders_in_the_header(tmp_path: Path) -> None:
    within = [f"{TEXT.removeprefix('text_encoder.')}.q_proj"]
    folder = written(tmp_path / "a", UNET, f"{TEXT}.q_proj", targets=within)
    verdict, why = told(folder)
    assert (verdict, "transformers 5" in why) == ("fails", True)
    assert told(folder, "diffusers=0.35.0")[0] == "same", "not seen there"
    assert told(written(tmp_path / "b", UNET, f"{TEXT}.q_proj"))[0] == "same"
    new = f"{TEXT}.q_proj".replace("text_model.", "")
    assert told(written(tmp_path / "c", new, targets=[new.partition(".")[2]]))[0] == "same"


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        (("self_attn_q_proj", "self_attn_out_proj"), "same"),
        (("mlp_fc1",), "same"),
        (("self_attn_q_proj", "self_attn_v_proj"), "fails"),
        (("self_attn_k_proj", "mlp_fc1"), "other"),
    ],
)
def test_text_encoders_of_kohya(tmp_path: Path, ends: tuple[str, ...], verdict: str) -> None:
    folder = written(
        tmp_path, *(f"{KOHYA}_{end}" for end in ends), "lora_unet_mid_block_attentions_0_proj_in", kohya=True
    )
    found, why = told(folder)
    assert (found, "out_proj" in why) == (verdict, verdict != "same")


def test_pruning_keeps_what_tells_their_names(tmp_path: Path) -> None:
    q, fc1 = f"{KOHYA}_self_attn_q_proj", f"{KOHYA}_mlp_fc1"
    outs = [f"{KOHYA}_self_attn_out_proj", f"{KOHYA}_self_attn_out_proj".replace("_0_", "_1_")]
    folder = written(tmp_path / "full", q, fc1, *outs, kohya=True)
    assert told(folder)[0] == "same"
    both = prune_to(folder, tmp_path / "both", outs)
    assert all(not tensors_of(both)[f"{path}.lora_up.weight"].any() for path in outs)
    one = prune_to(folder, tmp_path / "one", outs[:1])
    assert not any(name.startswith(outs[0]) for name in tensors_of(one))
    rest = prune_to(folder, tmp_path / "rest", [q, *outs])
    assert {name.partition(".")[0] for name in tensors_of(rest)} == {fc1}
    assert {told(out)[0] for out in (both, one, rest)} == {"same"}


def test_the_names_of_flux(tmp_path: Path) -> None:
    names = ["lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_single_blocks_0_linear2"]
    with open_adapter(written(tmp_path / "original", *names, kohya=True)) as adapter:
        with pytest.raises(UnsupportedAdapterError, match="has 8 rows, which are not those of q, k and v"):
            convert(adapter, "diffusers")
        convert(adapter, "kohya")
    path = "transformer.single_transformer_blocks.0.proj_mlp"
    with open_adapter(written(tmp_path / "diffusers", path)) as adapter:
        assert convert(adapter, "kohya").files.paths == {path: f"lora_{path.replace('.', '_')}"}


def test_names_of_kohya_against_a_base(tmp_path: Path) -> None:
    """The base is one model of a pipeline: of the text encoder beside it nothing is known."""
    shapes = {
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": (32, 8),
        "mid_block.attentions.0.proj_in": (8, 8, 1, 1),
    }
    unet = tmp_path / "unet"
    unet.mkdir()
    weights = {f"{path}.weight": np.zeros(shape, np.float32) for path, shape in shapes.items()}
    write_safetensors(unet / "diffusion_pytorch_model.safetensors", weights)
    (unet / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    names = [f"lora_unet_{path.replace('.', '_')}" for path in shapes]
    gone = "lora_unet_up_blocks_1_attentions_0_proj_out"
    original = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    folder = written(tmp_path / "a", *names, gone, original, f"{KOHYA}_mlp_fc1", kohya=True)
    made = {module.path: module for module in check(folder, unet / "diffusion_pytorch_model.safetensors").modules}
    assert {made[name].standing for name in names} == {"found"}
    assert [made[name].base_path for name in names] == list(shapes)
    assert [made[name].fits for name in names] == [True, False, True], "the second is of another size"
    assert (made[gone].standing, made[f"{KOHYA}_mlp_fc1"].standing) == ("missing", "unknown")
    assert made[original].base_path == next(iter(shapes))


@pytest.mark.parametrize(
    "path",
    [
        *("transformer.h.0.attn.c_attn", "transformer.h.1.mlp.dense_h_to_4h", "transformer.blocks.0.attn.Wqkv"),
        *("transformer.encoder.layers.0.mlp.dense_4h_to_h", "transformer.layer.0.attention.q_lin", "transformer.wte"),
    ],
)
def test_language_models_that_are_called_transformer_too(tmp_path: Path, path: str) -> None:
    picture = "transformer.transformer_blocks.0.attn.to_q"
    for to in ("diffusers", "kohya"):
        with (
            open_adapter(written(tmp_path / to, path)) as adapter,
            pytest.raises(UnsupportedAdapterError, match="is a layer of a language model"),
        ):
            convert(adapter, to)
        with open_adapter(written(tmp_path / f"{to}-picture", picture)) as adapter:
            assert picture in convert(adapter, to).files.paths
