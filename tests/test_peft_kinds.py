"""Real PEFT: the kinds of adapters whose configuration makes pruning harder."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

import s3lora
from s3lora import Zero, read_provenance
from tests.peft_models import (
    difference,
    gpt2,
    layers,
    llama,
    load,
    logits,
    mixtral,
    qwen3_moe,
    save,
    torch,
    without,
)
from tests.planning import PREFIX, config_of, prune_to, tensors_of

TOLERANCE = 1e-5
Q0, V2 = "model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.v_proj"
NAMES = [f"self_attn.{p}_proj" for p in "qkvo"] + [f"mlp.{p}_proj" for p in ("gate", "up", "down")]
EVERY = [f"model.layers.{i}.{name}" for i in range(3) for name in NAMES]
QV = {"target_modules": ["q_proj", "v_proj"]}
KINDS = {
    "dora": {**QV, "use_dora": True},
    "rslora": {**QV, "use_rslora": True},
    "patterns": {
        **QV,
        "rank_pattern": {r"model\.layers\.0\.self_attn\.q_proj": 2, "v_proj": 3},
        "alpha_pattern": {"layers.2.self_attn.v_proj": 5, r".*\.1\..*": 3},
    },
    "head": {**QV, "modules_to_save": ["lm_head"]},
    "excluded-list": {**QV, "exclude_modules": ["layers.1.self_attn.q_proj"]},
    "excluded-regex": {**QV, "exclude_modules": r".*\.1\.self_attn\.q_proj"},
    "excluded-nothing": {**QV, "exclude_modules": []},
    "regex": {"target_modules": r".*\.(q|v)_proj"},
    "all-linear": {"target_modules": "all-linear"},
    "full-paths": {"target_modules": EVERY},
    "layers": {**QV, "layers_to_transform": [0, 2]},
    "no-init": {**QV, "init_lora_weights": False},
    "biases": {**QV, "bias": "all"},
}


def check(out: Path, full: Path, model, gone: list[str]) -> None:
    """Load a pruned adapter in each way, and compare with the full one without the modules."""
    expected = without(full, model, gone)
    kept = layers(load(full, model)) - set(gone)
    for low in (False, True):
        loaded = load(out, model, low_cpu_mem_usage=low)
        assert layers(loaded) == kept
        assert difference(logits(loaded), expected) < TOLERANCE
    assert difference(logits(loaded.merge_and_unload()), expected) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path: Path, kind: str):
    full = save(tmp_path / "full", llama, **KINDS[kind])
    out = prune_to(full, tmp_path / "out", [Q0, V2])
    check(out, full, llama, [Q0, V2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(out, llama).save_pretrained(tmp_path / "again")
    check(tmp_path / "again", full, llama, [Q0, V2])


def test_a_trained_head_is_kept(tmp_path: Path):
    full = save(tmp_path / "full", llama, **KINDS["head"])
    out = prune_to(full, tmp_path / "out", [Q0, V2])
    name = f"{PREFIX}lm_head.weight"
    assert (tensors_of(out)[name] == tensors_of(full)[name]).all()


def test_conv1d(tmp_path: Path):
    full = save(tmp_path / "full", gpt2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    gone = ["transformer.h.0.attn.c_attn", "transformer.h.2.mlp.c_proj"]
    check(prune_to(full, tmp_path / "out", gone), full, gpt2, gone)


def test_a_trained_bias_is_not_lost(tmp_path: Path):
    """PEFT saves it as `….c_attn.base_layer.bias`, which exists only while c_attn is wrapped."""
    full = save(tmp_path / "full", gpt2, target_modules=["c_attn"], fan_in_fan_out=True, bias="lora_only")
    gone = "transformer.h.0.attn.c_attn"
    out = prune_to(full, tmp_path / "out", [gone])
    assert "base layer" in read_provenance(out).modules[0].reason
    assert difference(logits(load(out, gpt2)), without(full, gpt2, [gone])) < TOLERANCE


def test_bias_of_lora_b(tmp_path: Path):
    full = save(tmp_path / "full", gpt2, target_modules=["c_attn"], fan_in_fan_out=True, lora_bias=True)
    gone = ["transformer.h.0.attn.c_attn"]
    check(prune_to(full, tmp_path / "out", gone), full, gpt2, gone)
    zeroed = prune_to(full, tmp_path / "zeroed", gone, Zero())
    assert difference(logits(load(zeroed, gpt2)), without(full, gpt2, gone)) < TOLERANCE


@pytest.mark.parametrize("saved_base", [False, True])
def test_embeddings(tmp_path: Path, saved_base: bool):
    full = save(tmp_path / "full", llama, target_modules=["q_proj", "embed_tokens"])
    if not saved_base:
        name = f"{PREFIX}model.embed_tokens.base_layer.weight"
        tensors = {key: torch.from_numpy(v.copy()) for key, v in tensors_of(full).items() if key != name}
        from safetensors.torch import save_file

        save_file(tensors, full / "adapter_model.safetensors")
    gone = ["model.embed_tokens", Q0]
    out = prune_to(full, tmp_path / "out", gone)
    expected = without(full, llama, gone)
    for low in (False, True):
        model = load(out, llama, low_cpu_mem_usage=low)
        assert ("model.embed_tokens" in layers(model)) == saved_base
        assert difference(logits(model), expected) < TOLERANCE
    kept = load(prune_to(full, tmp_path / "kept", [Q0]), llama)
    assert difference(logits(kept), without(full, llama, [Q0])) < TOLERANCE


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_why_changed_bases_are_refused(tmp_path: Path, init: str):
    """Loading such an adapter changes the base weight, so that a removed module would leave the wrong one."""
    full = save(tmp_path / "full", llama, **QV, init_lora_weights=init)
    changed = load(full, llama).base_model.model.get_submodule(Q0).base_layer.weight
    assert difference(changed, llama().get_submodule(Q0).weight) > 0.01
    with pytest.raises(s3lora.UnsupportedAdapterError, match="path_initial_model_for_weight_conversion"):
        prune_to(full, tmp_path / "out", [Q0])


PARAMETERS = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}


def container(layer: int, model_experts: int = 4, names: tuple[str, ...] = ("gate_up_proj", "down_proj")) -> list[str]:
    return [f"model.layers.{layer}.mlp.experts.{e}.{name}" for e in range(model_experts) for name in names]


@pytest.mark.parametrize("model", [mixtral, qwen3_moe])
@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (PARAMETERS["target_parameters"], ("gate_up_proj", "down_proj")),
        (["gate_up_proj"], ("gate_up_proj",)),
    ],
)
def test_a_container_of_fused_experts_leaves(tmp_path: Path, model, targets, names):
    full = save(tmp_path / "full", model, target_modules=["q_proj"], target_parameters=targets)
    out = prune_to(full, tmp_path / "out", [*container(0, names=names), Q0])
    check(out, full, model, ["model.layers.0.mlp.experts", Q0])
    config = config_of(out)
    assert sorted(config["target_parameters"]) == sorted(f"model.layers.1.mlp.experts.{name}" for name in names)
    everything = prune_to(full, tmp_path / "attention", [*container(0, names=names), *container(1, names=names)])
    check(everything, full, model, [f"model.layers.{i}.mlp.experts" for i in (0, 1)])


@pytest.mark.parametrize("targets", [["q_proj"], r".*\.q_proj"])
def test_fused_experts_alone_stay(tmp_path: Path, targets):
    full = save(tmp_path / "full", mixtral, target_modules=targets, **PARAMETERS)
    gone = [Q0, "model.layers.1.self_attn.q_proj"]
    check(prune_to(full, tmp_path / "out", gone), full, mixtral, gone)


def test_one_fused_expert_is_zeroed(tmp_path: Path):
    full = save(tmp_path / "full", mixtral, target_modules=["q_proj"], **PARAMETERS)
    out = prune_to(full, tmp_path / "out", ["model.layers.0.mlp.experts.2.gate_up_proj"])
    before, after = (load(folder, mixtral).base_model.model.model.layers[0].mlp.experts for folder in (full, out))
    inner = [layer.base_layer.get_delta_weight("default") for layer in (before, after)]
    assert [bool(delta.any()) for delta in inner[1]] == [True, True, False, True]
    assert torch.equal(inner[0][[0, 1, 3]], inner[1][[0, 1, 3]])
    assert torch.equal(before.get_delta_weight("default"), after.get_delta_weight("default"))


def test_experts_of_an_older_transformers_are_stacked_at_load(tmp_path: Path):
    """Adapters with one pair an expert: loaded with all pairs there, PEFT fails where one is missing."""
    from peft import PeftModel
    from safetensors.torch import save_file

    full = save(tmp_path / "full", mixtral, target_modules=["q_proj"])
    tensors = {key: torch.from_numpy(value.copy()) for key, value in tensors_of(full).items()}
    random = torch.Generator().manual_seed(2)
    for layer in (0, 1):
        for expert in range(4):
            for name, (m, n) in {"w1": (48, 32), "w3": (48, 32), "w2": (32, 48)}.items():
                stem = f"{PREFIX}model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
                tensors[f"{stem}.lora_A.weight"] = torch.randn(4, n, generator=random)
                tensors[f"{stem}.lora_B.weight"] = torch.randn(m, 4, generator=random)
    save_file(tensors, full / "adapter_model.safetensors")
    config = {**config_of(full), "target_modules": ["q_proj", "w1", "w2", "w3"]}
    (full / "adapter_config.json").write_text(json.dumps(config))
    gone = [f"model.layers.0.block_sparse_moe.experts.1.{name}" for name in ("w1", "w2", "w3")]
    out = prune_to(full, tmp_path / "out", [*gone, Q0])
    assert len(tensors_of(out)) == len(tensors) - 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of the rank patterns that it makes itself
        model = PeftModel.from_pretrained(mixtral(), out)
    experts = model.base_model.model.model.layers[0].mlp.experts
    assert [bool(delta.any()) for delta in experts.get_delta_weight("default")] == [True, False, True, True]
    every = [
        f"model.layers.{i}.block_sparse_moe.experts.{e}.{n}"
        for i in (0, 1)
        for e in range(4)
        for n in ("w1", "w2", "w3")
    ]
    assert layers(load(prune_to(full, tmp_path / "none", every), mixtral)) == {Q0, "model.layers.1.self_attn.q_proj"}
