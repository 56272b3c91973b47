from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.formats.experts import MAX_EXPERTS
from s3lora.adapter.model import Adapter, Scaling
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, UnsupportedAdapterError
from tests.support import make_adapter, write_safetensors

E, M, N, R = 3, 5, 7, 2
EXPERTS = "model.layers.1.mlp.experts"
CONFIG = {"peft_type": "LORA", "r": R, "lora_alpha": 6, "target_parameters": ["mlp.experts.down_proj"]}


def opened(folder: Path, tensors: dict[str, np.ndarray[Any, Any]], config: dict[str, Any] | None) -> Adapter:
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return open_adapter(folder)


def random(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fused(path: str, rank: int = R, m: int = M, n: int = N, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    key = f"base_model.model.{path}"
    return {
        f"{key}.lora_A.weight": random(rank * E, n, seed=seed),
        f"{key}.lora_B.weight": random(m, rank * E, seed=seed + 1),
    }


def deltas(tensors: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """PEFT's own arithmetic for the experts of one parameter, without the scaling."""
    a, b = tensors.values()
    by_a = a.reshape(E, -1, a.shape[1])
    by_b = b.reshape(b.shape[0], -1, E)
    return np.asarray(np.einsum("o r e, e r i -> e o i", by_b, by_a))


def test_each_expert_of_a_fused_parameter_is_a_module(tmp_path: Path) -> None:
    tensors = fused(EXPERTS)
    adapter = opened(tmp_path, tensors, CONFIG)
    expected = deltas(tensors)
    assert [module.path for module in adapter.modules] == [f"{EXPERTS}.{e}.down_proj" for e in range(E)]
    for e, module in enumerate(adapter.modules):
        assert (module.layer, module.projection, module.expert, module.group) == (1, "down_proj", e, EXPERTS)
        assert (module.m, module.n, module.rank, module.scaling) == (M, N, R, Scaling(3.0, "alpha/r"))
        np.testing.assert_allclose(module.B.array() @ module.A.array(), expected[e], rtol=1e-5, atol=1e-6)
        assert set(module.tensor_names) == set(tensors)
    assert any("experts are fused" in warning for warning in adapter.warnings)


def test_writing_to_an_experts_view_touches_no_other_expert(tmp_path: Path) -> None:
    adapter = opened(tmp_path, fused(EXPERTS), CONFIG)
    stored = np.array(adapter.modules[0].B.tensor.array())
    adapter.modules[1].B.view(stored)[:] = 0
    for e, module in enumerate(adapter.modules):
        assert (module.B.view(stored) == 0).all() == (e == 1)


def test_two_parameters_are_told_apart_by_nesting_and_may_differ_in_rank(tmp_path: Path) -> None:
    config = {
        **CONFIG,
        "target_parameters": ["mlp.experts.down_proj", "mlp.experts.gate_up_proj", "layers.1.mlp.experts.down_proj"],
        "rank_pattern": {"experts.down_proj": 3},
        "alpha_pattern": {"gate_up_proj": 10},
    }
    inner, outer = fused(f"{EXPERTS}.base_layer", m=10, n=5), fused(EXPERTS, rank=3, m=5, n=11, seed=5)
    adapter = opened(tmp_path, {**outer, **inner}, config)
    found = {module.path: module for module in adapter.modules}
    assert len(found) == 2 * E
    for name, tensors, rank, scaling in [
        ("gate_up_proj", inner, 2, Scaling(5.0, "alpha_pattern")),
        ("down_proj", outer, 3, Scaling(2.0, "alpha/r")),
    ]:
        for e, delta in enumerate(deltas(tensors)):
            module = found[f"{EXPERTS}.{e}.{name}"]
            assert (module.rank, module.scaling, module.group) == (rank, scaling, EXPERTS)
            np.testing.assert_allclose(module.B.array() @ module.A.array(), delta, rtol=1e-5, atol=1e-6)


def test_stacked_experts_have_three_dimensions(tmp_path: Path) -> None:
    key = f"base_model.model.{EXPERTS}.gate_up_proj"
    a, b = random(E, R, N), random(E, M, R, seed=1)
    adapter = opened(tmp_path, {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}, None)
    assert len(adapter.modules) == E
    for e, module in enumerate(adapter.modules):
        assert (module.expert, module.projection, module.group) == (e, "gate_up_proj", EXPERTS)
        np.testing.assert_array_equal(module.B.array() @ module.A.array(), b[e] @ a[e])


@pytest.mark.parametrize("shared", [True, False])
def test_more_experts_than_any_model_has_are_refused(tmp_path: Path, shared: bool) -> None:
    key, count = f"base_model.model.{EXPERTS}.gate_up_proj", MAX_EXPERTS + 1
    a = np.ones((1 if shared else count, 1, 2), np.float32)
    tensors = {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": np.ones((count, 1, 1), np.float32)}
    with pytest.raises(AdapterFileError, match=r"claims 4,097 experts, and no model has more than 4,096"):
        opened(tmp_path, tensors, None)


def test_more_modules_than_any_model_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3lora.adapter.formats.base.MAX_MODULES", 2 * E - 1)
    tensors = {
        f"base_model.model.model.layers.{i}.mlp.experts.gate_up_proj.lora_{half}.weight": random(*shape, seed=i)
        for i in range(2)
        for half, shape in (("A", (E, R, N)), ("B", (E, M, R)))
    }
    with pytest.raises(AdapterFileError, match=f"claims more than {2 * E - 1} modules"):
        opened(tmp_path, tensors, None)


def test_more_targets_than_any_configuration_has_are_refused(tmp_path: Path) -> None:
    key = f"base_model.model.{EXPERTS}.gate_up_proj"
    tensors = {f"{key}.lora_A.weight": random(E, R, N), f"{key}.lora_B.weight": random(E, M, R, seed=1)}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_parameters": ["a.b"] * 1001}
    with pytest.raises(AdapterFileError, match="`target_parameters` names 1,001 parameters"):
        opened(tmp_path, tensors, config)


def test_patterns_decide_for_stacked_experts_too(tmp_path: Path) -> None:
    key = f"base_model.model.{EXPERTS}.gate_up_proj"
    tensors = {f"{key}.lora_A.weight": random(E, R, N), f"{key}.lora_B.weight": random(E, M, R, seed=1)}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "alpha_pattern": {"experts.gate_up_proj": 10}}
    adapter = opened(tmp_path, tensors, config)
    assert {module.scaling for module in adapter.modules} == {Scaling(5.0, "alpha_pattern")}


def test_experts_of_unknown_number_are_not_taken_for_one_matrix(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapterError, match="several experts, and nothing says how many"):
        opened(tmp_path, fused(EXPERTS), None)
    with pytest.raises(AdapterFileError, match="fused experts of rank 4 do not fit"):
        opened(tmp_path, fused(EXPERTS), {**CONFIG, "r": 4})


def test_a_parameter_with_one_matrix_and_ordinary_modules_are_read_as_ever(tmp_path: Path) -> None:
    config = {"target_parameters": ["self_attn.q_proj.weight", "gate_up_proj"], "r": 2, "lora_alpha": 4}
    paths = {f"model.layers.0.self_attn.{p}_proj": (4, 4, 2) for p in "qk"}
    paths |= {f"model.layers.0.mlp.experts.{e}.up_proj": (4, 6, 2) for e in range(2)}
    adapter = open_adapter(make_adapter(tmp_path / "a", paths, config=config))
    assert {module.path for module in adapter.modules} == set(paths)
    assert [module.expert for module in adapter.modules] == [0, 1, None, None]
    assert all(module.group is None for module in adapter.modules)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["Qwen3Moe", "GptOss", "Mixtral"])
@pytest.mark.parametrize("patterns", [False, True])
def test_real_peft_models_agree_on_every_expert(tmp_path: Path, kind: str, patterns: bool) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    wrapper = pytest.importorskip("peft.tuners.lora.layer").ParamWrapper
    sizes = {"vocab_size": 32, "hidden_size": 24, "intermediate_size": 10, "moe_intermediate_size": 10, "head_dim": 8}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "num_experts_per_tok": 2}
    config = getattr(transformers, f"{kind}Config")(**sizes, num_experts=E, num_local_experts=E)
    extra: dict[str, Any] = {}
    if patterns:
        extra = {"use_rslora": True, "rank_pattern": {"experts.down_proj": 2}}
        extra["alpha_pattern"] = {"layers.1.mlp.experts.gate_up_proj": 7}
    lora = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        **extra,
    )
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_config(config), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    modules = {module.path: module for module in open_adapter(tmp_path).modules}
    checked = 0
    for name, layer in model.base_model.model.named_modules():
        if not isinstance(layer, wrapper):
            continue
        for e, delta in enumerate(layer.get_delta_weight("default").detach().numpy()):
            module = modules[f"{name.replace('.base_layer', '')}.{e}.{layer.parameter_name}"]
            ours = module.scaling.value * (module.B.array() @ module.A.array())
            theirs = delta if layer._did_swap_in_out_features else delta.T
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
            checked += 1
    assert checked == 2 * 2 * E
    assert len(modules) == checked + 2
