"""The key names of other tools, each against the dense update of the factors that its file was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora.adapter.model import Adapter, LoraModule, Scaling
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, NothingToAuditError, UnsupportedAdapterError
from tests.support import factors, write_safetensors

Tensors = Mapping[str, np.ndarray[Any, Any]]
A, B = factors(6, 8, 2)
PEFT = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


def opened(
    folder: Path, tensors: Tensors, config: Mapping[str, Any] | None = None, metadata: Mapping[str, str] | None = None
) -> Adapter:
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return open_adapter(write_safetensors(folder / "x.safetensors", tensors, metadata))


def product(module: LoraModule) -> np.ndarray[Any, Any]:
    return np.asarray(module.B.array()).astype(float) @ np.asarray(module.A.array()).astype(float)


DENSE = B.astype(float) @ A.astype(float)
#: Keys of A and B → format, path, layer, projection.
SCHEMES = {
    ("layers.3.attn.q_proj.lora_a.weight", "layers.3.attn.q_proj.lora_b.weight"): (
        *("torchtune", "model.layers.3.self_attn.q_proj", 3, "q_proj"),
    ),
    ("layers.0.mlp.w2.lora_a.weight", "layers.0.mlp.w2.lora_b.weight"): (
        *("torchtune", "model.layers.0.mlp.down_proj", 0, "down_proj"),
    ),
    ("output.lora_a.weight", "output.lora_b.weight"): ("torchtune", "lm_head", None, "lm_head"),
    (
        "decoder.layers.5.mlp.linear_fc1.adapter.linear_in.weight",
        "decoder.layers.5.mlp.linear_fc1.adapter.linear_out.weight",
    ): ("megatron", "decoder.layers.5.mlp.linear_fc1", 5, "linear_fc1"),
    (
        "module.decoder.layers.5.self_attention.linear_qkv.adapter.adapter_q.linear_in.weight",
        "module.decoder.layers.5.self_attention.linear_qkv.adapter.adapter_q.linear_out.weight",
    ): ("megatron", "decoder.layers.5.self_attention.linear_qkv.q", 5, "q"),
    (
        "model.decoder.layers.1.self_attention.adapter_layer.lora_kqv_adapter.linear_in.weight",
        "model.decoder.layers.1.self_attention.adapter_layer.lora_kqv_adapter.linear_out.weight",
    ): ("megatron", "model.decoder.layers.1.self_attention.adapter_layer.lora_kqv_adapter", 1, "lora_kqv_adapter"),
    ("layers.0.self_attn.q_proj.lora.A.weight", "layers.0.self_attn.q_proj.lora.B.weight"): (
        *("minimind", "layers.0.self_attn.q_proj", 0, "q_proj"),
    ),
    ("_orig_mod.layers.0.mlp.up_proj.lora.A.weight", "_orig_mod.layers.0.mlp.up_proj.lora.B.weight"): (
        *("minimind", "layers.0.mlp.up_proj", 0, "up_proj"),
    ),
    ("double_blocks.0.processor.proj_lora1.down.weight", "double_blocks.0.processor.proj_lora1.up.weight"): (
        *("diffusers", "double_blocks.0.img_attn.proj", 0, "proj"),
    ),
    ("double_blocks.7.processor.qkv_lora2.down.weight", "double_blocks.7.processor.qkv_lora2.up.weight"): (
        *("diffusers", "double_blocks.7.txt_attn.qkv", 7, "qkv"),
    ),
    ("single_blocks.9.processor.qkv_lora.down.weight", "single_blocks.9.processor.qkv_lora.up.weight"): (
        *("diffusers", "single_blocks.9.qkv", 9, "qkv"),
    ),
    ("lora_unet_mid_block_attn1_to_k_lora_down.weight", "lora_unet_mid_block_attn1_to_k_lora_up.weight"): (
        *("kohya", "lora_unet_mid_block_attn1_to_k", None, "mid_block_attn1_to_k"),
    ),
    ("down_blocks.0.to_q.lora_A_1.default_0.weight", "down_blocks.0.to_q.lora_B_1.default_0.weight"): (
        *("peft", "down_blocks.0.to_q", 0, "to_q"),
    ),
}


@pytest.mark.parametrize("keys", SCHEMES, ids=lambda keys: str(keys[0]))
def test_a_scheme_is_read(tmp_path: Path, keys: tuple[str, str]) -> None:
    adapter = opened(tmp_path, dict(zip(keys, (A, B), strict=True)) | {"norm.weight": np.ones(3, np.float32)})
    (module,) = adapter.modules
    assert (adapter.format, module.path, module.layer, module.projection) == SCHEMES[keys]
    assert adapter.other_tensors == ("norm.weight",)
    np.testing.assert_array_equal(product(module), DENSE)


@pytest.mark.parametrize("keys", SCHEMES, ids=lambda keys: str(keys[0]))
def test_half_a_scheme_is_refused(tmp_path: Path, keys: tuple[str, str]) -> None:
    for key in keys:
        with pytest.raises(AdapterFileError, match=r"has .* but no |has lora_. but no"):
            opened(tmp_path, {key: A if key == keys[0] else B})
    with pytest.raises(AdapterFileError, match="the factors do not fit"):
        opened(tmp_path, {keys[0]: A, keys[1]: factors(6, 8, 5)[1]})


@pytest.mark.parametrize("keys", SCHEMES, ids=lambda keys: str(keys[0]))
@pytest.mark.parametrize("mode", [s3lora.Remove(), s3lora.Zero()])
def test_a_scheme_is_pruned_and_put_back(tmp_path: Path, keys: tuple[str, str], mode: s3lora.Mode) -> None:
    other = [key.replace("lora_unet_", "lora_unet_x_") if "unet" in key else f"x.{key}" for key in keys]
    if keys[0].startswith(("module.", "_orig_mod.")):
        other = [key.replace("layers.", "layers.1") for key in keys]
    tensors = dict(zip([*keys, *other], (A, B, A + 1, B - 1), strict=True))
    source = tmp_path / "in"
    source.mkdir()
    with opened(source, tensors) as adapter:
        scan = s3lora.scan(adapter)
        pruned = s3lora.prune(adapter, s3lora.select(scan, s3lora.Top(1)), mode)
        record, _ = s3lora.write_pruned(pruned, scan, tmp_path / "out")
    (gone,) = (module.path for module in record.modules)
    with open_adapter(tmp_path / "out" / "x.safetensors") as result:
        left = {module.path: module for module in result.modules}
        assert (gone in left) == (mode.name == "zero")
        if gone in left:
            assert not product(left[gone]).any()
    s3lora.restore(tmp_path / "out", source / "x.safetensors", tmp_path / "back")
    assert (tmp_path / "back" / "x.safetensors").read_bytes() == (source / "x.safetensors").read_bytes()


def test_torchtune_with_the_configuration_it_writes(tmp_path: Path) -> None:
    tensors = {"layers.0.attn.v_proj.lora_a.weight": A, "layers.0.attn.v_proj.lora_b.weight": B}
    more = {"layers.0.attn.v_proj.magnitude": np.ones(6, np.float32)}
    (module,) = opened(tmp_path, {**tensors, **more}, {"r": 2, "lora_alpha": 6, "target_modules": ["v_proj"]}).modules
    assert (module.scaling, module.dora, module.extras) == (Scaling(3.0, "alpha/r"), True, (*more,))


@pytest.mark.parametrize(
    ("config", "turned", "told"),
    [
        ({"model_type": "llama", "num_attention_heads": 1}, True, False),
        ({"model_type": "qwen2", "num_attention_heads": 1}, False, False),
        ({"model_type": "llama"}, False, True),
        (None, False, True),
    ],
)
def test_torchtune_keeps_rows_in_pairs(tmp_path: Path, config: dict[str, Any] | None, turned: bool, told: bool) -> None:
    torch = pytest.importorskip("torch")
    stored = B[[0, 3, 1, 4, 2, 5]]  # of one head, the first rows of both halves, the second, the third
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = {"layers.0.attn.q_proj.lora_a.weight": A, "layers.0.attn.q_proj.lora_b.weight": stored}
    torch.save({name: torch.from_numpy(values) for name, values in tensors.items()}, tmp_path / "adapter_0.pt")
    with open_adapter(tmp_path) as adapter:
        np.testing.assert_array_equal(adapter.modules[0].B.array(), B if turned else stored)
        assert any("by pairs" in warning for warning in adapter.warnings) == told


def test_one_path_under_two_keys(tmp_path: Path) -> None:
    keys = ["layers.0.q.lora.A.weight", "layers.0.q.lora.B.weight"]
    tensors = {f"{wrapper}{key}": x for wrapper in ("", "module.") for key, x in zip(keys, (A, B), strict=True)}
    with pytest.raises(AdapterFileError, match="has two down tensors"):
        opened(tmp_path, tensors)


# kohya


def test_a_split_projection_is_several_modules(tmp_path: Path) -> None:
    base = "lora_unet_double_blocks_4_img_attn_qkv"
    tensors = {f"{base}.lora_{half}.{i}.weight": x + i for i in range(3) for half, x in (("down", A), ("up", B))}
    adapter = opened(tmp_path, {**tensors, f"{base}.alpha": np.array([4.0], np.float32)})
    found = [(m.path, m.layer, m.projection, m.group, m.scaling.value) for m in adapter.modules]
    assert found == [(f"{base}.{i}", 4, f"img_attn_qkv.{i}", base, 2.0) for i in range(3)]
    for i, module in enumerate(adapter.modules):
        np.testing.assert_array_equal(product(module), (B + i).astype(float) @ (A + i).astype(float))
    scan = s3lora.scan(adapter)
    pruned = s3lora.prune(adapter, s3lora.select(scan, s3lora.Top(1)))
    assert "one of several in one projection" in " ".join(pruned.reasons.values())


def test_alpha_with_an_underscore(tmp_path: Path) -> None:
    base = "lora_unet_mid_block_to_k"
    tensors = {f"{base}_lora_down.weight": A, f"{base}_lora_up.weight": B, f"{base}_alpha": np.array(1.0)}
    (module,) = opened(tmp_path, tensors).modules
    assert (module.scaling, module.extras) == (Scaling(0.5, "alpha tensor"), (f"{base}_alpha",))


# MLX


def test_mlx_vlm_multiplies_by_alpha_itself(tmp_path: Path) -> None:
    path = "language_model.model.layers.1.self_attn.q_proj"
    tensors = {f"{path}.A": np.ascontiguousarray(A.T), f"{path}.B": np.ascontiguousarray(B.T)}
    adapter = opened(tmp_path, {**tensors, "x.A": np.ones(2)}, {"rank": 2, "alpha": 8, "dropout": 0.0})
    (module,) = adapter.modules
    assert (adapter.format, module.path, module.layer) == ("mlx", path, 1)
    assert (module.scaling, adapter.warnings, adapter.other_tensors) == (Scaling(8.0, "config scale"), (), ("x.A",))
    np.testing.assert_array_equal(product(module), DENSE)
    with pytest.raises(NothingToAuditError, match=r"it holds `x\.A` and `y\.A`\); looked for"):
        opened(tmp_path, {"x.A": A, "y.A": A})


@pytest.mark.parametrize("older", [False, True])
def test_mlx_experts_in_one_layer(tmp_path: Path, older: bool) -> None:
    a, b = np.stack([A, A + 1, A + 2]), np.stack([B, B - 1, B - 2])
    path = "model.layers.2.mlp.switch_mlp.up_proj"
    tensors = {f"{path}.lora_a": a.reshape(6, 8) if older else a, f"{path}.lora_b": b}
    adapter = opened(tmp_path, tensors, {"lora_parameters": {"rank": 2, "scale": 20.0}})
    assert [m.path for m in adapter.modules] == [f"model.layers.2.mlp.switch_mlp.{e}.up_proj" for e in range(3)]
    assert {(m.layer, m.projection, m.group) for m in adapter.modules} == {
        (2, "up_proj", path.removesuffix(".up_proj"))
    }
    for expert, module in enumerate(adapter.modules):
        np.testing.assert_array_equal(product(module), b[expert].astype(float) @ a[expert].astype(float))
    with pytest.raises(AdapterFileError, match="its experts do not fit"):
        opened(tmp_path, {f"{path}.lora_a": A, f"{path}.lora_b": b})
    with pytest.raises(AdapterFileError, match="two numbers of experts"):
        opened(tmp_path, {f"{path}.lora_a": a[:2], f"{path}.lora_b": b})


# Tinker


def tinker(shared: str = "") -> dict[str, np.ndarray[Any, Any]]:
    a, b = np.stack([A, A + 1, A + 2]), np.stack([B, B - 1, B - 2])
    path = "base_model.model.model.layers.0.mlp.experts.w1"
    return {
        f"{path}.lora_A.weight": a[:1] if shared == "A" else a,
        f"{path}.lora_B.weight": b[:1] if shared == "B" else b,
    }


@pytest.mark.parametrize("shared", ["", "A", "B"])
def test_tinker_experts(tmp_path: Path, shared: str) -> None:
    stored = tinker(shared)
    adapter = opened(tmp_path, stored, {**PEFT, "target_modules": "all-linear"})
    assert [m.path for m in adapter.modules] == [f"model.layers.0.mlp.experts.{e}.w1" for e in range(3)]
    assert {(m.projection, m.group) for m in adapter.modules} == {("w1", "model.layers.0.mlp.experts")}
    a, b = stored.values()
    for expert, module in enumerate(adapter.modules):
        first, second = (x[min(expert, len(x) - 1)].astype(float) for x in (a, b))
        np.testing.assert_array_equal(product(module), second @ first)


@pytest.mark.parametrize("shared", ["A", "B"])
@pytest.mark.parametrize("mode", [s3lora.Zero(), s3lora.Scale(0.25), s3lora.Remove()])
def test_what_experts_share_is_not_changed_for_the_others(tmp_path: Path, shared: str, mode: s3lora.Mode) -> None:
    source = tmp_path / "in"
    source.mkdir()
    with opened(source, tinker(shared), {**PEFT, "target_modules": "all-linear"}) as adapter:
        scan = s3lora.scan(adapter)
        plan = s3lora.select(scan, s3lora.Top(1))
        before = {module.path: product(module) for module in adapter.modules}
        s3lora.write_pruned(s3lora.prune(adapter, plan, mode), scan, tmp_path / "out")
        with pytest.raises(UnsupportedAdapterError, match="shares a factor with other modules"):
            s3lora.prune(adapter, plan, s3lora.Clip(2))
    factor = 0.25 if mode.name == "scale" else 0.0
    with open_adapter(tmp_path / "out" / "x.safetensors") as result:
        for module in result.modules:
            wanted = before[module.path] * (factor if module.path in plan.paths else 1.0)
            np.testing.assert_allclose(product(module), wanted, rtol=1e-6)


def test_an_impossible_number_of_experts(tmp_path: Path) -> None:
    path = "model.layers.0.mlp.experts.w1"
    empty = {
        f"{path}.lora_A.weight": np.zeros((2**40, 0, 4), np.float32),
        f"{path}.lora_B.weight": np.zeros((2**40, 4, 0), np.float32),
    }
    with pytest.raises(AdapterFileError, match="a factor is empty"):
        opened(tmp_path, empty)


# Factors in another layout


def test_factors_as_x_a_b(tmp_path: Path) -> None:
    tensors = {f"blocks.{i}.attn.q.lora_{half}": np.ascontiguousarray(x.T) for i in range(2)
               for half, x in (("A", A), ("B", B))}  # fmt: skip
    adapter = opened(tmp_path, tensors)
    assert [(m.path, m.m, m.n, m.rank) for m in adapter.modules] == [(f"blocks.{i}.attn.q", 6, 8, 2) for i in range(2)]
    assert any("`x @ A @ B`" in warning for warning in adapter.warnings)
    for module in adapter.modules:
        np.testing.assert_array_equal(product(module), DENSE)


def test_another_layout_is_not_guessed(tmp_path: Path) -> None:
    tensors = {"x.lora_A": np.ascontiguousarray(A.T), "x.lora_B": np.ascontiguousarray(B.T)}
    with pytest.raises(AdapterFileError, match="do not fit"):
        opened(tmp_path, tensors, PEFT)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(AdapterFileError, match="do not fit"):  # one of them is as PEFT has it
        opened(tmp_path, {**tensors, "y.lora_A": A, "y.lora_B": B})
    cut = {"x.lora_A": np.ones((2, 24), np.float32), "x.lora_B": np.ones((24, 4), np.float32)}
    with pytest.raises(AdapterFileError, match="do not fit"):
        opened(tmp_path, cut)
    square = {"x.lora_A": np.ones((4, 4), np.float32), "x.lora_B": np.arange(16, dtype=np.float32).reshape(4, 4)}
    assert not any("x @ A" in warning for warning in opened(tmp_path, square).warnings)


@pytest.mark.parametrize(
    ("parts", "rows", "names"),
    [(3, (8, 2, 2), "qkv"), (3, (8, 8, 8), "qkv"), (2, (8, 8), "01"), (2, (8, 4), "01"), (2, (2, 2), "01")],
)
def test_q_k_and_v_in_one_pair(tmp_path: Path, parts: int, rows: tuple[int, ...], names: str) -> None:
    rng = np.random.default_rng(0)
    a = [rng.normal(size=(2, 8)).astype(np.float32) for _ in range(parts)]
    b = [rng.normal(size=(size, 2)).astype(np.float32) for size in rows]
    path = "transformer.h.3.attn.attn"
    adapter = opened(tmp_path, {f"{path}.lora_A": np.concatenate(a), f"{path}.lora_B": np.concatenate(b)})
    assert {(m.path, m.layer, m.group) for m in adapter.modules} == {(f"{path}.{name}", 3, path) for name in names}
    found = {module.path: module for module in adapter.modules}
    for name, first, second in zip(names, a, b, strict=True):
        module = found[f"{path}.{name}"]
        np.testing.assert_array_equal(product(module), second.astype(float) @ first.astype(float))
    assert any("litGPT" in warning for warning in adapter.warnings)
    pruned = s3lora.prune(adapter, s3lora.select(s3lora.scan(adapter), s3lora.Top(1)))
    assert len(pruned.reasons) == 1


# Scaling from the header


def diffusers(path: str = "transformer.transformer_blocks.0.attn.to_q") -> dict[str, np.ndarray[Any, Any]]:
    return {f"{path}.lora_A.weight": A, f"{path}.lora_B.weight": B}


def header(**fields: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": one for key, one in fields.items()})}


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"r": 2, "lora_alpha": 8}, 4.0),
        ({"r": 2, "lora_alpha": 8, "use_rslora": True}, 8 / 2**0.5),
        ({"r": 2, "lora_alpha": 8, "alpha_pattern": {"transformer_blocks.0.attn.to_q": 3}}, 1.5),
    ],
)
def test_diffusers_scales_by_its_header(tmp_path: Path, fields: dict[str, Any], value: float) -> None:
    adapter = opened(tmp_path, diffusers(), metadata=header(**fields))
    assert (adapter.modules[0].scaling, adapter.warnings) == (Scaling(value, "metadata"), ())


def test_diffusers_without_alpha_is_one(tmp_path: Path) -> None:
    for path in (
        "transformer.x_blocks.0.to_q",
        "unet.mid_block.to_q",
        "text_encoder_2.layers.0.q_proj",
        "up_blocks.0.q",
    ):
        adapter = opened(tmp_path, diffusers(path))
        assert (adapter.modules[0].scaling, adapter.warnings) == (Scaling(1.0, "default"), ())
    for path in ("transformer.h.0.attn.c_attn", "model.layers.0.q_proj", "base_model.model.transformer.encoder.q"):
        assert opened(tmp_path, diffusers(path)).modules[0].scaling == Scaling(1.0, "unknown")


KOHYA = {f"lora_unet_x.lora_{half}.weight": x for half, x in (("down", A), ("up", B))}


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"ss_network_alpha": "1.0", "ss_network_dim": "2"}, "1 and 0.5"),
        ({"ss_network_alpha": "2"}, None),
        ({"ss_network_alpha": "None"}, None),
        ({}, None),
        ({"ss_network_alpha": "1", "ss_network_args": '{"conv_alpha": "8"}'}, "1 and 0.5"),
    ],
)
def test_no_loader_reads_the_alpha_in_kohyas_header(tmp_path: Path, metadata: dict[str, str], told: str | None) -> None:
    """sd-scripts and Diffusers scale by 1 what has no alpha beside its tensors."""
    adapter = opened(tmp_path, KOHYA, metadata=metadata)
    assert adapter.modules[0].scaling == Scaling(1.0, "default")
    assert len(adapter.warnings) == (told is not None)
    for warning in adapter.warnings:
        assert warning.startswith("the lack of alphas and `ss_network_alpha` in the header contradict each other")
        assert f"{told}); the former decides" in warning


def test_what_a_converter_has_multiplied_in_is_not_multiplied_again(tmp_path: Path) -> None:
    """As sd-scripts' `convert_flux_lora.py --dst ai-toolkit` writes it: no alpha, and the header of its input."""
    path = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{path}.lora_A.weight": A, f"{path}.lora_B.weight": B}
    adapter = opened(tmp_path, tensors, metadata={"ss_network_alpha": "1", "ss_network_dim": "2"})
    assert adapter.modules[0].scaling == Scaling(1.0, "default")


def test_convolutions_have_an_alpha_of_their_own(tmp_path: Path) -> None:
    down, up = np.ones((2, 5, 3, 3), np.float32), np.ones((7, 2, 1, 1), np.float32)
    tensors = {"lora_unet_c.lora_down.weight": down, "lora_unet_c.lora_up.weight": up, **KOHYA}
    metadata = {"ss_network_alpha": "2", "ss_network_args": '{"conv_dim": "2", "conv_alpha": "8"}'}
    adapter = opened(tmp_path, tensors, metadata=metadata)
    assert {m.path: m.scaling.value for m in adapter.modules} == {"lora_unet_c": 1.0, "lora_unet_x": 1.0}
    assert "of 1 of 2 modules (first lora_unet_c: 1 and 4)" in adapter.warnings[0]


def test_contradictions_are_told(tmp_path: Path) -> None:
    alpha = {"lora_unet_x.alpha": np.array(4.0)}
    adapter = opened(tmp_path, {**KOHYA, **alpha}, metadata={"ss_network_alpha": "1"})
    assert adapter.modules[0].scaling == Scaling(2.0, "alpha tensor")
    assert "the alpha tensors and `ss_network_alpha` in the header contradict each other" in adapter.warnings[0]
    assert opened(tmp_path, {**KOHYA, **alpha}, metadata={"ss_network_alpha": "4"}).warnings == ()
    config = {**PEFT, "target_modules": ["to_q"]}
    adapter = opened(tmp_path, diffusers(), config, header(r=2, lora_alpha=32))
    assert adapter.modules[0].scaling == Scaling(2.0, "alpha/r")
    assert any("the configuration and `lora_adapter_metadata`" in warning for warning in adapter.warnings)


def test_an_alpha_that_is_no_real_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match="alpha must be one number"):
        opened(tmp_path, {**KOHYA, "lora_unet_x.alpha": np.array(1 + 1j, np.complex64)})


def test_an_alpha_whose_quotient_vanishes_is_refused(tmp_path: Path) -> None:
    tensors = {**KOHYA, "lora_unet_x.alpha": np.array(5e-324)}
    with pytest.raises(AdapterFileError, match=r"alpha is 4\.94066e-324, not a positive number"):
        opened(tmp_path, tensors, metadata={"ss_network_alpha": "1"})


@pytest.mark.parametrize(
    "metadata",
    [
        {"lora_adapter_metadata": "[]"},
        {"lora_adapter_metadata": "{"},
        {"lora_adapter_metadata": "[" * 100_000},
        {"lora_adapter_metadata": '{"transformer.r": -1}'},
        {"lora_adapter_metadata": '{"transformer.alpha_pattern": 3}'},
        {"ss_network_alpha": "-1"},
        {"ss_network_alpha": "nan"},
        {"ss_network_alpha": "lots"},
        {"ss_network_args": "3"},
    ],
)
def test_headers_that_cannot_be_meant(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(AdapterFileError, match=r"no JSON object|not a positive number|alpha_pattern"):
        opened(tmp_path, diffusers(), metadata=metadata)


def test_the_header_follows_what_is_removed(tmp_path: Path) -> None:
    tensors = {**diffusers(), **{key.replace("to_q", "to_k"): x + 1 for key, x in diffusers().items()}}
    source = tmp_path / "in"
    source.mkdir()
    fields = {"r": 2, "lora_alpha": 8, "target_modules": ["to_k", "to_q"]}
    with opened(source, tensors, metadata=header(**fields)) as adapter:
        scan = s3lora.scan(adapter)
        plan = s3lora.select(scan, s3lora.Top(1))
        s3lora.write_pruned(s3lora.prune(adapter, plan), scan, tmp_path / "out")
    with open_adapter(tmp_path / "out" / "x.safetensors") as result:
        (left,) = result.modules
        told = json.loads(result.files[0].metadata["lora_adapter_metadata"])
        assert left.scaling == Scaling(4.0, "metadata")
    assert told["transformer.target_modules"] == [left.projection]
    assert told["transformer.r"] == 2


# What is not read


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NothingToAuditError) as caught:
        opened(tmp_path, {"layers.0.prefix": A, "layers.1.prefix": A, "layers.2.prefix": A})
    told = str(caught.value)
    assert "`layers.0.prefix` and `layers.1.prefix`" in told
    assert "looked for factors of LoRA (lora_A" in told
    assert "whole model" not in told
    assert "hostile" not in told
