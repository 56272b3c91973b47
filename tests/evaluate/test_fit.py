"""What is refused before or while it is attached, and that nothing of it stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from s3lora.errors import AdapterFileError, ModelError, NothingToAuditError, UnsupportedAdapterError
from s3lora.evaluate.attach import State
from tests.evaluate.test_attach import Q0, Q1, QV, V1, adapters, rewrite, same, weights
from tests.forms import peft_adapter
from tests.peft_models import gpt2, llama, load, logits, qwen3_moe, save, torch
from tests.planning import PREFIX
from tests.support import make_adapter


@pytest.fixture(scope="module")
def qv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("full") / "full", llama, **QV)


def move(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


def other_rows(tensors: dict[str, Any]) -> None:
    tensors[f"{PREFIX}{Q0}.lora_B.weight"] = np.zeros((48, 4), np.float32)


def turned(tensors: dict[str, Any]) -> None:
    tensors[f"{PREFIX}{V1}.lora_A.weight"] = np.zeros((4, 16), np.float32)
    tensors[f"{PREFIX}{V1}.lora_B.weight"] = np.zeros((32, 4), np.float32)


def other_norm(tensors: dict[str, Any]) -> None:
    tensors[f"{PREFIX}model.norm.weight"] = np.full(32, 1.5, np.float32)


#: What is changed in an adapter, the fields of its configuration, and what is said of it.
WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], dict[str, Any], type[Exception], str]] = {
    "a module that is not there": (
        move(Q0, "model.layers.9.self_attn.q_proj"),
        {},
        ModelError,
        r"model\.layers\.9\.self_attn\.q_proj \(32 × 32\): the base model has no such module; name the base model",
    ),
    "a path that goes nowhere": (move(Q0, f"{Q0}.deeper"), {}, ModelError, "the base model has no such module"),
    "a module with another shape": (
        other_rows,
        {},
        ModelError,
        rf"{Q0} \(48 × 32\): the module is 32 × 32 in the base model; name the base model",
    ),
    "a module the other way round": (
        turned,
        {},
        ModelError,
        rf"{V1} \(32 × 16\): the module is 16 × 32 in the base model",
    ),
    "factors that belong elsewhere": (
        move("self_attn.v_proj", "mlp.down_proj"),
        {"target_modules": ["q_proj", "down_proj"]},
        ModelError,
        r"mlp\.down_proj \(16 × 32\): the module is 32 × 48 in the base model",
    ),
    "a rank that is not configured": (
        lambda tensors: None,
        {"r": 8},
        ModelError,
        r"PEFT cannot load the adapter \(Error\(s\) in loading .*size mismatch for .*lora_A",
    ),
    "a module that is not configured": (
        lambda tensors: None,
        {"target_modules": ["q_proj"]},
        UnsupportedAdapterError,
        r"self_attn\.v_proj: PEFT did not build this module as a layer of its own",
    ),
    "nonsense in the configuration": (
        lambda tensors: None,
        {"target_modules": {"a": 1}, "r": 4},
        ModelError,
        "PEFT cannot load the adapter",
    ),
    "weights of the base": (
        other_norm,
        {},
        UnsupportedAdapterError,
        r"model\.norm\.weight \(32\): would replace a weight of the base model by another, also where the",
    ),
}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_leaves_the_model_as_it_was(qv: Path, tmp_path: Path, wrong: str, beside: bool):
    change, config, error, sentence = WRONG[wrong]
    rewrite(shutil.copytree(qv, tmp_path / "wrong"), change, **config)
    held = adapters()
    state = State(held.attach(qv), frozenset([Q1])) if beside else State()
    held.use(state)
    before, output = weights(held.model), logits(held.model)
    with pytest.raises(error, match=rf"wrong.*{sentence}") as caught:
        held.attach(tmp_path / "wrong")
    assert "\n" not in str(caught.value)
    assert held.state == state
    assert torch.equal(logits(held.model), output)
    if not beside:
        assert same(weights(held.model), before)
    # A right one can still be attached.
    held.use(State(held.attach(qv)))
    assert torch.equal(logits(held.model), logits(load(qv, llama)))


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_would_change_the_base(tmp_path: Path, bias: str):
    full = save(tmp_path / "full", gpt2, target_modules=["c_attn"], bias=bias, fan_in_fan_out=True)
    held = adapters(gpt2)
    with pytest.raises(UnsupportedAdapterError, match=r"c_attn\.bias \(96\): would replace a weight of the base"):
        held.attach(full)
    assert torch.equal(logits(held.model), logits(gpt2()))


def test_a_trained_embedding_would_change_the_base(tmp_path: Path):
    """PEFT saves the embedding beside its LoRA; the copy is loaded only where it is that of the base."""
    out = save(tmp_path / "out", llama, target_modules=["q_proj", "embed_tokens"])
    adapters().attach(out)
    name = f"{PREFIX}model.embed_tokens.base_layer.weight"
    rewrite(out, lambda tensors: tensors.update({name: tensors[name] * np.float32(1.01)}))
    with pytest.raises(UnsupportedAdapterError, match=r"embed_tokens\.weight \(64 × 32\): would replace a weight"):
        adapters().attach(out)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_initialisations_that_change_the_base(tmp_path: Path, init: str):
    full = save(tmp_path / "full", llama, **QV, init_lora_weights=init)
    held = adapters()
    with pytest.raises(UnsupportedAdapterError, match="takes B·A out of the base weights"):
        held.attach(full)
    assert torch.equal(logits(held.model), logits(llama()))


def test_what_is_no_peft_folder(qv: Path, tmp_path: Path):
    with pytest.raises(UnsupportedAdapterError, match="only PEFT folders can be loaded into a model; convert it"):
        adapters().attach(qv / "adapter_model.safetensors")
    with pytest.raises(AdapterFileError, match="no such file or folder"):
        adapters().attach(tmp_path / "none")
    with pytest.raises(NothingToAuditError, match="holds no adapter weights"):
        adapters().attach(tmp_path)
    kohya = {
        f"lora_unet_mid_{name}": value
        for name, value in (
            ("lora_down.weight", np.ones((4, 8), np.float32)),
            ("lora_up.weight", np.ones((8, 4), np.float32)),
            ("alpha", np.array(4, np.float32)),
        )
    }
    save_file({name.replace("mid_", "mid."): value for name, value in kohya.items()}, tmp_path / "kohya.safetensors")
    with pytest.raises(UnsupportedAdapterError, match="is in the kohya format, and only PEFT folders"):
        adapters().attach(tmp_path)


@pytest.mark.parametrize(
    ("form", "fix"),
    [
        ("loha", "inference server"),
        ("lokr", "inference server"),
        ("vera", "inference server"),
        ("adalora", "convert it"),
    ],
)
def test_other_forms_are_no_layers_of_lora(form: str, fix: str, tmp_path: Path):
    folder = peft_adapter(tmp_path / form, form)
    model = adapters()
    before = weights(model.model)
    with pytest.raises(UnsupportedAdapterError, match=rf"only layers of LoRA can be switched .*{fix}"):
        model.attach(folder)
    assert same(weights(model.model), before)


def test_experts_that_the_model_has_as_one_parameter(tmp_path: Path):
    config = {"target_modules": ["down_proj"]}
    folder = make_adapter(tmp_path / "x", {"model.layers.0.mlp.experts.1.down_proj": (32, 24, 2)}, config=config)
    with pytest.raises(
        UnsupportedAdapterError, match=r"experts\.1\.down_proj .*: its experts are one parameter in the"
    ):
        adapters(qwen3_moe).attach(folder)
    other = make_adapter(tmp_path / "y", {"model.layers.9.mlp.experts.1.down_proj": (32, 24, 2)}, config=config)
    with pytest.raises(ModelError, match="the base model has no such module"):
        adapters(qwen3_moe).attach(other)
