"""Real PEFT: what is left once heads, biases, tokens or wrappers are gone loads without a warning, and computes so."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import s3lora
from tests.peft_models import (
    difference,
    gpt2,
    layers,
    llama,
    load,
    logits,
    peft,
    qwen3_moe,
    save,
    torch,
    transformers,
    without,
)
from tests.planning import config_of, prune_to, tensors_of
from tests.support import write_safetensors

TOLERANCE = 1e-5
QV = {"target_modules": ["q_proj", "v_proj"]}
Q0, V2 = "model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.v_proj"
CONV = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
WEIGHTS = "adapter_model.safetensors"


def classifier() -> Any:
    """Return a Llama that tells three classes apart, always the same."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(num_hidden_layers=3, vocab_size=64, pad_token_id=0, num_labels=3, **sizes)
    return transformers.LlamaForSequenceClassification(config).eval()


def lora_alone(folder: Path, model: Callable[[], Any], gone: Sequence[str]) -> Any:
    """Return what the model makes of an input with the LoRA layers of an adapter but for those that are `gone`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(model(), folder).eval()
    fresh = dict(model().named_parameters())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            path = name.removeprefix("base_model.model.")
            for inner in (".base_layer", ".modules_to_save.default", ".original_module"):
                path = path.replace(inner, "")
            if ".lora_B.default.bias" in name or "trainable_tokens_delta" in name:
                token = "trainable_tokens_delta" in name
                parameter.copy_(fresh["model.embed_tokens.weight"][INDICES] if token else torch.zeros_like(parameter))
            elif path in fresh:
                parameter.copy_(fresh[path])
    for path in gone:
        parent, _, name = path.rpartition(".")
        layer = adapted.base_model.model.get_submodule(parent)
        setattr(layer, name, getattr(layer, name).base_layer)
    return logits(adapted)


INDICES = [3, 5]
HEADS = ["lm_head", "embed_tokens"]
KINDS: dict[str, tuple[Callable[[], Any], Mapping[str, Any], Sequence[str], Mapping[str, Any]]] = {
    "heads": (llama, {**QV, "modules_to_save": HEADS}, ["heads"], {"modules_to_save": None}),
    "heads-dora": (llama, {**QV, "use_dora": True, "modules_to_save": HEADS}, ["heads"], {"modules_to_save": None}),
    "classifier": (classifier, {**QV, "task_type": "SEQ_CLS"}, ["heads"], {"modules_to_save": None, "task_type": None}),
    "tokens": (llama, {**QV, "trainable_token_indices": INDICES}, ["tokens"], {"trainable_token_indices": None}),
    "bias": (gpt2, {**CONV, "bias": "all"}, ["bias"], {"bias": "none"}),
    "lora-bias": (gpt2, {**CONV, "lora_bias": True}, ["bias"], {"lora_bias": False}),
    "embeddings": (llama, {"target_modules": ["q_proj", "v_proj", "embed_tokens"]}, ["other"], {}),
    "all": (
        llama,
        {**QV, "modules_to_save": ["lm_head"], "trainable_token_indices": INDICES},
        ["all"],
        {"modules_to_save": None, "trainable_token_indices": None},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("paths", [[], [Q0, V2]], ids=["alone", "with-modules"])
def test_a_part_is_dropped(tmp_path: Path, kind: str, paths: list[str]) -> None:
    model, config, drop, after = KINDS[kind]
    if model is gpt2:
        paths = ["transformer.h.0.attn.c_attn"][: len(paths)]
    full = save(tmp_path / "full", model, **config)
    alone = lora_alone(full, model, paths)
    assert difference(alone, logits(load(full, model))) > 100 * TOLERANCE or kind == "embeddings"
    out = prune_to(full, tmp_path / "out", paths, drop=drop)
    assert all(".lora_" in name and not name.endswith("bias") for name in tensors_of(out))
    assert {name: config_of(out)[name] for name in after} == after
    for low in (False, True):
        loaded = load(out, model, low_cpu_mem_usage=low)
        assert layers(loaded) == layers(load(full, model)) - set(paths)
        assert difference(logits(loaded), alone) < TOLERANCE
    s3lora.restore(out, full, tmp_path / "back")
    for name in (WEIGHTS, "adapter_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (full / name).read_bytes()
    if paths:
        s3lora.restore(out, full, tmp_path / "some", modules=paths[:1])
        assert layers(load(tmp_path / "some", model)) == layers(load(full, model)) - set(paths[1:])
        assert s3lora.read_provenance(tmp_path / "some").drop == tuple(drop)


def test_an_embedding_whose_base_weight_is_dropped_can_leave(tmp_path: Path) -> None:
    full = save(tmp_path / "full", llama, target_modules=["q_proj", "embed_tokens"])
    out = prune_to(full, tmp_path / "out", ["model.embed_tokens", Q0], drop=["other"])
    assert difference(logits(load(out, llama)), without(full, llama, ["model.embed_tokens", Q0])) < TOLERANCE
    assert "model.embed_tokens" not in layers(load(out, llama))


def wrapped(folder: Path, change: Callable[[str], str]) -> Path:
    """Write an adapter with a trained head, and give its keys other names."""
    full = save(folder, llama, **QV, modules_to_save=["lm_head"])
    tensors = tensors_of(full)
    write_safetensors(full / WEIGHTS, {change(name): value for name, value in tensors.items()}, {"format": "pt"})
    return full


INNER = "base_model.model.model."
CHANGES: dict[str, Callable[[str], str]] = {
    "compile": lambda name: f"_orig_mod.{name}",
    "inner compile": lambda name: name.replace(".layers.1.", ".layers.1._orig_mod."),
    "ddp": lambda name: f"module.{name}",
    "ddp of compile": lambda name: f"module._orig_mod.{name}",
    "fsdp": lambda name: name.replace("base_model.model.", "base_model.model._fsdp_wrapped_module."),
    "checkpointing": lambda name: name.replace(".self_attn.", "._checkpoint_wrapped_module.self_attn."),
    "twice": lambda name: f"base_model.model.{name}",
    "bare": lambda name: name.removeprefix("base_model.model."),
}


@pytest.mark.parametrize("change", CHANGES)
def test_keys_are_written_as_peft_finds_them(tmp_path: Path, change: str) -> None:
    good = save(tmp_path / "good", llama, **QV, modules_to_save=["lm_head"])
    bad = wrapped(tmp_path / "bad", CHANGES[change])
    out = prune_to(bad, tmp_path / "out", [])
    assert tensors_of(out).keys() == tensors_of(good).keys()
    for low in (False, True):
        assert difference(logits(load(out, llama, low_cpu_mem_usage=low)), logits(load(good, llama))) < TOLERANCE
    less = prune_to(bad, tmp_path / "less", [Q0, V2])
    assert difference(logits(load(less, llama)), without(good, llama, [Q0, V2])) < TOLERANCE
    s3lora.restore(less, bad, tmp_path / "some", modules=[Q0])
    assert difference(logits(load(tmp_path / "some", llama)), without(good, llama, [V2])) < TOLERANCE
    s3lora.restore(less, bad, tmp_path / "back")
    assert (tmp_path / "back" / WEIGHTS).read_bytes() == (bad / WEIGHTS).read_bytes()


@pytest.mark.parametrize("init", [True, False])
def test_a_router_leaves_the_parameters_that_peft_builds(tmp_path: Path, init: bool) -> None:
    """PEFT does not look at `exclude_modules` for parameters, and builds a random B where it is told to."""
    names = {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight"]}
    full = save(tmp_path / "full", qwen3_moe, **names, init_lora_weights=init)
    gates = [f"model.layers.{layer}.mlp.gate" for layer in (0, 1)]
    q0 = "model.layers.0.self_attn.q_proj"
    for gone, parameters in (([gates[0], q0], [f"{gates[1]}.weight"]), (gates, [])):
        out = prune_to(full, tmp_path / str(len(parameters)), gone)
        assert config_of(out)["target_parameters"] == parameters
        expected = without(full, qwen3_moe, gone)
        for low in (False, True):
            model = load(out, qwen3_moe, low_cpu_mem_usage=low)
            assert layers(model) == layers(load(full, qwen3_moe)) - set(gone)
            assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
            assert difference(logits(model), expected) < TOLERANCE


@pytest.mark.parametrize("pattern", ["mlp.gate.weight", "mlp.gate", r"model\.layers\.0\.mlp\.gate\.weight"])
def test_patterns_of_a_router_are_those_of_its_weight(tmp_path: Path, pattern: str) -> None:
    names = {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight"]}
    full = save(tmp_path / "full", qwen3_moe, **names, rank_pattern={pattern: 2}, alpha_pattern={pattern: 3})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT calls such a pattern unused, and uses it
        inner = peft.PeftModel.from_pretrained(qwen3_moe(), full).base_model.model
        gates = [f"model.layers.{layer}.mlp.gate" for layer in (0, 1)]
        scalings = [s3lora.scan(full)[path].scaling for path in gates]
        assert scalings == [inner.get_submodule(path).scaling["default"] for path in gates]
        gone = ["model.layers.0.self_attn.q_proj"]
        baked = prune_to(full, tmp_path / "out", gone, bake=True)
        loaded = peft.PeftModel.from_pretrained(qwen3_moe(), baked).eval()
    assert difference(logits(loaded), without(full, qwen3_moe, gone)) < TOLERANCE
