"""Pruning modes against dense updates of the files written, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from s3lora import (
    Clip,
    LoraModule,
    Mode,
    NothingToAuditError,
    OutputError,
    Remove,
    Scale,
    SelectionError,
    UnsupportedAdapterError,
    UsageError,
    Zero,
    open_adapter,
    prune,
    read_provenance,
    restore,
    scan,
    write_pruned,
)
from s3lora.adapter.model import DerivedFactor
from s3lora.adapter.tensor import Array
from s3lora.adapter.write import write_adapter
from s3lora.rewrite.modes import MODES, Side, mode_of
from tests.planning import PREFIX, config_of, dense, plan_of, prune_to, tensors_of
from tests.support import dtype_of, make_adapter, write_safetensors

Q0, V0, Q1, V1 = (f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qv")
SHAPES = {Q0: (48, 32, 4), V0: (24, 32, 4), Q1: (48, 32, 4), V1: (24, 32, 4)}
#: Relative error of one rounding to the dtype.
ROUNDING = {"float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}


def attempt(folder: Path, paths: list[str], mode: Mode | None = None, **keywords: Any) -> object:
    """Plan and prune without writing."""
    with open_adapter(folder) as adapter:
        plan = plan_of(scan(adapter), paths, flat=keywords.pop("is_flat", False))
        return prune(adapter, plan, mode or Remove(), **keywords)


def test_remove_takes_the_tensors_and_excludes_the_full_paths(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES, config={"target_modules": ["q_proj", "v_proj"]})
    out = prune_to(source, tmp_path / "b", [Q1, V0])
    before, after = tensors_of(source), tensors_of(out)
    assert set(after) == {name for name in before if Q1 not in name and V0 not in name}
    assert config_of(out) == {**config_of(source), "exclude_modules": [Q1, V0]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"exclude_modules": [Q1]}),
        ({"target_modules": r".*\.(q|v)_proj"}, {"exclude_modules": [Q1]}),
        ({"exclude_modules": ["layers.7.q_proj"]}, {"exclude_modules": ["layers.7.q_proj", Q1]}),
        (
            {"exclude_modules": r".*\.7\.q_proj"},
            {"exclude_modules": r"(?:.*\.7\.q_proj)|model\.layers\.1\.self_attn\.q_proj"},
        ),
        (
            {"exclude_modules": r"(?i).*\.7\.Q_proj"},
            {"exclude_modules": r"(?i:.*\.7\.Q_proj)|model\.layers\.1\.self_attn\.q_proj"},
        ),
        ({"target_modules": [Q0, V0, Q1, V1]}, {"target_modules": [Q0, V0, V1]}),
        (
            {"rank_pattern": {"1.self_attn.q_proj": 4, "q_proj": 4, "absent": 9}},
            {"rank_pattern": {"q_proj": 4, "absent": 9}, "exclude_modules": [Q1]},
        ),
        (
            {"alpha_pattern": {"1.self_attn.q_proj": 5, r".*\.1\..*": 6, "q_proj": 7}},
            {"alpha_pattern": {r".*\.1\..*": 6, "q_proj": 7}, "exclude_modules": [Q1]},
        ),
    ],
)
def test_the_configuration_says_so(tmp_path: Path, before, after):
    source = make_adapter(tmp_path / "a", SHAPES, config=before)
    out = prune_to(source, tmp_path / "b", [Q1])
    assert config_of(out) == {**config_of(source), **after}


def test_a_path_that_ends_another_is_excluded_by_a_regular_expression(tmp_path: Path):
    inner, outer = "layers.0.q_proj", "vision.layers.0.q_proj"
    source = make_adapter(tmp_path / "a", {inner: (8, 8, 2), outer: (8, 8, 2)}, config={"exclude_modules": ["k_proj"]})
    config = config_of(prune_to(source, tmp_path / "b", [inner]))
    assert config["exclude_modules"] == r"(?:.*\.)?k_proj|layers\.0\.q_proj"


def test_a_projection_that_is_gone_leaves_the_targets(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    config = config_of(prune_to(source, tmp_path / "b", [Q0, Q1]))
    assert config["target_modules"] == ["v_proj"]
    assert "exclude_modules" not in config
    both = config_of(prune_to(source, tmp_path / "c", [Q0, Q1, V1]))
    assert (both["target_modules"], both["exclude_modules"]) == (["v_proj"], [V1])


def test_extras_of_a_removed_module_leave_with_it_and_heads_stay(tmp_path: Path):
    extras = {f"{path}.lora_magnitude_vector": np.ones(SHAPES[path][0], np.float32) for path in SHAPES}
    heads = {**extras, "score.weight": np.ones((2, 32), np.float32), "odd": np.arange(3, dtype=np.int64)}
    source = make_adapter(tmp_path / "a", SHAPES, config={"use_dora": True}, heads=heads)
    after = tensors_of(prune_to(source, tmp_path / "b", [Q0]))
    assert not any(Q0 in name for name in after)
    assert len(after) == 3 * 3 + 2
    for mode in (Zero(), Clip(), Scale()):
        with pytest.raises(UnsupportedAdapterError, match=r"DoRA.*use Remove"):
            attempt(source, [Q0], mode)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mode", [Zero(), Clip(3), Scale(0.3)])
def test_modes_against_the_dense_updates(tmp_path: Path, mode, dtype: str):
    source = make_adapter(tmp_path / "a", SHAPES, dtype=dtype, config={"use_rslora": True})
    before = dense(source)
    out = prune_to(source, tmp_path / "b", [Q0, V1], mode)
    after = dense(out)
    assert config_of(out) == config_of(source)
    for path in (V0, Q1):
        assert np.array_equal(after[path], before[path])
    for path in (Q0, V1):
        u, sigma, vt = np.linalg.svd(before[path], full_matrices=False)
        wanted = {"zero": 0 * sigma, "clip": np.minimum(sigma, sigma[2]), "scale": 0.3 * sigma}[mode.name]
        # Each factor is rounded once: an entry errs by 2·ε·Σ|b||a|, the whole by no more than 2·ε·r·σ_1.
        bound = 2 * ROUNDING[dtype] * 4 * sigma[0] + 1e-6 * ROUNDING["float32"]
        assert np.linalg.norm(after[path] - (u * wanted) @ vt, 2) <= bound
    stored = {name: value.dtype for name, value in tensors_of(out).items()}
    assert set(stored.values()) == {dtype_of(dtype)}


def test_zero_writes_plain_zeros(tmp_path: Path):
    after = tensors_of(prune_to(make_adapter(tmp_path / "a", SHAPES), tmp_path / "b", [Q0], Zero()))
    values = after[f"{PREFIX}{Q0}.lora_B.weight"]
    assert not values.tobytes().strip(b"\0")  # and no negative zeros


def test_clip_tells_of_modules_with_too_few_components(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    out = prune_to(source, tmp_path / "b", [Q0], Clip(5))
    assert any("fewer than 5 components" in warning for warning in read_provenance(out).warnings)
    before, after = tensors_of(source), tensors_of(out)
    assert {name: value.tobytes() for name, value in after.items()} == {
        name: value.tobytes() for name, value in before.items()
    }


def test_values_that_do_not_fit_the_dtype_are_refused(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES, dtype="float16", config={"lora_alpha": 1e6})
    with pytest.raises(OutputError, match="float16"):
        prune_to(source, tmp_path / "b", [Q0], bake=True)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("config", [{"use_rslora": True}, {"alpha_pattern": {"0.self_attn.q_proj": 3}}])
@pytest.mark.parametrize("loader", ["peft", "vllm", "sglang", "llamacpp"])
def test_baking_keeps_every_update(tmp_path: Path, config, loader):
    ranks = {Q0: 2, V0: 4, Q1: 8, V1: 4}
    if loader == "sglang":  # which loads modules of one rank
        ranks = dict.fromkeys(ranks, 4)
    shapes = {path: (*SHAPES[path][:2], rank) for path, rank in ranks.items()}
    patterns = {path: rank for path, rank in ranks.items() if rank != 4}
    source = make_adapter(tmp_path / "a", shapes, config={"r": 4, "lora_alpha": 6, "rank_pattern": patterns, **config})
    out = prune_to(source, tmp_path / "b", [V1], bake=True, loader=loader)
    written, tensors, before, after = config_of(out), tensors_of(out), dense(source), dense(out)
    assert (written["r"], written["lora_alpha"], written["use_rslora"]) == (
        max(ranks.values()),
        max(ranks.values()),
        False,
    )
    for path in (Q0, V0, Q1):
        # What PEFT computes with all patterns, and what the loader computes that reads one alpha only.
        assert np.allclose(after[path], before[path], rtol=1e-5, atol=1e-6)
        b, a = (tensors[f"{PREFIX}{path}.lora_{letter}.weight"].astype(np.float64) for letter in "BA")
        alone = written["lora_alpha"] / (len(a) if loader == "llamacpp" else written["r"])
        assert np.allclose(alone * b @ a, before[path], rtol=1e-5, atol=1e-6)
    assert bool(written["alpha_pattern"]) == (loader not in ("llamacpp", "sglang"))


def test_baking_and_modes_scale_the_bias_of_lora_b_too(tmp_path: Path):
    biases = {f"{path}.lora_B.bias": np.ones(SHAPES[path][0], np.float32) for path in SHAPES}
    source = make_adapter(tmp_path / "a", SHAPES, config={"lora_bias": True, "lora_alpha": 12}, heads=biases)
    for mode, factor in ((Zero(), 0.0), (Scale(0.25), 0.25), (Clip(), 1.0)):
        after = tensors_of(prune_to(source, tmp_path / mode.name, [Q0], mode, bake=True))
        assert set(after[f"{PREFIX}{Q0}.lora_B.bias"]) == {3.0 * factor}
        assert set(after[f"{PREFIX}{V0}.lora_B.bias"]) == {3.0}


@pytest.mark.parametrize(
    ("dtype", "pattern"), [("float32", 0x7F800001), ("bfloat16", 0x7F81), ("float64", 0x7FF << 52 | 1)]
)
def test_a_signalling_nan_in_a_bias_is_an_error_and_no_warning(tmp_path: Path, dtype: str, pattern: int):
    bias = np.ones(SHAPES[Q0][0], dtype_of(dtype))
    bias.view(f"u{bias.itemsize}")[0] = pattern
    heads = {f"{Q0}.lora_B.bias": bias}
    source = make_adapter(tmp_path / "a", SHAPES, config={"lora_bias": True}, heads=heads)
    with pytest.raises(OutputError, match="the new values are not finite"):
        prune_to(source, tmp_path / "b", [Q0], Scale(0.25))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga"])
def test_initialisations_that_change_the_base_are_refused(tmp_path: Path, init: str):
    source = make_adapter(tmp_path / "a", SHAPES, config={"init_lora_weights": init})
    # PEFT makes an ordinary LoRA of all but LoftQ.
    fix = "PEFT has no conversion for it" if init == "loftq" else "path_initial_model_for_weight_conversion"
    for mode in MODES.values():
        with pytest.raises(UnsupportedAdapterError, match=fix):
            attempt(source, [Q0], mode())


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_other_initialisations_are_not(tmp_path: Path, init):
    attempt(make_adapter(tmp_path / "a", SHAPES, config={"init_lora_weights": init}), [Q0])


def test_refusals_of_plans(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    with pytest.raises(SelectionError, match="removes every module"):
        attempt(source, list(SHAPES))
    attempt(source, list(SHAPES), Zero())
    with pytest.raises(NothingToAuditError):
        attempt(source, [])
    with pytest.raises(SelectionError, match="flat=True"):
        attempt(source, [Q0], is_flat=True)
    attempt(source, [Q0], is_flat=True, flat=True)
    with open_adapter(source) as adapter:
        plan = plan_of(scan(adapter), [Q0])
        strange = dataclasses.replace(plan, chosen=(dataclasses.replace(plan.chosen[0], path="model.layers.9.q"),))
        with pytest.raises(SelectionError, match=r"layers\.9"):
            prune(adapter, strange)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("drop", {}, "no mode 'drop'; choose one of remove, zero, clip, scale"),
        ("clip", {"component": 1}, "changes nothing"),
        ("clip", {"component": "2"}, "has no such settings"),
        ("clip", {"factor": 0.5}, "has no setting 'factor'"),
        ("scale", {"factor": 0.0}, "not between 0 and 1"),
        ("scale", {"factor": 1.0}, "not between 0 and 1"),
        ("scale", {"factor": float("nan")}, "not between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_meant(name: str, settings: dict[str, object], says: str):
    with pytest.raises(UsageError, match=says):
        mode_of(name, settings)


def test_an_unknown_loader(tmp_path: Path):
    with pytest.raises(UsageError, match="no loader 'onnx'; choose one of peft, vllm, sglang, llamacpp"):
        attempt(make_adapter(tmp_path / "a", SHAPES), [Q0], loader="onnx")


class Reshaping(Mode):
    name, action = "reshape", "reshaped"

    def apply(self, module: LoraModule) -> tuple[Array, Array]:
        return module.A.array(), module.B.array()[:1]


def test_a_mode_that_changes_the_shape_is_refused(tmp_path: Path):
    """NumPy would repeat the one row."""
    source = make_adapter(tmp_path / "a", SHAPES)
    with open_adapter(source) as adapter:
        pruned = prune(adapter, plan_of(scan(adapter), [Q0]), Reshaping())
        with pytest.raises(OutputError, match="the mode reshape gives B another shape"):
            write_adapter(pruned.rewrite, tmp_path / "out", provenance=lambda _: {})
    assert not (tmp_path / "out").exists()


@dataclasses.dataclass(frozen=True, slots=True)
class Gated(Mode):
    """A repair in small: a gate for each singular direction of each module."""

    name: ClassVar[str] = "gate"
    action: ClassVar[str] = "gated"
    changes: ClassVar[tuple[Side, ...]] = ("B",)
    gates: dict[str, tuple[float, ...]]

    def apply(self, module: LoraModule) -> tuple[Array, Array]:
        a, b = module.A.array(), module.B.array()
        left, _, _ = np.linalg.svd(b @ a, full_matrices=False)
        kept = left[:, : module.rank]
        return a, (kept * self.gates[module.path]) @ (kept.T @ b)


def test_a_mode_may_know_something_of_each_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(MODES, "gate", Gated)
    source = make_adapter(tmp_path / "a", SHAPES)
    gates = {Q0: (0.0, 1.0, 1.0, 1.0), V1: (0.5, 0.5, 1.0, 1.0)}
    before, after = dense(source), dense(prune_to(source, tmp_path / "b", list(gates), Gated(gates)))
    for path, gate in gates.items():
        sigma, wanted = (np.linalg.svd(updates[path], compute_uv=False)[:4] for updates in (before, after))
        assert wanted == pytest.approx(np.sort(sigma * gate)[::-1], rel=1e-5, abs=1e-4)
    assert read_provenance(tmp_path / "b").settings == {"gates": {path: list(gate) for path, gate in gates.items()}}
    restore(tmp_path / "b", source, tmp_path / "c", modules=[Q0])
    partly = dense(tmp_path / "c")
    assert np.array_equal(partly[Q0], before[Q0])
    assert np.array_equal(partly[V1], after[V1])


def refuse(matrix: Array) -> tuple[Array, ...]:
    raise UnsupportedAdapterError("no parts give this matrix", shape=matrix.shape)


def test_a_factor_that_cannot_be_split_is_not_written(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    with open_adapter(source) as adapter:
        first, *others = adapter.modules
        derived = DerivedFactor(first.B.parts, first.B.shape, lambda b: b, refuse)
        adapter = dataclasses.replace(adapter, modules=(dataclasses.replace(first, B=derived), *others))
        measured = scan(adapter)
        with pytest.raises(UnsupportedAdapterError, match="no parts give this matrix"):
            write_pruned(prune(adapter, plan_of(measured, [first.path]), Scale()), measured, tmp_path / "out")
        write_pruned(prune(adapter, plan_of(measured, [others[0].path]), Scale()), measured, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "out"}


def test_baking_needs_a_configuration(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    (source / "adapter_config.json").unlink()
    with pytest.raises(UsageError, match="adapter_config"):
        attempt(source, [Q0], bake=True)
    pruned = attempt(source, [Q0])
    assert any("build these again" in warning for warning in pruned.warnings)  # type: ignore[attr-defined]


def test_formats_whose_loaders_count_get_zeros(tmp_path: Path):
    random = np.random.default_rng(0)
    pairs = {
        f"w_{half}_{i:03d}": random.normal(size=shape).astype(np.float32)
        for i in range(4)
        for half, shape in (("a", (2, 16)), ("b", (16, 2)))
    }
    source = tmp_path / "a"
    source.mkdir()
    write_safetensors(source / "sam.safetensors", pairs)
    after = tensors_of(prune_to(source, tmp_path / "b", ["w_001"]))
    assert set(after) == set(pairs)
    assert [name for name, value in after.items() if not value.any()] == ["w_b_001"]
