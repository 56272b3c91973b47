"""What each loader needs of a pruned adapter: checks before pruning, and modules that stay as zeros."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from s3lora import UnsupportedAdapterError, open_adapter, prune, read_provenance, scan
from s3lora.adapter.loaders import LOADERS
from tests.planning import PREFIX, config_of, plan_of, prune_to, tensors_of
from tests.support import make_adapter

ATTENTION = "model.layers.0.self_attn."
MLP = "model.layers.0.mlp."
SHAPE = (8, 8, 2)
Q0, Q1 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"


def zeros(tmp_path: Path, paths: list[str], removed: list[str], loader: str = "sglang") -> set[str]:
    """Return the last names of the modules that must stay as zeros."""
    with open_adapter(make_adapter(tmp_path / "a", dict.fromkeys(paths, SHAPE))) as adapter:
        return {path.rpartition(".")[2] for path in LOADERS[loader].kept_as_zeros(adapter, set(removed))}


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ("v", "v"),  # v missing beside q: KeyError
        ("q", "q"),  # q missing beside k or v: left unfused
        ("k", ""),  # filled with zeros by SGLang itself
        ("o", ""),
        ("vk", "v"),
        ("qk", "q"),
        ("qv", "qv"),  # q stays because of k, and then v because of q
        ("qkv", ""),
        ("qkvo", ""),
    ],
)
def test_sglang_keeps_what_it_fuses(tmp_path: Path, removed: str, expected: str):
    paths = [f"{ATTENTION}{name}_proj" for name in "qkvo"] + ["model.layers.1.self_attn.q_proj"]
    gone = [f"{ATTENTION}{name}_proj" for name in removed]
    assert zeros(tmp_path, paths, gone) == {f"{name}_proj" for name in expected}
    assert zeros(tmp_path, paths, gone, "vllm") == set()


@pytest.mark.parametrize(
    ("removed", "expected"), [("gate", "gate"), ("up", ""), ("gate up", ""), ("down", ""), ("gate down", "gate")]
)
def test_sglang_keeps_gate_beside_up(tmp_path: Path, removed: str, expected: str):
    paths = [f"{MLP}{name}_proj" for name in ("gate", "up", "down")] + ["model.layers.1.mlp.gate_proj"]
    gone = [f"{MLP}{name}_proj" for name in removed.split()]
    assert zeros(tmp_path, paths, gone) == {f"{name}_proj" for name in expected.split()}


def test_sglang_loads_whatever_is_removed(tmp_path: Path):
    """Its own rules, applied to every set of removed modules: no v missing beside q, no q or gate left alone."""
    names = [*(f"{ATTENTION}{name}_proj" for name in "qkv"), *(f"{MLP}{name}_proj" for name in ("gate", "up"))]
    with open_adapter(make_adapter(tmp_path / "a", dict.fromkeys([*names, "other.q"], SHAPE))) as adapter:
        for count in range(len(names) + 1):
            for removed in itertools.combinations(names, count):
                kept = set(names) - set(removed) | LOADERS["sglang"].kept_as_zeros(adapter, set(removed)).keys()
                there = {name.rpartition(".")[2].removesuffix("_proj") for name in kept}
                assert "q" not in there or "v" in there
                assert not there & {"k", "v"} or "q" in there
                assert "up" not in there or "gate" in there


def test_sglang_modules_kept_as_zeros_are_not_excluded(tmp_path: Path):
    paths = [f"{ATTENTION}{name}_proj" for name in "qkvo"]
    out = prune_to(
        make_adapter(tmp_path / "a", dict.fromkeys(paths, SHAPE)),
        tmp_path / "b",
        [paths[0], paths[3]],
        loader="sglang",
    )
    tensors = tensors_of(out)
    assert not tensors[f"{PREFIX}{paths[0]}.lora_B.weight"].any()
    assert tensors[f"{PREFIX}{paths[0]}.lora_A.weight"].any()
    assert not any(paths[3] in name for name in tensors)
    assert config_of(out)["target_modules"] == ["k_proj", "q_proj", "v_proj"]
    assert "exclude_modules" not in config_of(out)
    record = read_provenance(out)
    assert [module.action for module in record.modules] == ["zeroed", "removed"]
    assert "SGLang" in record.modules[0].reason
    assert any("SGLang" in warning for warning in record.warnings)


HEAD = {"score.weight": np.ones((2, 8), np.float32)}
MAGNITUDE = {f"{Q0}.lora_magnitude_vector": np.ones(8, np.float32)}
BIAS = {f"{Q0}.lora_B.bias": np.ones(8, np.float32)}


@pytest.mark.parametrize(
    ("config", "heads", "rejecting"),
    [
        ({}, {}, ""),
        ({"use_rslora": True}, {}, "vllm sglang llamacpp"),
        # Which says the same to llama.cpp, for it divides by the rank of the tensors.
        ({"r": 4, "rank_pattern": {"_proj": 2, "q_proj": 2, "v_proj": 2}}, {}, "vllm sglang"),
        ({"rank_pattern": {"q_proj": 2}}, {}, ""),
        ({"alpha_pattern": {"q_proj": 2}}, {}, "vllm sglang llamacpp"),
        ({"target_modules": ".*q_proj"}, {}, "sglang"),
        ({"use_dora": True}, MAGNITUDE, "vllm sglang llamacpp"),
        ({"lora_bias": True}, BIAS, "vllm sglang llamacpp"),
        ({"bias": "all"}, {}, "vllm"),
        ({"modules_to_save": ["score"]}, HEAD, "vllm sglang llamacpp"),
        ({"base_model_name_or_path": None}, {}, "llamacpp"),
    ],
)
@pytest.mark.parametrize("loader", [name for name, one in LOADERS.items() if one.writes])
def test_adapters_a_loader_rejects(tmp_path: Path, config, heads, rejecting: str, loader):
    paths = (Q0, Q1, *(path.replace("q_proj", "v_proj") for path in (Q0, Q1)))
    source = make_adapter(tmp_path / "a", dict.fromkeys(paths, SHAPE), config=config, heads=heads)
    with open_adapter(source) as adapter:
        plan = plan_of(scan(adapter), [Q0])
        if loader not in rejecting.split():
            prune(adapter, plan, loader=loader)
            return
        with pytest.raises(UnsupportedAdapterError, match=loader):
            prune(adapter, plan, loader=loader)
        if config.keys() & {"use_rslora", "rank_pattern", "alpha_pattern"}:
            prune(adapter, plan, loader=loader, bake=True)


def test_embedding_lora_is_rejected_by_llamacpp(tmp_path: Path):
    heads = {
        "model.embed_tokens.lora_embedding_A": np.ones((2, 20), np.float32),
        "model.embed_tokens.lora_embedding_B": np.ones((8, 2), np.float32),
    }
    with open_adapter(make_adapter(tmp_path / "a", {Q0: SHAPE, Q1: SHAPE}, heads=heads)) as adapter:
        plan = plan_of(scan(adapter), [Q0])
        with pytest.raises(UnsupportedAdapterError, match="embedding"):
            prune(adapter, plan, loader="llamacpp")


FUSED = {
    "target_modules": ["q_proj"],
    "target_parameters": ["mlp.experts.gate_up_proj", "experts.down_proj"],
    "r": 2,
    "lora_alpha": 4,
    "rank_pattern": {"q_proj": 2, r"layers\.0\.mlp\.experts\.down_proj": 2, "experts.gate_up_proj": 2},
}
EXPERTS = 3


def fused(folder: Path) -> Path:
    """Write an adapter as PEFT's `target_parameters` does: the first parameter lies under `.base_layer`."""
    random = np.random.default_rng(0)
    heads = {}
    for layer in (0, 1):
        for key, (m, n) in ((".base_layer", (12, 8)), ("", (8, 6))):
            stem = f"model.layers.{layer}.mlp.experts{key}"
            heads[f"{stem}.lora_A.weight"] = random.normal(size=(2 * EXPERTS, n)).astype(np.float32)
            heads[f"{stem}.lora_B.weight"] = random.normal(size=(m, 2 * EXPERTS)).astype(np.float32)
    return make_adapter(folder, {Q0: SHAPE, Q1: SHAPE}, config=FUSED, heads=heads)


def container(layer: int) -> list[str]:
    return [
        f"model.layers.{layer}.mlp.experts.{expert}.{name}"
        for expert in range(EXPERTS)
        for name in ("gate_up_proj", "down_proj")
    ]


def test_one_fused_expert_is_zeroed_in_place(tmp_path: Path):
    source = fused(tmp_path / "a")
    gone = "model.layers.0.mlp.experts.1.down_proj"
    out = prune_to(source, tmp_path / "b", [gone])
    before, after = tensors_of(source), tensors_of(out)
    assert config_of(out) == config_of(source)
    key = f"{PREFIX}model.layers.0.mlp.experts.lora_B.weight"
    expected = before[key].copy()
    expected.reshape(8, 2, EXPERTS)[:, :, 1] = 0  # PEFT lets the expert run fastest
    assert np.array_equal(after.pop(key), expected)
    assert all(np.array_equal(value, before[name]) for name, value in after.items())
    assert "shares its tensors" in read_provenance(out).modules[0].reason


def test_a_whole_container_of_fused_experts_leaves(tmp_path: Path):
    source = fused(tmp_path / "a")
    out = prune_to(source, tmp_path / "b", container(0))
    assert not any("layers.0.mlp" in name for name in tensors_of(out))
    config = config_of(out)
    assert sorted(config["target_parameters"]) == [
        "model.layers.1.mlp.experts.down_proj",
        "model.layers.1.mlp.experts.gate_up_proj",
    ]
    assert set(config["rank_pattern"]) == {"q_proj", "experts.gate_up_proj"}
    assert "exclude_modules" not in config
    none = config_of(prune_to(source, tmp_path / "c", [*container(0), *container(1)]))
    assert none["target_parameters"] == []
    experts_only = config_of(prune_to(source, tmp_path / "d", [Q0, Q1]))
    assert (experts_only["target_modules"], experts_only["target_parameters"]) == ([], FUSED["target_parameters"])


def test_half_a_container_stays_whole(tmp_path: Path):
    gate_up = [path for path in container(0) if path.endswith("gate_up_proj")]
    out = prune_to(fused(tmp_path / "a"), tmp_path / "b", gate_up, loader="peft")
    assert len(tensors_of(out)) == len(tensors_of(tmp_path / "a"))
    assert {module.action for module in read_provenance(out).modules} == {"zeroed"}


def test_experts_with_tensors_of_their_own_leave_together_or_not_at_all(tmp_path: Path):
    """PEFT stacks them since transformers 5: with one missing it fails, or gives its update to another expert."""
    experts = [f"model.layers.{i}.mlp.experts.{e}.{p}_proj" for i in (0, 1) for e in (0, 1) for p in ("up", "down")]
    source = make_adapter(tmp_path / "a", dict.fromkeys([Q0, *experts], SHAPE))
    out = prune_to(source, tmp_path / "b", [*experts[:4], experts[5]])
    after = tensors_of(out)
    assert len(after) == len(tensors_of(source))
    assert config_of(out) == config_of(source)
    zero = {name.removeprefix(PREFIX).removesuffix(".lora_B.weight") for name, v in after.items() if not v.any()}
    assert zero == {*experts[:4], experts[5]}
    whole = prune_to(source, tmp_path / "c", experts)
    assert set(tensors_of(whole)) == {f"{PREFIX}{Q0}.lora_{letter}.weight" for letter in "AB"}
    assert config_of(whole)["target_modules"] == ["q_proj"]


def test_a_module_whose_base_bias_was_trained_stays_wrapped(tmp_path: Path):
    heads = {f"{Q0}.base_layer.bias": np.ones(8, np.float32)}
    source = make_adapter(tmp_path / "a", {Q0: SHAPE, Q1: SHAPE}, config={"bias": "lora_only"}, heads=heads)
    out = prune_to(source, tmp_path / "b", [Q0])
    assert not tensors_of(out)[f"{PREFIX}{Q0}.lora_B.weight"].any()
    assert tensors_of(out)[f"{PREFIX}{Q0}.base_layer.bias"].all()
    assert config_of(out) == config_of(source)
