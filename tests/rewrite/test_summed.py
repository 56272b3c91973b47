"""The sum of adapters as an adapter: exact but for one rounding, whatever their ranks, scalings and types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from s3lora import (
    AdapterFileError,
    CostError,
    NonFiniteError,
    OutputError,
    UnsupportedAdapterError,
    UsageError,
    open_adapter,
    read_provenance,
    write_sum,
)
from tests.adapter.test_write import listing
from tests.command import call
from tests.planning import PREFIX, config_of, tensors_of
from tests.rewrite.repairing import Q0, Q1, SHAPES, V0, V1
from tests.rewrite.wholes import ROUNDING, best, updates
from tests.support import make_adapter, shared, write_safetensors

LESS = {Q0: (48, 32, 2), V1: (24, 32, 2)}


def added(*folders: Path, weights: tuple[float, ...]) -> dict[str, np.ndarray]:
    total: dict[str, np.ndarray] = {}
    for folder, weight in zip(folders, weights, strict=True):
        for path, update in updates(folder).items():
            total[path] = total.get(path, 0) + weight * update
    return total


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -0.3)])
@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"alpha_pattern": {Q0: 5}}])
def test_the_sum_is_exact_but_for_one_rounding(tmp_path: Path, dtype: str, weights, config) -> None:
    a = make_adapter(tmp_path / "a", SHAPES, dtype=dtype, config=config)
    b = make_adapter(tmp_path / "b", LESS, dtype=dtype, seed=1)
    record = write_sum([a, b], tmp_path / "out", weights)
    wanted, made = added(a, b, weights=weights), updates(tmp_path / "out")
    assert wanted.keys() == made.keys()
    for module in record.modules:
        size = np.linalg.norm(wanted[module.path])
        assert np.linalg.norm(made[module.path] - wanted[module.path]) <= ROUNDING[dtype] * size
        assert module.error is not None
        assert module.error <= ROUNDING[dtype]
    assert {module.path: module.rank for module in record.modules} == {Q0: 6, V0: 4, Q1: 4, V1: 6}
    assert {module.path: module.ranks for module in record.modules}[V0] == (4, None)


def test_one_scaling_leaves_every_number_as_it_is(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", SHAPES, dtype="bfloat16", config={"lora_alpha": 3})
    b = make_adapter(tmp_path / "b", SHAPES, dtype="bfloat16", seed=1, config={"lora_alpha": 3})
    record = write_sum([a, b], tmp_path / "out")
    assert record.error == pytest.approx(0.0, abs=1e-15)
    first, second, both = (tensors_of(folder) for folder in (a, b, tmp_path / "out"))
    for name, value in both.items():
        whole = np.concatenate([first[name], second[name]], axis=0 if ".lora_A." in name else 1)
        assert value.tobytes() == whole.tobytes()
    assert (config_of(tmp_path / "out")["r"], config_of(tmp_path / "out")["lora_alpha"]) == (8, 6)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0)])
def test_a_sum_that_is_resized_is_the_nearest(tmp_path: Path, weights) -> None:
    a = make_adapter(tmp_path / "a", SHAPES, dtype="float64")
    b = make_adapter(tmp_path / "b", SHAPES, dtype="float64", seed=1)
    record = write_sum([a, b], tmp_path / "out", weights, rank=3)
    made = updates(tmp_path / "out")
    lost = total = 0.0
    for path, whole in added(a, b, weights=weights).items():
        assert np.linalg.norm(made[path] - best(whole, 3)) <= 1e-12 * np.linalg.norm(whole)
        lost, total = lost + np.linalg.norm(whole - made[path]) ** 2, total + np.linalg.norm(whole) ** 2
    assert record.error == pytest.approx(np.sqrt(lost / total), rel=1e-9)
    assert {module.rank for module in record.modules} == {3}
    energetic = write_sum([a, a], tmp_path / "same", energy=1.0)
    assert {module.rank for module in energetic.modules} == {4}, "an adapter added to itself has its own rank"
    assert energetic.error == pytest.approx(0.0, abs=1e-12)


def test_types_that_differ_get_one_that_holds_both(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", SHAPES, dtype="bfloat16")
    b = make_adapter(tmp_path / "b", SHAPES, dtype="float16", seed=1)
    record = write_sum([a, b], tmp_path / "out")
    assert {value.dtype.name for value in tensors_of(tmp_path / "out").values()} == {"float32"}
    assert record.error == pytest.approx(0.0, abs=1e-15)


def test_zero_updates_and_weights(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", SHAPES, zero_b=[Q0])
    record = write_sum([a, a], tmp_path / "out", [1.0, 0.0])
    assert {module.path: module.rank for module in record.modules} == dict.fromkeys(SHAPES, 4)
    assert {module.path: module.error for module in record.modules}[Q0] is None
    assert not updates(tmp_path / "out")[Q0].any()
    gone = write_sum([a, a], tmp_path / "none", [1.0, -1.0])
    assert gone.error is None
    with pytest.raises(UsageError, match="all weights 0"):
        write_sum([a, a], tmp_path / "nothing", [0.0, 0.0])


def test_layers_that_the_base_repeats_stay_so(tmp_path: Path) -> None:
    repeated = {"layer_replication": [[0, 1], [0, 1]]}
    a = make_adapter(tmp_path / "a", SHAPES, config=repeated)
    b = make_adapter(tmp_path / "b", SHAPES, seed=1, config=repeated)
    plain = make_adapter(tmp_path / "plain", SHAPES, seed=2)
    write_sum([a, b], tmp_path / "out")
    assert config_of(tmp_path / "out")["layer_replication"] == [[0, 1], [0, 1]]
    with pytest.raises(UnsupportedAdapterError, match="plain: repeats other layers of its base than a"):
        write_sum([a, plain], tmp_path / "no")


def test_what_does_not_add_up_is_refused(tmp_path: Path) -> None:
    plain = make_adapter(tmp_path / "plain", SHAPES)
    magnitude = {f"{Q0}.lora_magnitude_vector.weight": np.ones(48, np.float32)}
    heads = {"score.weight": np.ones((2, 32), np.float32)}
    others = {
        "DoRA": make_adapter(tmp_path / "a", SHAPES, config={"use_dora": True}, heads=magnitude),
        "olora": make_adapter(tmp_path / "b", SHAPES, config={"init_lora_weights": "olora"}),
        "aLoRA": make_adapter(tmp_path / "c", SHAPES, config={"alora_invocation_tokens": [1, 2]}),
        "no LoRA": make_adapter(tmp_path / "d", SHAPES, heads=heads),
        "does not add up with": make_adapter(tmp_path / "e", {Q0: (47, 32, 4)}),
    }
    for words, other in others.items():
        with pytest.raises(UnsupportedAdapterError, match=words):
            write_sum([plain, other], tmp_path / "out")
    bias = {f"{Q0}.lora_B.bias": np.ones(48, np.float32)}
    biased = make_adapter(tmp_path / "f", SHAPES, config={"lora_bias": True}, heads=bias)
    with pytest.raises(UnsupportedAdapterError, match="trained bias"):
        write_sum([plain, biased], tmp_path / "out")
    table = {"lora_embedding_A": np.ones((4, 50), np.float32), "lora_embedding_B": np.ones((16, 4), np.float32)}
    embedded = make_adapter(
        tmp_path / "h", SHAPES, heads={f"model.embed_tokens.{name}": value for name, value in table.items()}
    )
    with pytest.raises(UnsupportedAdapterError, match=r"embed_tokens .*is an embedding.*prune PATH --only 'embed_"):
        write_sum([plain, embedded], tmp_path / "out")
    tensors = {name: value.copy() for name, value in tensors_of(plain).items()}
    tensors[f"{PREFIX}{V0}.lora_A.weight"][0, 0] = np.inf
    bad = make_adapter(tmp_path / "g", SHAPES)
    write_safetensors(bad / "adapter_model.safetensors", tensors)
    with pytest.raises(NonFiniteError, match=V0):
        write_sum([plain, bad], tmp_path / "out")
    with pytest.raises(CostError):
        write_sum([plain, plain], tmp_path / "out", max_cost=10)
    assert not (tmp_path / "out").exists()


def test_it_is_whole_or_not_at_all_and_the_same_each_time(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", SHAPES)
    b = make_adapter(tmp_path / "b", LESS, seed=1)
    write_sum([a, b], tmp_path / "out")
    first = listing(tmp_path / "out")
    with pytest.raises(OutputError):
        write_sum([a, b], tmp_path / "out", [1, 2])
    with pytest.raises(OutputError):
        write_sum([a, b], a / "inside", force=True)
    assert listing(tmp_path / "out") == first
    write_sum([a, b], tmp_path / "out", force=True)
    assert listing(tmp_path / "out") == first
    content = json.loads((tmp_path / "out/s3lora.json").read_text())
    assert (content["kind"], len(content["sources"]), content["weights"]) == ("sum", 2, [1.0, 1.0])
    with pytest.raises(AdapterFileError, match="cannot be undone"):
        read_provenance(tmp_path / "out")


def test_targets_are_paths_where_names_would_reach_further(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", SHAPES)
    b = make_adapter(tmp_path / "b", LESS, seed=1)
    write_sum([a, b], tmp_path / "short")
    assert config_of(tmp_path / "short")["target_modules"] == ["q_proj", "v_proj"]
    c = make_adapter(tmp_path / "c", {Q0: (48, 32, 4)}, config={"exclude_modules": [Q1]})
    d = make_adapter(tmp_path / "d", {V0: (24, 32, 4)}, config={"target_modules": ".*0.*v_proj"})
    for i, pair in enumerate(([c, d], [c, c], [d, d])):
        write_sum(pair, tmp_path / f"long{i}")
        with open_adapter(tmp_path / f"long{i}") as adapter:
            assert config_of(tmp_path / f"long{i}")["target_modules"] == [module.path for module in adapter.modules]


def test_a_sum_of_zeros_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_adapter(tmp_path / "a", SHAPES)
    result = call(capsys, "compose", source, source, "--weights", "1,-1", "-o", tmp_path / "out")
    assert result.status == 0
    assert "every update of the sum is zero" in result.out


def test_the_case_of_two_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (shared() / "cases" / name for name in ("p_cA", "p_cB"))
    result = call(capsys, "compose", a, b, "-o", tmp_path / "out")
    assert result.status == 0
    assert "differs from the exact sum by" in result.out
    made = updates(tmp_path / "out")
    for path, whole in added(a, b, weights=(1, 1)).items():
        assert np.linalg.norm(made[path] - whole) <= ROUNDING["float32"] * np.linalg.norm(whole)


def test_options_that_need_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = make_adapter(tmp_path / "a", SHAPES)
    for given in (("--rank", "2"), ("--energy", "99%"), ("--force",)):
        result = call(capsys, "compose", a, a, *given)
        assert (result.status, result.out) == (2, "")
        assert "do nothing without -o" in result.err


def test_an_adapter_of_weight_0_has_no_say_in_the_configuration(tmp_path: Path) -> None:
    """PEFT would build the projections that it names, which the sum has nothing of."""
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4)}, config={"target_modules": ["q_proj"]})
    b = make_adapter(tmp_path / "b", {V0: (24, 32, 4)}, config={"target_modules": ["v_proj"]})
    write_sum([a, b], tmp_path / "out", [1.0, 0.0])
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["target_modules"] == ["q_proj"]


@pytest.mark.parametrize("weights", [(1e-6, 3e-6), (-1e-6, 1e-6), (1e5, 1e6)])
def test_small_and_large_weights_do_not_leave_half_precision(tmp_path: Path, weights: tuple[float, float]) -> None:
    a = make_adapter(tmp_path / "a", SHAPES, dtype="float16")
    b = make_adapter(tmp_path / "b", SHAPES, dtype="float16", seed=1)
    record = write_sum([a, b], tmp_path / "out", weights)
    assert record.error is not None
    assert record.error < 2 * ROUNDING["float16"]
    wanted, made = added(a, b, weights=weights), updates(tmp_path / "out")
    assert all(np.allclose(made[path], wanted[path], atol=1e-3 * np.abs(wanted[path]).max()) for path in wanted)


@pytest.mark.parametrize("weight", [1e-7, -1e-300, 1e7])
def test_a_weight_that_no_sum_holds_is_refused(tmp_path: Path, weight: float) -> None:
    a = make_adapter(tmp_path / "a", SHAPES)
    with pytest.raises(UsageError, match="is not written; give 0, or 1e-06 to 1e"):
        write_sum([a, a], tmp_path / "out", [1.0, weight])


def test_a_module_that_would_vanish_beside_others_is_not_lost_in_silence(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4)}, dtype="float16")
    b = make_adapter(tmp_path / "b", {V0: (24, 32, 4)}, dtype="float16", seed=1)
    with pytest.raises(OutputError, match="does not fit into float16"):
        write_sum([a, b], tmp_path / "out", [1e4, 1e-6])
