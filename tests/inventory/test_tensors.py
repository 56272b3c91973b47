"""What every tensor of the weights is: by the names that tools really write, and by hostile configurations."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.inventory.model import Inventory, InventoryTensor
from s3lora.adapter.open import open_adapter
from s3lora.measure.scan import scan
from tests.support import factors, make_adapter, write_safetensors

A, B = factors(6, 8, 2)
ONE = np.ones((6, 8), np.float32)
P = "base_model.model."
LORA = {f"{P}model.layers.0.self_attn.q_proj.lora_A.weight": A, f"{P}model.layers.0.self_attn.q_proj.lora_B.weight": B}
PEFT = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}


def inventory(folder: Path, tensors: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Inventory:
    name = "adapters" if config is not None and "fine_tune_type" in config else "adapter_model"
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    write_safetensors(folder / f"{name}.safetensors", tensors)
    with open_adapter(folder) as adapter:
        return inventory_of(adapter)


def others(folder: Path, extra: Mapping[str, Any], config: Mapping[str, Any] | None = PEFT) -> dict[str, str]:
    """Return the roles of tensors beside one LoRA module of PEFT."""
    found = inventory(folder, {**LORA, **extra}, config)
    assert {tensor.name for tensor in found.of_role("factor")} == set(LORA)
    return {tensor.name: tensor.role for tensor in found.tensors if tensor.name not in LORA}


PEFT_NAMES = [
    ("model.norm.weight", {}, "base weight"),
    ("model.layers.0.input_layernorm.weight", {}, "base weight"),
    ("model.layers.0.self_attn.q_proj.base_layer.weight", {}, "base weight"),
    ("model.layers.0.self_attn.q_proj.weight", {}, "base weight"),
    ("model.layers.1.mlp.down_proj.weight", {}, "base weight"),
    ("lm_head.weight", {}, "base weight"),
    ("lm_head.weight", {"modules_to_save": ["lm_head"]}, "head"),
    ("lm_head.weight", {"modules_to_save": ["model.lm_head"]}, "base weight"),
    ("lm_head.modules_to_save.weight", {}, "head"),
    ("model.embed_tokens.weight", {"modules_to_save": ["embed_tokens"]}, "head"),
    ("model.embed_tokens.weight", {"modules_to_save": ["model.embed_tokens"]}, "head"),
    ("model.embed_tokens.weight", {"modules_to_save": ["tokens"]}, "base weight"),
    ("score.weight", {"task_type": "SEQ_CLS"}, "head"),
    ("score.weight", {"task_type": "CAUSAL_LM"}, "base weight"),
    ("classifier.dense.weight", {"task_type": "SEQ_CLS"}, "head"),
    ("classifier.bias", {"task_type": "TOKEN_CLS"}, "head"),
    ("qa_outputs.weight", {"task_type": "QUESTION_ANS"}, "head"),
    ("model.layers.0.scoring.weight", {"task_type": "SEQ_CLS"}, "base weight"),
    ("model.layers.0.self_attn.q_proj.bias", {}, "bias"),
    ("model.layers.0.self_attn.q_proj.lora_B.bias", {"lora_bias": True}, "bias"),
    ("model.layers.0.self_attn.q_proj.base_layer.bias", {"bias": "all"}, "bias"),
    ("model.layers.0.self_attn.q_proj.base_layer.bias", {"bias": "lora_only"}, "bias"),
    ("model.layers.0.self_attn.q_proj.base_layer.bias", {}, "base weight"),
    ("model.ln_f.bias", {"bias": "all"}, "bias"),
    ("model.ln_f.bias", {"bias": "lora_only"}, "base weight"),
    ("model.ln_f.bias", {}, "base weight"),
    ("model.embed_tokens.token_adapter.trainable_tokens_delta", {}, "tokens"),
    ("model.embed_tokens.trainable_tokens_delta", {}, "tokens"),
    ("model.layers.0.self_attn.q_proj.lora_magnitude_vector", {"use_dora": True}, "extra"),
    ("model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight", {"use_dora": True}, "extra"),
    ("some.buffer", {}, "base weight"),
]


@pytest.mark.parametrize(("name", "config", "role"), PEFT_NAMES)
def test_names_of_peft(name: str, config: Mapping[str, Any], role: str, tmp_path: Path) -> None:
    values = np.ones(6, np.float32) if "magnitude" in name or name.endswith("bias") else ONE
    assert others(tmp_path, {P + name: values}, {**PEFT, **config}) == {P + name: role}


@pytest.mark.parametrize(
    ("name", "role"),
    [("<s1>", "tokens"), ("model.norm.weight", "base weight"), ("something", "unknown"), ("step", "unknown")],
)
def test_names_without_the_prefix(name: str, role: str, tmp_path: Path) -> None:
    assert others(tmp_path, {name: ONE}) == {name: role}


KOHYA = {"lora_unet_a_to_q.lora_down.weight": A, "lora_unet_a_to_q.lora_up.weight": B}
DIFFUSERS = {"unet.a.to_q.lora_A.weight": A, "unet.a.to_q.lora_B.weight": B}
MLX = {"model.layers.0.self_attn.q_proj.lora_a": A.T.copy(), "model.layers.0.self_attn.q_proj.lora_b": B.T.copy()}
CUSTOM = {"blocks.0.q.lora_A": A, "blocks.0.q.lora_B": B}
MLX_CONFIG = {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 2.0}}


@pytest.mark.parametrize(
    ("tensors", "config", "name", "role", "words"),
    [
        (KOHYA, None, "lora_unet_a_to_q.alpha", "extra", "scaling"),
        (KOHYA, None, "lora_unet_a_to_q.dora_scale", "extra", "rescales"),
        (KOHYA, None, "lora_unet_b_norm.diff", "base weight", "added"),
        (KOHYA, None, "lora_unet_b_norm.diff_b", "base weight", "added"),
        (KOHYA, None, "lora_unet_b_norm.w_norm", "base weight", "takes the place"),
        (KOHYA, None, "lora_unet_b_norm.set_weight", "base weight", "takes the place"),
        (KOHYA, None, "bundle_emb.word.string_to_param.*", "tokens", "embeddings"),
        (KOHYA, None, "lora_unet_b.alpha", "unknown", "no kind"),
        (DIFFUSERS, None, "clip_l", "tokens", "embeddings"),
        (DIFFUSERS, None, "t5xxl", "tokens", "embeddings"),
        (MLX, MLX_CONFIG, "model.layers.0.self_attn.q_proj.m", "extra", "rescales"),
        (MLX, MLX_CONFIG, "model.norm.weight", "base weight", "takes the place"),
        (MLX, MLX_CONFIG, "model.layers.0.self_attn.q_proj.linear.scales", "base weight", "takes the place"),
        (CUSTOM, None, "blocks.0.q.weight", "base weight", ""),
        (CUSTOM, None, "epoch", "unknown", "no kind"),
    ],
)
def test_names_of_other_tools(tensors: Any, config: Any, name: str, role: str, words: str, tmp_path: Path) -> None:
    values = np.ones((), np.float32) if name.endswith("alpha") else np.ones(6, np.float32)
    found = {one.name: one for one in inventory(tmp_path, {**tensors, name: values}, config).tensors}
    assert found[name].role == role, found[name]
    assert words in found[name].effect
    assert {found[other].role for other in tensors} == {"factor"}
    assert found[name].rescales is (words == "rescales")


HOSTILE: list[Mapping[str, Any]] = [
    {"modules_to_save": 3},
    {"modules_to_save": "lm_head"},
    {"modules_to_save": {"lm_head": 1}},
    {"modules_to_save": [3, None, True, "", ".", ["lm_head"], {"a": 1}]},
    {"modules_to_save": [f"x{i}" for i in range(20_000)]},
    {"modules_to_save": ["lm_head\x00"]},
    {"task_type": ["SEQ_CLS"]},
    {"task_type": {"a": "SEQ_CLS"}},
    {"task_type": 3},
    {"bias": ["all"]},
    {"bias": {"all": 1}},
]


@pytest.mark.parametrize("config", HOSTILE, ids=[json.dumps(config)[:50] for config in HOSTILE])
def test_configurations_that_nothing_wrote(config: Mapping[str, Any], tmp_path: Path) -> None:
    names = {P + "lm_head.weight": ONE, P + "score.weight": ONE, P + "ln_f.bias": ONE}
    assert set(others(tmp_path, names, {**PEFT, **config}).values()) == {"base weight"}


def test_long_names_and_long_lists_cost_little(tmp_path: Path) -> None:
    long = [".".join(f"{i}{j % 10}" for j in range(60)) for i in range(300)]
    names = {f"{P}{name}.weight": np.ones(1, np.float32) for name in long}
    saved = [*(f"x.{i}" for i in range(50_000)), long[0], long[1].partition(".")[2]]
    found = others(tmp_path, names, {**PEFT, "modules_to_save": saved})
    assert [name for name, role in found.items() if role == "head"] == [f"{P}{name}.weight" for name in long[:2]]


def test_everything_is_told_of_a_tensor(tmp_path: Path) -> None:
    values = np.array([[1, -3, np.inf]], np.float32)
    found = inventory(tmp_path, {**LORA, f"{P}norm.weight": values}, PEFT)
    assert found.tensors[-1] == InventoryTensor(
        name=f"{P}norm.weight",
        role="base weight",
        module="norm",
        dtype="float32",
        shape=(1, 3),
        bytes=12,
        parameters=3,
        finite=False,
        largest=3.0,
        sha256=hashlib.sha256(values.tobytes()).hexdigest(),
        effect="takes the place of the base model's weight of this name",
    )
    factor = found.tensors[0]
    assert (factor.role, factor.module, factor.sha256) == ("factor", "model.layers.0.self_attn.q_proj", None)
    assert factor.largest == float(np.abs(A).max())


def test_the_order_is_that_of_the_file_and_nothing_is_left_out(tmp_path: Path) -> None:
    names = {f"{P}x.{i}.weight": np.ones(1, np.float32) for i in (3, 1, 2)}
    found = inventory(tmp_path, {**names, **LORA}, PEFT)
    assert [tensor.name for tensor in found.tensors] == [*names, *LORA]
    assert scan(tmp_path).inventory == found, "a scan has the same, from the bytes that it reads anyway"


def test_an_adapter_in_memory_has_its_factors() -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")

    class Model(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.q = torch.nn.Linear(8, 8)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(Model(), peft.LoraConfig(r=2, target_modules=["q"]))
    found = scan(wrapped).inventory
    assert {tensor.role for tensor in found.tensors} == {"factor"}
    assert (found.files, found.loaders, found.unapplied) == ((), (), ())


def test_what_peft_saves_beside_lora(tmp_path: Path) -> None:
    """Heads, biases, magnitudes and tokens under the names that PEFT itself writes."""
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    from tests.peft_models import llama, save

    kinds = {
        "head": {"modules_to_save": ["lm_head"]},
        "tokens": {"trainable_token_indices": [1, 2]},
        "extra": {"use_dora": True},
        "bias": {"lora_bias": True},
    }
    for role, config in kinds.items():
        folder = save(tmp_path / role, llama, target_modules=["q_proj"], **config)
        with open_adapter(folder) as adapter:
            found = inventory_of(adapter)
        roles = {tensor.role for tensor in found.tensors}
        assert roles == {"factor", role}, role
        assert found.unapplied == ()


def test_roles_follow_the_whole_adapter(tmp_path: Path) -> None:
    """A module's tensors name its path, also where a wrapper stands in their names."""
    folder = make_adapter(tmp_path, {"model.q": (6, 8, 2)})
    tensors = {f"_orig_mod.{P}model.q.lora_A.weight": A, f"_orig_mod.{P}model.q.lora_B.weight": B}
    write_safetensors(folder / "adapter_model.safetensors", {**tensors, f"_orig_mod.{P}model.norm.weight": ONE})
    with open_adapter(folder) as adapter:
        found = inventory_of(adapter).tensors
    assert [(tensor.role, tensor.module) for tensor in found] == [
        ("factor", "model.q"),
        ("factor", "model.q"),
        ("base weight", "model.norm"),
    ]
