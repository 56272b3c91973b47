"""Repaired adapters: what is written is what was made, in every dtype and rank, and the configuration says so."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora.adapter.write
from s3lora import (
    OutputError,
    SelectionError,
    UnsupportedAdapterError,
    UsageError,
    open_adapter,
    read_provenance,
    restore,
    scan,
)
from s3lora.adapter.loaders import LOADERS
from s3lora.adapter.peft_config import alpha_of
from s3lora.rewrite.factors import NO_FACTORS, NewFactor, NewFactors
from s3lora.rewrite.repair_record import RepairFields
from s3lora.rewrite.repaired import repaired, write_repaired
from tests.adapter.test_write import beside, listing, sharded
from tests.forms import peft_adapter
from tests.planning import PREFIX, config_of, dense, tensors_of
from tests.rewrite.repairing import HOW, Q0, Q1, SHAPES, V0, V1, matches, new_factor, repair_to
from tests.support import dtype_of, factors, make_adapter, shared, write_safetensors


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ranks", [{Q0: 0, V1: 0}, {Q0: 6, V0: 6, Q1: 6, V1: 6}, {Q0: 6, V1: 1}])
def test_what_is_written_is_what_was_made(tmp_path: Path, ranks, dtype: str):
    source = make_adapter(tmp_path / "a", SHAPES, dtype=dtype, heads={"score.weight": np.ones((2, 32), np.float32)})
    out, made = repair_to(source, tmp_path / "b", ranks)
    matches(out, made, source)
    with open_adapter(out) as adapter:
        for module in adapter.modules:
            new = made.modules.get(module.path)
            assert module.scaling.value == 2.0
            assert module.rank == (4 if new is None else new.rank)
            assert module.A.array().dtype == dtype_of(dtype)


@pytest.mark.parametrize("loader", [name for name, one in LOADERS.items() if one.writes])
def test_nothing_to_change_is_the_identity(tmp_path: Path, loader: str):
    source = make_adapter(tmp_path / "a", SHAPES, dtype="bfloat16")
    with open_adapter(source) as adapter:
        record, _ = write_repaired(adapter, NO_FACTORS, RepairFields(method="gates", strength=0.0), tmp_path / "b")
    matches(tmp_path / "b", NO_FACTORS, source)
    assert config_of(tmp_path / "b") == config_of(source)
    assert record.done == "no module changed by gates at strength 0"


@pytest.mark.parametrize(
    ("config", "ranks", "expected"),
    [
        ({"lora_alpha": 16}, dict.fromkeys(SHAPES, 6), {"r": 6, "lora_alpha": 24}),
        ({"lora_alpha": 1}, dict.fromkeys(SHAPES, 6), {"r": 6, "lora_alpha": 1.5}),
        ({"lora_alpha": 16, "use_rslora": True}, dict.fromkeys(SHAPES, 6), {"r": 6, "lora_alpha": 48}),
        (
            {"lora_alpha": 8},
            {Q0: 6, V0: 6, Q1: 6},
            {"r": 6, "lora_alpha": 12, "rank_pattern": {V1: 4}, "alpha_pattern": {V1: 8}},
        ),
        (
            {"lora_alpha": 8, "alpha_pattern": {"0.self_attn.q_proj": 4}, "rank_pattern": {"absent": 9}},
            dict.fromkeys(SHAPES, 6),
            {"r": 6, "lora_alpha": 12, "alpha_pattern": {Q0: 6}},
        ),
        (
            {"lora_alpha": 8, "rank_pattern": {"v_proj": 4}},
            {Q0: 2},
            {"r": 4, "lora_alpha": 8, "rank_pattern": {Q0: 2}, "alpha_pattern": {Q0: 4}},
        ),
    ],
)
def test_the_configuration_keeps_every_scaling(tmp_path: Path, config, ranks, expected):
    source = make_adapter(tmp_path / "a", SHAPES, config=config)
    before = {module.path: module.scaling for module in scan(source).modules}
    out, made = repair_to(source, tmp_path / "b", ranks)
    written = config_of(out)
    fields = {"use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}, **expected}
    assert written == {**config_of(source), **fields}
    assert {module.path: module.scaling for module in scan(out).modules} == before  # to the last bit
    updates = dense(out)  # which also checks the rank that PEFT would build
    for path, new in made.modules.items():
        assert np.allclose(updates[path], before[path] * new.B.astype(float) @ new.A.astype(float), rtol=1e-12)
    assert any("keeps their scaling" in note for note in read_provenance(out).warnings)
    odd = any("no whole number" in note for note in read_provenance(out).warnings)
    assert odd == (expected["lora_alpha"] == 1.5)


def test_ranks_stay_so_the_configuration_does(tmp_path: Path):
    config = {"use_rslora": True, "alpha_pattern": {"0.self_attn.q_proj": 3}, "rank_pattern": {"q_proj": 4}}
    source = make_adapter(tmp_path / "a", SHAPES, config=config)
    assert config_of(repair_to(source, tmp_path / "b", {Q0: 0})[0]) == config_of(source)


def test_a_path_that_ends_another_gets_an_anchored_key(tmp_path: Path):
    inner, outer = "layers.0.q_proj", "vision.layers.0.q_proj"
    source = make_adapter(tmp_path / "a", {inner: (8, 8, 2), outer: (8, 8, 2), "layers.1.q_proj": (8, 8, 2)})
    out, _ = repair_to(source, tmp_path / "b", {inner: 3})
    assert config_of(out)["rank_pattern"] == {r"^layers\.0\.q_proj": 3}
    ranks = {path: update.shape for path, update in dense(out).items()}
    assert ranks.keys() == {inner, outer, "layers.1.q_proj"}


@given(st.integers(1, 512), st.integers(1, 512), st.integers(1, 1024), st.booleans())
def test_an_alpha_gives_the_scaling_to_the_last_bits(rank: int, new: int, alpha: int, rslora: bool):
    scaling = alpha / (math.sqrt(rank) if rslora else rank)
    found = alpha_of(scaling, new)
    assert math.isclose(found / new, scaling, rel_tol=3e-16)
    if not rslora and alpha * new % rank == 0:
        assert (found, type(found)) == (alpha * new // rank, int)


@given(
    ranks=st.dictionaries(st.sampled_from(list(SHAPES)), st.integers(1, 9)),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    own=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    rslora=st.booleans(),
    alpha=st.integers(1, 40),
)
def test_reading_it_back_gives_just_the_factors(ranks, dtype: str, own, rslora: bool, alpha: int):
    with tempfile.TemporaryDirectory() as name:
        shapes = {path: (*SHAPES[path][:2], rank) for path, rank in zip(SHAPES, own, strict=True)}
        config = {"rank_pattern": dict(zip(SHAPES, own, strict=True)), "use_rslora": rslora, "lora_alpha": alpha}
        source = make_adapter(Path(name) / "a", shapes, dtype=dtype, config=config)
        out, made = repair_to(source, Path(name) / "b", ranks)
        matches(out, made, source)
        with open_adapter(source) as before, open_adapter(out) as after:
            for old, now in zip(before.modules, after.modules, strict=True):
                assert math.isclose(old.scaling.value, now.scaling.value, rel_tol=3e-16)
            read = {m.path: NewFactor(m.A.array(), m.B.array()) for m in after.modules if m.path in made.modules}
            assert NewFactors(read).identity == made.identity
        assert dense(out).keys() == dense(source).keys()


@pytest.mark.parametrize("bias", [1.0, 0.25, 0.0])
def test_biases_of_lora_b_are_multiplied(tmp_path: Path, bias: float):
    biases = {f"{path}.lora_B.bias": np.ones(SHAPES[path][0], np.float32) for path in SHAPES}
    source = make_adapter(tmp_path / "a", SHAPES, config={"lora_bias": True}, heads=biases)
    with open_adapter(source) as adapter:
        first = next(module for module in adapter.modules if module.path == Q0)
        record, _ = write_repaired(adapter, NewFactors({Q0: new_factor(first, 6, bias=bias)}), HOW, tmp_path / "b")
    after = tensors_of(tmp_path / "b")
    assert set(after[f"{PREFIX}{Q0}.lora_B.bias"]) == {bias}
    assert set(after[f"{PREFIX}{V0}.lora_B.bias"]) == {1.0}
    assert [(module.before, module.rank, module.bias) for module in record.modules] == [(4, 6, bias)]


def test_shards_keep_their_files_and_the_index_counts_the_new_bytes(tmp_path: Path):
    source = sharded(tmp_path / "a", [Q0, V0, Q1])
    with open_adapter(source) as adapter:
        made = NewFactors({module.path: new_factor(module, 9) for module in adapter.modules})
        write_repaired(adapter, made, HOW, tmp_path / "b")
    matches(tmp_path / "b", made, source)
    assert {p.name for p in (tmp_path / "b").glob("*.saf*")} == {p.name for p in source.glob("*.saf*")}
    index = json.loads((tmp_path / "b" / "adapter_model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in tensors_of(tmp_path / "b").values())
    restore(tmp_path / "b", source, tmp_path / "some", modules=[V0])
    tensors, before = tensors_of(tmp_path / "some"), tensors_of(source)
    for path in (Q0, Q1):
        assert np.array_equal(tensors[f"{PREFIX}{path}.lora_B.weight"], made.modules[path].B)
    assert np.array_equal(tensors[f"{PREFIX}{V0}.lora_B.weight"], before[f"{PREFIX}{V0}.lora_B.weight"])


def test_transposed_files_keep_their_layout(tmp_path: Path):
    """MLX: both factors lie transposed, and only equal ranks can be written."""
    (tmp_path / "a").mkdir()
    arrays = {}
    for i, path in enumerate((Q0, V0)):
        a, b = factors(12, 10, 3, seed=i)
        arrays |= {f"{path}.lora_a": np.ascontiguousarray(a.T), f"{path}.lora_b": np.ascontiguousarray(b.T)}
    write_safetensors(tmp_path / "a" / "adapters.safetensors", arrays)
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 3, "scale": 20.0}}
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    out, made = repair_to(tmp_path / "a", tmp_path / "b", {Q0: 0})
    after = tensors_of(out)
    assert np.array_equal(after[f"{Q0}.lora_a"], made.modules[Q0].A.T)
    assert np.array_equal(after[f"{Q0}.lora_b"], made.modules[Q0].B.T)
    assert after[f"{V0}.lora_a"].tobytes() == arrays[f"{V0}.lora_a"].tobytes()
    with pytest.raises(UnsupportedAdapterError, match=r"only a PEFT adapter .*keep_rank=True"):
        repair_to(tmp_path / "a", tmp_path / "c", {Q0: 4})
    restore(out, tmp_path / "a", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(tmp_path / "a")


def test_fused_experts_are_kept_as_they_are(tmp_path: Path):
    fused = "model.layers.0.mlp.experts"
    heads = {
        f"{fused}.base_layer.lora_A.weight": np.ones((2 * 3, 8), np.float32),
        f"{fused}.base_layer.lora_B.weight": np.ones((24, 2 * 3), np.float32),
        f"{fused}.lora_A.weight": np.ones((2 * 3, 12), np.float32),
        f"{fused}.lora_B.weight": np.ones((8, 2 * 3), np.float32),
    }
    targets = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], "target_modules": ["q_proj"]}
    source = make_adapter(tmp_path / "a", {Q0: (8, 8, 2)}, config=targets, heads=heads)
    out, made = repair_to(source, tmp_path / "b", {Q0: 4})
    matches(out, made, source)
    assert (config_of(out)["r"], config_of(out)["rank_pattern"]) == (2, {Q0: 4})
    with open_adapter(out) as adapter, open_adapter(source) as before:
        assert {m.path: m.scaling.value for m in adapter.modules} == {m.path: m.scaling.value for m in before.modules}
        expert = next(module for module in before.modules if module.group is not None)
        with pytest.raises(UnsupportedAdapterError, match="stored as one matrix each"):
            repaired(before, NewFactors({expert.path: new_factor(expert, expert.rank + 1)}))


def test_a_convolution_keeps_its_rank_and_its_kernel(tmp_path: Path):
    kernels = {
        "conv_in.lora_A.weight": np.ones((2, 3, 3, 3), np.float32),
        "conv_in.lora_B.weight": np.ones((5, 2, 1, 1), np.float32),
    }
    source = make_adapter(tmp_path / "a", {Q0: (8, 8, 2)}, heads=kernels)
    out, made = repair_to(source, tmp_path / "b", {"conv_in": 0})
    new = made.modules["conv_in"]
    after = tensors_of(out)[f"{PREFIX}conv_in.lora_A.weight"]
    assert np.array_equal(after, new.A.reshape(2, 3, 3, 3))
    with pytest.raises(UnsupportedAdapterError, match="stored as one matrix each"):
        repair_to(source, tmp_path / "c", {"conv_in": 3})


def test_what_a_wrapper_put_before_the_keys_is_taken_off(tmp_path: Path):
    source = make_adapter(tmp_path / "a", {Q0: (8, 8, 2), V0: (8, 8, 2)})
    plain = tensors_of(source)
    wrapped = {name.replace(PREFIX, f"_orig_mod.{PREFIX}"): value for name, value in plain.items()}
    write_safetensors(source / "adapter_model.safetensors", wrapped, {"format": "pt"})
    out, made = repair_to(source, tmp_path / "b", {Q0: 3})
    after = tensors_of(out)
    assert after.keys() == plain.keys()
    assert np.array_equal(after[f"{PREFIX}{Q0}.lora_B.weight"], made.modules[Q0].B)
    assert after[f"{PREFIX}{V0}.lora_B.weight"].tobytes() == plain[f"{PREFIX}{V0}.lora_B.weight"].tobytes()


def test_orthogonal_beginnings_would_stop_at_an_odd_rank(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES, config={"init_lora_weights": "orthogonal"})
    for rank, init in ((6, "orthogonal"), (5, True)):
        out, _ = repair_to(source, tmp_path / f"{rank}", dict.fromkeys(SHAPES, rank))
        assert config_of(out)["init_lora_weights"] == init


def test_refusals(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    with open_adapter(source) as adapter:
        first = adapter.modules[0]
        good = new_factor(first, 4)
        with pytest.raises(SelectionError, match=r"layers\.9"):
            repaired(adapter, NewFactors({"model.layers.9.q": good}))
        for bad in (NewFactor(good.A[:, :-1], good.B), NewFactor(good.A, good.B[:-1]), NewFactor(good.A[:3], good.B)):
            with pytest.raises(UsageError, match="do not fit"):
                repaired(adapter, NewFactors({first.path: bad}))
        with pytest.raises(UsageError, match="no loader 'onnx'"):
            repaired(adapter, NO_FACTORS, loader="onnx")
        wild = NewFactor(np.full_like(good.A, np.nan), good.B)
        with pytest.raises(OutputError, match="not finite"):
            write_repaired(adapter, NewFactors({first.path: wild}), HOW, tmp_path / "b")
        with pytest.raises(UsageError, match="strength of 2"):
            write_repaired(adapter, NO_FACTORS, RepairFields(method="x", strength=2.0), tmp_path / "b")
    for init in ("pissa", "olora"):
        other = make_adapter(tmp_path / init, SHAPES, config={"init_lora_weights": init})
        with pytest.raises(UnsupportedAdapterError, match="path_initial_model_for_weight_conversion"):
            repair_to(other, tmp_path / "b", {Q0: 0})
    magnitude = {f"{Q0}.lora_magnitude_vector": np.ones(48, np.float32)}
    dora = make_adapter(tmp_path / "dora", SHAPES, config={"use_dora": True}, heads=magnitude)
    with pytest.raises(UnsupportedAdapterError, match="DoRA"):
        repair_to(dora, tmp_path / "b", {Q0: 0})
    (source / "adapter_config.json").unlink()
    with pytest.raises(UnsupportedAdapterError, match=r"adapter_config\.json"):
        repair_to(source, tmp_path / "b", {Q0: 5})
    with pytest.raises(UsageError, match="adapter_config"):
        repair_to(source, tmp_path / "b", {Q0: 0}, bake=True)
    assert not (tmp_path / "b").exists()
    matches(*repair_to(source, tmp_path / "b", {Q0: 0}), source)


def test_a_target_that_exists_needs_force(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    (source / "tokenizer.json").write_text("{}")
    (source / "modeling.py").write_text("import os")
    before = listing(source)
    with pytest.raises(OutputError, match="is the input itself"):
        repair_to(source, source, {Q0: 6})
    out, _ = repair_to(source, tmp_path / "b", {Q0: 6})
    first = listing(out)
    assert sorted(first) == ["adapter_config.json", "adapter_model.safetensors", "s3lora.json", "tokenizer.json"]
    with pytest.raises(OutputError, match="not empty"):
        repair_to(source, out, {V0: 6})
    assert (listing(source), listing(out)) == (before, first)
    repair_to(source, out, {V0: 6}, force=True)
    assert listing(out) != first
    repair_to(source, out, {Q0: 6}, force=True)
    assert listing(out) == first  # the same input gives the same bytes
    assert beside(source) == {"a", "b"}


def test_what_breaks_off_or_does_not_verify_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = make_adapter(tmp_path / "a", SHAPES)
    real = s3lora.adapter.write.write_safetensors

    def corrupted(path, *arguments):
        digest = real(path, *arguments)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return digest

    def interrupted(path, *arguments):
        real(path, *arguments)
        raise KeyboardInterrupt

    for wrong, error in ((corrupted, OutputError), (interrupted, KeyboardInterrupt)):
        monkeypatch.setattr(s3lora.adapter.write, "write_safetensors", wrong)
        with pytest.raises(error):
            repair_to(source, tmp_path / "b", {Q1: 6, V1: 6})
        assert beside(source) == {"a"}


def test_a_configuration_that_does_not_say_the_ranks_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from s3lora.rewrite import repaired as under_test

    monkeypatch.setattr(under_test.peft_config, "with_ranks", lambda config, modules: dict(config))
    source = make_adapter(tmp_path / "a", SHAPES)
    with pytest.raises(OutputError, match="another rank or scaling"):
        repair_to(source, tmp_path / "b", {Q0: 6})
    assert beside(source) == {"a"}


#: Real adapters in which whole modules can get another rank.
PEFT = ("dialogpt-synthetic-peft", "distilgpt2-peft", "gpt2-classifier-peft", "token-classifier-gqa-peft")


@pytest.mark.parametrize("name", PEFT)
def test_real_adapters(tmp_path: Path, name: str):
    source = shared() / "adapters" / name
    with open_adapter(source) as adapter:
        made = NewFactors({module.path: new_factor(module, module.rank + 2) for module in adapter.modules[1:]})
        write_repaired(adapter, made, HOW, tmp_path / "b")
    before, after = tensors_of(source), tensors_of(tmp_path / "b")
    assert before.keys() == after.keys()
    changed = {name for name, value in after.items() if value.tobytes() != before[name].tobytes()}
    assert len(changed) == 2 * len(made.modules)
    with open_adapter(tmp_path / "b") as result:
        read = {m.path: NewFactor(m.A.array(), m.B.array()) for m in result.modules if m.path in made.modules}
    assert NewFactors(read).identity == made.identity
    assert set(restore(tmp_path / "b", source, tmp_path / "c")) == made.modules.keys()
    assert (tmp_path / "c" / "adapter_model.safetensors").read_bytes() == (
        source / "adapter_model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    "name", ["gpt-oss-20b-peft", "qwen25-mlx/0000200_adapters.safetensors", "sam-vit-custom-r8", "sd1-mixed-dtype"]
)
def test_real_adapters_of_other_kinds_with_equal_ranks(tmp_path: Path, name: str):
    with open_adapter(shared() / "adapters" / name) as adapter:
        made = NewFactors({module.path: new_factor(module, module.rank) for module in adapter.modules[:3]})
        write_repaired(adapter, made, HOW, tmp_path / "b")
        with open_adapter(next((tmp_path / "b").glob("*.safetensors"))) as result:
            for old, module in zip(adapter.modules, result.modules, strict=True):
                new = made.modules.get(module.path, NewFactor(old.A.array(), old.B.array()))
                assert module.A.array().tobytes() == new.A.tobytes()
                assert module.B.array().tobytes() == new.B.tobytes()


def test_baking_needs_lora(tmp_path: Path):
    refused = pytest.raises(UsageError, match=r"bake=True needs LoRA, and .* is AdaLoRA")
    with open_adapter(peft_adapter(tmp_path / "a", "adalora")) as adapter, refused:
        repaired(adapter, NO_FACTORS, bake=True)
