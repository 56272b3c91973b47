from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.model import Adapter, LoraModule, Scaling
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, UnsupportedAdapterError
from tests.support import factors, write_safetensors

Tensors = Mapping[str, np.ndarray[Any, Any]]
A, B = factors(6, 8, 2)


def opened(
    folder: Path,
    tensors: Tensors,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Adapter:
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return open_adapter(write_safetensors(folder / "x.safetensors", tensors, metadata))


def product(module: LoraModule) -> np.ndarray[Any, Any]:
    return np.asarray(module.B.array() @ module.A.array())


# MLX


def mlx(path: str = "model.layers.4.self_attn.q_proj") -> dict[str, np.ndarray[Any, Any]]:
    return {f"{path}.lora_a": A.T.copy(), f"{path}.lora_b": B.T.copy()}


def test_mlx_factors_lie_transposed(tmp_path: Path) -> None:
    adapter = opened(tmp_path, {**mlx(), "model.norm.weight": np.ones(3, np.float32)}, {"lora_parameters": {}})
    (module,) = adapter.modules
    assert (adapter.format, adapter.removable, adapter.other_tensors) == ("mlx", True, ("model.norm.weight",))
    assert (module.path, module.layer, module.projection) == ("model.layers.4.self_attn.q_proj", 4, "q_proj")
    assert (module.m, module.n, module.rank) == (6, 8, 2)
    np.testing.assert_array_equal(product(module), B @ A)
    # Assigning to the view of a copy writes the factor in the file's own layout: what pruning relies on.
    stored = np.array(module.B.tensor.array())
    module.B.view(stored)[:] = 7
    assert stored.shape == (2, 6)
    assert (stored == 7).all()


@pytest.mark.parametrize(
    ("parameters", "scaling", "words"),
    [
        ({"rank": 2, "alpha": 6, "scale": 10.0}, Scaling(10.0, "ambiguous"), ["`scale` = 10", "alpha/rank = 30"]),
        ({"rank": 2, "scale": 20.0}, Scaling(20.0, "config scale"), []),
        ({"rank": 2, "alpha": 2.0, "scale": 20.0}, Scaling(20.0, "config scale"), []),
        ({"rank": 2, "alpha": 16}, Scaling(1.0, "unknown"), ["no `scale` in adapter_config.json"]),
        ({"rank": 4, "scale": 20.0}, Scaling(20.0, "config scale"), ["says rank 4 where the tensors have 2"]),
        (None, Scaling(1.0, "unknown"), ["no `scale`"]),
    ],
)
def test_mlx_scaling_is_ambiguous_where_versions_disagree(
    tmp_path: Path, parameters: dict[str, float] | None, scaling: Scaling, words: list[str]
) -> None:
    adapter = opened(tmp_path, mlx(), None if parameters is None else {"lora_parameters": parameters})
    assert adapter.modules[0].scaling == scaling
    text = " ".join(adapter.warnings)
    assert all(word in text for word in words)
    assert bool(words) == bool(text)


def test_mlx_dora_and_embeddings(tmp_path: Path) -> None:
    tensors = {**mlx(), "model.layers.4.self_attn.q_proj.m": np.ones(6, np.float32), **mlx("model.embed_tokens")}
    adapter = opened(tmp_path, tensors)
    embedding, linear = adapter.modules
    assert (embedding.kind, embedding.dora, linear.kind, linear.dora) == ("embedding", False, "linear", True)
    assert linear.extras == ("model.layers.4.self_attn.q_proj.m",)
    assert any("DoRA" in warning for warning in adapter.warnings)


def test_mlx_incomplete_stacked_or_senseless(tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match=r"q_proj: has lora_a but no lora_b"):
        opened(tmp_path, {"model.layers.4.self_attn.q_proj.lora_a": A.T.copy()})
    with pytest.raises(AdapterFileError, match=r"q_proj: has lora_b but no lora_a"):
        opened(tmp_path, {"model.layers.4.self_attn.q_proj.lora_b": A.T.copy()})
    stacked = {f"x.up_proj.lora_{f}": np.ones((2, 2, 2, 2) if f == "a" else (2, 2), np.float32) for f in "ab"}
    with pytest.raises(UnsupportedAdapterError, match=r"up_proj.*4 dimensions is not one matrix"):
        opened(tmp_path, stacked)
    with pytest.raises(AdapterFileError, match=r"^/.*/adapter_config\.json: `scale` is -1, not a positive number"):
        opened(tmp_path, mlx(), {"lora_parameters": {"scale": -1}})


# Diffusers

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
DIFFUSERS = {
    f"unet.{BLOCK}.attn1.to_q.lora": (f"unet.{BLOCK}.attn1.to_q", 1, "to_q"),
    f"unet.{BLOCK}.attn2.processor.to_k_lora": (f"unet.{BLOCK}.attn2.to_k", 1, "to_k"),
    f"{BLOCK}.attn2.processor.to_out_lora": (f"{BLOCK}.attn2.to_out.0", 1, "to_out"),
    f"unet.{BLOCK}.ff.net.0.proj.lora": (f"unet.{BLOCK}.ff.net.0.proj", 1, "proj"),
    "text_encoder.text_model.encoder.layers.5.self_attn.q_proj.lora_linear_layer": (
        "text_encoder.text_model.encoder.layers.5.self_attn.q_proj",
        5,
        "q_proj",
    ),
}


def test_diffusers_spellings_without_alpha(tmp_path: Path) -> None:
    tensors = {f"{key}.{half}.weight": x for key in DIFFUSERS for half, x in (("down", A), ("up", B))}
    adapter = opened(tmp_path, {**tensors, "text_embeds": np.ones(3, np.float32)})
    assert {(m.path, m.layer, m.projection) for m in adapter.modules} == set(DIFFUSERS.values())
    assert (adapter.format, adapter.removable, adapter.other_tensors) == ("diffusers", True, ("text_embeds",))
    for module in adapter.modules:
        assert module.scaling == Scaling(1.0, "default")
        np.testing.assert_array_equal(product(module), B @ A)
    assert adapter.warnings == ()


@pytest.mark.parametrize("form", ["unet.x.to_q.alpha", "unet.x.to_q.lora.alpha", "unet.x.processor.to_q_lora.alpha"])
def test_diffusers_network_alphas(tmp_path: Path, form: str) -> None:
    tensors = {"unet.x.to_q.lora.down.weight": A, "unet.x.to_q.lora.up.weight": B, form: np.array([5.0], np.float16)}
    adapter = opened(tmp_path, tensors)
    (module,) = adapter.modules
    assert (module.path, module.scaling, module.extras) == ("unet.x.to_q", Scaling(2.5, "alpha tensor"), (form,))
    assert (adapter.warnings, adapter.other_tensors) == ((), ())


def test_diffusers_incomplete_or_doubled(tmp_path: Path) -> None:
    down, up = {"unet.x.to_q.lora.down.weight": A}, {"unet.x.to_q.lora.up.weight": B}
    with pytest.raises(AdapterFileError, match=r"unet\.x\.to_q: has down but no up"):
        opened(tmp_path, down)
    with pytest.raises(AdapterFileError, match=r"unet\.x\.to_q: has up but no down"):
        opened(tmp_path, up)
    with pytest.raises(AdapterFileError, match=r"unet\.x\.to_q: has two down tensors"):
        opened(tmp_path, {**down, **up, "unet.x.processor.to_q_lora.down.weight": A})
    with pytest.raises(AdapterFileError, match=r"has alpha but no down and up"):
        opened(tmp_path, {**down, **up, "unet.y.lora.alpha": np.array(1.0)})


# kohya

KOHYA = {
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q": (1, "attn1_to_q"),
    "lora_unet_up_blocks_2_attentions_1_transformer_blocks_0_ff_net_0_proj": (2, "ff_net_0_proj"),
    "lora_unet_mid_block_attentions_0_proj_in": (None, "proj_in"),
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0": (4, "attn2_to_out_0"),
    "lora_unet_double_blocks_7_img_attn_proj": (7, "img_attn_proj"),
    "lora_unet_conv_in": (None, "conv_in"),
    "lora_te_text_model_encoder_layers_3_self_attn_q_proj": (3, "self_attn_q_proj"),
    "lora_te2_text_model_encoder_layers_11_mlp_fc1": (11, "mlp_fc1"),
    "lora_te3_encoder_block_5_layer_0_SelfAttention_q": (5, "SelfAttention_q"),
}


def kohya(base: str, alpha: Any = None) -> dict[str, np.ndarray[Any, Any]]:
    tensors = {f"{base}.lora_down.weight": A, f"{base}.lora_up.weight": B}
    return tensors if alpha is None else {**tensors, f"{base}.alpha": alpha}


def test_kohya_names_and_alphas(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for base in KOHYA:
        tensors.update(kohya(base, np.array(5, np.float16)))
    adapter = opened(tmp_path, tensors)
    assert {m.path: (m.layer, m.projection) for m in adapter.modules} == KOHYA
    assert (adapter.format, adapter.removable, adapter.warnings, adapter.other_tensors) == ("kohya", True, (), ())
    for module in adapter.modules:
        assert module.scaling == Scaling(2.5, "alpha tensor")
        assert module.extras == (f"{module.path}.alpha",)
        np.testing.assert_array_equal(product(module), B @ A)


def test_kohya_beside_a_configuration_of_peft(tmp_path: Path) -> None:
    adapter = opened(tmp_path, kohya("lora_unet_x", np.array(4.0)), {"peft_type": "LORA", "r": 8})
    assert (adapter.format, adapter.modules[0].scaling) == ("kohya", Scaling(2.0, "alpha tensor"))


def test_kohya_convolutions_are_flattened(tmp_path: Path) -> None:
    down = np.arange(2 * 5 * 9, dtype=np.float32).reshape(2, 5, 3, 3)
    up = np.ones((7, 2, 1, 1), np.float32)
    base = "lora_unet_down_blocks_0_resnets_1_conv1"
    (module,) = opened(tmp_path, {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up}).modules
    assert (module.kind, module.m, module.n, module.rank) == ("conv", 7, 45, 2)
    np.testing.assert_array_equal(product(module), np.einsum("mrxy,rnhw->mnhw", up, down).reshape(7, 45))


def test_kohya_dora_and_biases_leave_with_their_module(tmp_path: Path) -> None:
    base = "lora_unet_double_blocks_7_img_attn_proj"
    extra = {f"{base}.dora_scale": np.ones((6, 1), np.float32), f"{base}.diff_b": np.ones(6, np.float32)}
    adapter = opened(tmp_path, {**extra, **kohya(base, np.array([4.0])), "lora_unet_norm.w_norm": np.ones(2)})
    (module,) = adapter.modules
    assert module.dora
    assert set(module.extras) == {*extra, f"{base}.alpha"}
    assert adapter.other_tensors == ("lora_unet_norm.w_norm",)
    assert any("DoRA" in warning for warning in adapter.warnings)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("lora_unet_x.lora_mid.weight", "Tucker"),
        ("lora_unet_x.hada_t1", "Tucker"),
        ("lora_unet_x.lokr_t2", "Tucker"),
        ("lora_unet_x.oft_blocks", "OFT"),
        ("lora_unet_x.a1.weight", "GLoRA"),
        ("lora_unet_x.on_input", "IA³"),
    ],
)
@pytest.mark.parametrize("beside_lora", [True, False])
def test_other_lycoris_kinds_are_refused_by_name(tmp_path: Path, key: str, kind: str, beside_lora: bool) -> None:
    tensors = {**(kohya("lora_unet_x") if beside_lora else {}), key: A}
    with pytest.raises(UnsupportedAdapterError, match=kind):
        opened(tmp_path, tensors)


@pytest.mark.parametrize("key", ["hada_w1_a", "lokr_w1", "lokr_w2_b"])
@pytest.mark.parametrize("beside_lora", [True, False])
def test_half_of_another_form_is_refused(tmp_path: Path, key: str, beside_lora: bool) -> None:
    tensors = {**(kohya("lora_unet_x") if beside_lora else {}), f"lora_unet_x.{key}": A}
    with pytest.raises(AdapterFileError, match=f"x: has {key} but no "):
        opened(tmp_path, tensors)


@pytest.mark.parametrize(
    ("alpha", "reason"),
    [
        (np.ones(2), "alpha must be one number"),
        (np.array(0.0), "alpha is 0, not a positive number"),
        (np.array(-1.0), "alpha is -1, not a positive number"),
        (np.array(np.nan), "alpha is nan, not a positive number"),
        (np.array(np.inf), "alpha is inf, not a positive number"),
    ],
)
def test_an_alpha_that_is_no_scaling_is_refused(tmp_path: Path, alpha: np.ndarray[Any, Any], reason: str) -> None:
    with pytest.raises(AdapterFileError, match=reason):
        opened(tmp_path, kohya("lora_unet_x", alpha))


# Home-made schemes


def test_numbered_stable_diffusion_pairs(tmp_path: Path) -> None:
    tensors = {f"{model}:{i}:{half}": x for model in ("unet", "text_encoder") for i in (0, 10, 9) for half, x in
               (("up", B), ("down", A))}  # fmt: skip
    tensors["<s1>"] = np.ones(8, np.float32)
    metadata = {f"unet:{i}:rank": "2" for i in (0, 9)} | {"unet:10:rank": "4", "unet": '["Attention"]'}
    adapter = opened(tmp_path, tensors, metadata=metadata)
    assert [(m.path, m.layer, m.projection) for m in adapter.modules] == [
        (f"{model}:{i}", i, model) for model in ("text_encoder", "unet") for i in (0, 9, 10)
    ]
    assert adapter.format == "stable-diffusion-numbered"
    assert not adapter.removable  # its loader reads every numbered pair
    assert adapter.other_tensors == ("<s1>",)
    assert "says rank 4 where the tensors have 2 (1 of 6 modules, first unet:10)" in adapter.warnings[-1]
    np.testing.assert_array_equal(product(adapter.modules[0]), B @ A)
    with pytest.raises(AdapterFileError, match="unet:3: has down but no up"):
        opened(tmp_path, {"unet:3:down": A})


def test_numbers_no_layer_can_have(tmp_path: Path) -> None:
    number = "9" * 30
    adapter = opened(tmp_path, {f"unet:{number}:down": A, f"unet:{number}:up": B})
    assert [(m.path, m.layer, m.projection) for m in adapter.modules] == [(f"unet:{number}", None, "unet")]
    tensors = {f"w_{half}_{n}": x for n in (number, number[:-1] + "8") for half, x in (("a", A), ("b", B))}
    assert [(m.layer, m.projection) for m in opened(tmp_path, tensors).modules] == [(None, "q"), (None, "v")]


def test_numbered_segment_anything_pairs_alternate_q_and_v(tmp_path: Path) -> None:
    tensors = {f"w_{half}_{i:03d}": x + i for i in range(4) for half, x in (("a", A), ("b", B))}
    adapter = opened(tmp_path, tensors)
    assert [(m.path, m.layer, m.projection) for m in adapter.modules] == [
        ("w_000", 0, "q"),
        ("w_001", 0, "v"),
        ("w_002", 1, "q"),
        ("w_003", 1, "v"),
    ]
    assert (adapter.format, adapter.removable) == ("segment-anything-numbered", False)
    np.testing.assert_array_equal(product(adapter.modules[2]), (B + 2) @ (A + 2))
    with pytest.raises(AdapterFileError, match="w_000: has up but no down"):
        opened(tmp_path, {"w_b_000": B})
