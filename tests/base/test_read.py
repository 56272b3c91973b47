"""A base model from its configuration, its folder, its weights, an index alone, and what cannot be one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3lora import AdapterFileError, UsageError, read_base
from s3lora.base.configured import model_of
from s3lora.base.names import ModuleNames, changed_prefix, expert_of, renamings, tail_of
from tests.support import write_safetensors

SIZES = {"hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
         "intermediate_size": 12, "vocab_size": 20}  # fmt: skip
LLAMA = {"model_type": "llama", **SIZES}
Q1 = "model.layers.1.self_attn.q_proj"


def folder(path: Path, config: dict[str, Any] | None, tensors: dict[str, tuple[int, ...]] | None = None) -> Path:
    path.mkdir()
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        write_safetensors(path / "model.safetensors", {name: np.zeros(shape, "f4") for name, shape in tensors.items()})
    return path


def test_a_configuration_is_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    base = read_base(str(tmp_path / "config.json"))
    assert (base.architecture, base.evidence, base.complete, base.tied) == ("llama", "configuration", True, False)
    assert base.modules["model.layers.1.self_attn.k_proj"].shape == (4, 8)
    assert base.modules["model.embed_tokens"].kind == "embedding"
    assert len(base.modules) == 2 * 7 + 2
    assert read_base(str(tmp_path)).modules == base.modules
    assert "16 modules" in repr(base)


def test_shapes_are_those_of_the_weights(tmp_path: Path) -> None:
    base = read_base(str(folder(tmp_path / "m", LLAMA, {f"{Q1}.weight": (6, 8), "extra.thing.weight": (3, 3)})))
    assert (base.modules[Q1].shape, base.evidence, base.complete) == ((6, 8), "weights", True)
    assert "extra.thing" in base.modules


def test_files_may_call_modules_otherwise_than_the_model(tmp_path: Path) -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": 20}
    base = read_base(str(folder(tmp_path / "m", gpt2, {"h.0.attn.c_attn.weight": (8, 30), "wte.weight": (20, 8)})))
    assert base.modules["transformer.h.0.attn.c_attn"].shape == (30, 8), "Conv1D stores its weight the other way"
    assert base.modules["transformer.wte"].shape == (20, 8)
    assert not any(path.startswith("h.") for path in base.modules)


def test_towers_of_one_layout_are_told_apart(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **SIZES, "head_dim": 2}}
    stored = {
        "language_model.model.layers.0.self_attn.q_proj.weight": (8, 8),
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight": (5, 5),
    }
    base = read_base(str(folder(tmp_path / "m", config, stored)))
    assert base.modules["model.language_model.layers.0.self_attn.q_proj"].shape == (8, 8)
    assert base.modules["vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"].shape == (5, 5)


def test_an_unknown_architecture_has_the_names_of_its_weights(tmp_path: Path) -> None:
    stored = {"net.blocks.0.mix.weight": (4, 6), "net.norm.weight": (6,), "net.mix.bias": (4,)}
    base = read_base(str(folder(tmp_path / "m", {"model_type": "of_ours"}, stored)))
    assert {path: module.shape for path, module in base.modules.items()} == {"net.blocks.0.mix": (4, 6)}
    assert "of_ours" in base.notes[0]
    nothing = read_base(str(folder(tmp_path / "n", {"model_type": "of_ours"})))
    assert (nothing.modules, nothing.complete, nothing.may_have("net.mix")) == ({}, False, True)


def test_an_index_alone_gives_names(tmp_path: Path) -> None:
    index = {"weight_map": {"net.blocks.0.mix.weight": "a.safetensors", "net.packed.qweight": "a.safetensors"}}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    base = read_base(str(path))
    assert {name: module.shape for name, module in base.modules.items()} == {
        "net.blocks.0.mix": None,
        "net.packed": None,
    }
    path.write_text(json.dumps({"weight_map": {"a.weight": "../other.safetensors"}}))
    with pytest.raises(AdapterFileError, match="outside"):
        read_base(str(path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": None}, "`hidden_size` is missing"),
        ({"hidden_size": -4}, "`hidden_size` is no size"),
        ({"num_hidden_layers": 10**9}, "layers are more than any model has"),
        ({"vocab_size": True}, "`vocab_size` is no size"),
        ({"intermediate_size": 1e300}, "`intermediate_size` is no size"),
        ({"model_type": ["llama"]}, "names no `model_type`"),
        ({"model_type": "deepseek_v3", "kv_lora_rank": None}, "it lacks the sizes of its attention"),
    ],
)
def test_a_configuration_that_no_model_has(change: dict[str, Any], told: str) -> None:
    base = model_of({**LLAMA, **change}, "it")
    assert base.modules == {}
    assert told in base.notes[0]


@example({"model_type": "qwen2_moe", "mlp_only_layers": 1})
@given(st.dictionaries(
    st.sampled_from([*SIZES, "model_type", "text_config", "head_dim", "mlp_only_layers", "first_k_dense_replace",
                     "decoder_sparse_step", "kv_lora_rank", "num_experts"]),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans(),
              st.lists(st.integers(), max_size=3),
              st.sampled_from(["llama", "deepseek_v3", "qwen2_moe", "gemma3", "falcon"]),
              st.dictionaries(st.sampled_from([*SIZES, "model_type"]), st.integers(), max_size=3)),
))  # fmt: skip
def test_no_configuration_breaks_it(change: dict[str, Any]) -> None:
    made = model_of({**LLAMA, **change}, "it")
    assert made.modules or made.notes
    assert all(one.shape is None or all(size > 0 for size in one.shape) for one in made.modules.values())


@pytest.mark.parametrize("base", ["", "no-such-folder/at-all/here", "adapter_config.json"])
def test_what_is_no_base(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("adapter_config.json").write_text("{}")
    with pytest.raises(UsageError):
        read_base(base)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        read_base(str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(AdapterFileError, match="JSON object"):
        read_base(str(tmp_path))


def test_a_name_of_the_hub_is_looked_for_in_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="hf download someone/llama"):
        read_base("someone/llama")
    snapshot = tmp_path / "models--someone--llama" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    refs = tmp_path / "models--someone--llama" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    assert read_base("someone/llama").name == "someone/llama"


KNOWN = [f"model.language_model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qv"] + ["lm_head"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("model.layers.1.self_attn.q_proj", KNOWN[2]),
        ("language_model.model.layers.1.self_attn.v_proj", KNOWN[3]),
        ("layers.0.self_attn.q_proj", KNOWN[0]),
        ("language_model.lm_head", "lm_head"),
        ("model.vision_tower.layers.0.self_attn.q_proj", None),
        ("model.layers.2.self_attn.q_proj", None),
        ("model.layers.1.self_attn.o_proj", None),
    ],
)
def test_names_that_mean_the_same(path: str, found: str | None) -> None:
    assert ModuleNames(KNOWN).find(path) == found


def test_old_names_of_experts() -> None:
    known = ["model.layers.0.mlp.gate", "model.layers.0.mlp.experts.gate_up_proj"]
    assert ModuleNames(known).find("model.layers.0.block_sparse_moe.gate") == known[0]
    assert expert_of("model.layers.0.mlp.experts.3.w2") == ("model.layers.0.mlp.experts.down_proj", 3, "w2")
    assert expert_of("model.layers.0.mlp.experts.w2") is None


def test_renamings_are_counted() -> None:
    made = renamings({f"model.layers.{i}.q": f"model.language_model.layers.{i}.q" for i in range(3)})
    assert [(one.old, one.new, one.modules) for one in made] == [("model.", "model.language_model.", 3)]
    assert "transformers 4.52" in made[0].why


NAME = st.lists(
    st.sampled_from(["model", "layers", "0", "7", "h", "q_proj", "vision", "experts"]), min_size=1, max_size=6
)


@given(NAME, st.lists(NAME, max_size=6))
def test_a_name_that_is_there_is_found_under_itself(path: list[str], others: list[list[str]]) -> None:
    known = [".".join(one) for one in [path, *others]]
    assert ModuleNames(known).find(known[0]) == known[0]
    old, new = changed_prefix(f"{known[0]}.end", f"{known[-1]}.end")
    assert new + f"{known[0]}.end".removeprefix(old) == f"{known[-1]}.end"
    assert known[0].endswith(tail_of(known[0]))
