"""Adapters of lower rank: of each module the nearest update, what that loses, and a configuration that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora import (
    AdapterFileError,
    CostError,
    NonFiniteError,
    OutputError,
    UnsupportedAdapterError,
    UsageError,
    open_adapter,
    read_provenance,
    resize,
)
from s3lora.adapter.digest import source_of
from s3lora.rewrite.provenance import provenance_of
from tests.adapter.test_write import listing
from tests.planning import PREFIX, config_of, tensors_of
from tests.rewrite.repairing import Q0, Q1, SHAPES, V0
from tests.rewrite.wholes import ROUNDING, best, updates
from tests.support import dtype_of, factors, make_adapter, shared, write_safetensors


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"lora_alpha": 3}])
@pytest.mark.parametrize("rank", [1, 3])
def test_each_module_is_the_nearest_of_that_rank(tmp_path: Path, dtype: str, config, rank: int) -> None:
    source = make_adapter(tmp_path / "a", SHAPES, dtype=dtype, config=config)
    record, _ = resize(source, tmp_path / "b", rank=rank)
    before, after = updates(source), updates(tmp_path / "b")
    assert before.keys() == after.keys()
    lost = total = 0.0
    for module in record.modules:
        old, new = before[module.path], after[module.path]
        size = np.linalg.norm(old)
        assert np.linalg.norm(new - best(old, rank)) <= 3 * ROUNDING[dtype] * size
        assert (module.before, module.rank) == (4, rank)
        assert module.error == pytest.approx(np.linalg.norm(old - new) / size, rel=1e-9)
        lost, total = lost + np.linalg.norm(old - new) ** 2, total + size**2
    assert record.error == pytest.approx(np.sqrt(lost / total), rel=1e-9)
    assert record.worst is not None
    assert record.worst.error == max(module.error for module in record.modules)
    with open_adapter(source) as one, open_adapter(tmp_path / "b") as other:
        for old, new in zip(one.modules, other.modules, strict=True):
            assert (new.rank, new.scaling.value) == (rank, old.scaling.value)
            assert new.A.array().dtype == new.B.array().dtype == dtype_of(dtype)


def test_energy_gives_each_module_the_least_rank_that_holds_it(tmp_path: Path) -> None:
    source = spread(tmp_path / "a", {Q0: [9, 1, 0.1, 0.01], V0: [1, 1, 1, 1], Q1: [2, 2, 0, 0]})
    record, _ = resize(source, tmp_path / "b", energy=0.97)
    assert [module.rank for module in record.modules] == [1, 4, 2]
    config = config_of(tmp_path / "b")
    ranks = {path: config["rank_pattern"].get(path, config["r"]) for path in (Q0, V0, Q1)}
    alphas = {path: config["alpha_pattern"].get(path, config["lora_alpha"]) for path in (Q0, V0, Q1)}
    assert ranks == {Q0: 1, V0: 4, Q1: 2}
    assert alphas == {path: 2 * rank for path, rank in ranks.items()}
    before, after = updates(source), updates(tmp_path / "b")
    for path, old in before.items():
        assert 1 - np.linalg.norm(old - after[path]) ** 2 / np.linalg.norm(old) ** 2 >= 0.97
    errors = {module.path: module.error for module in record.modules}
    assert errors[V0] == 0.0
    assert errors[Q1] == pytest.approx(0.0, abs=1e-15)
    assert errors[Q0] == pytest.approx(np.sqrt((1 + 0.01 + 0.0001) / (81 + 1 + 0.01 + 0.0001)), rel=1e-12)


def test_the_whole_energy_drops_nothing_but_rounding(tmp_path: Path) -> None:
    source = spread(tmp_path / "a", {Q0: [9, 1, 1e-7, 0], V0: [1, 1, 1, 1], Q1: [2, 0, 0, 0]})
    record, _ = resize(source, tmp_path / "b", energy=1.0)
    assert [module.rank for module in record.modules] == [3, 4, 1]
    assert record.error == pytest.approx(0.0, abs=1e-14)


def spread(folder: Path, spectra: dict[str, list[float]]) -> Path:
    """Write a float64 adapter of rank 4 whose modules have these singular values, but for the scaling."""
    make_adapter(folder, dict.fromkeys(spectra, (48, 32, 4)), dtype="float64")
    random = np.random.default_rng(3)
    tensors = {}
    for path, sigma in spectra.items():
        left = np.linalg.qr(random.standard_normal((48, 4)))[0]
        right = np.linalg.qr(random.standard_normal((32, 4)))[0]
        tensors[f"{PREFIX}{path}.lora_A.weight"] = right.T
        tensors[f"{PREFIX}{path}.lora_B.weight"] = left * np.asarray(sigma)
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    return folder


def test_a_rank_that_is_there_already_changes_nothing(tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a", {**SHAPES, Q1: (48, 32, 2)}, config={"rank_pattern": {Q1: 2}})
    record, _ = resize(source, tmp_path / "b", rank=9)
    assert record.changed == ()
    assert record.error == 0.0
    assert record.done == "no module changed"
    assert (tmp_path / "b/adapter_config.json").read_text() != ""
    assert {k: v.tobytes() for k, v in tensors_of(tmp_path / "b").items()} == {
        k: v.tobytes() for k, v in tensors_of(source).items()
    }
    assert any("lower rank than 9" in note for note in record.warnings)
    mixed, _ = resize(source, tmp_path / "c", rank=2)
    assert {module.path: module.before for module in mixed.changed} == dict.fromkeys(set(SHAPES) - {Q1}, 4)
    name = f"{PREFIX}{Q1}.lora_A.weight"
    assert tensors_of(tmp_path / "c")[name].tobytes() == tensors_of(source)[name].tobytes()


@pytest.mark.parametrize("how", [{"rank": 2}, {"energy": 0.9}])
def test_zero_modules_stay_zero_and_have_no_error(tmp_path: Path, how) -> None:
    source = make_adapter(tmp_path / "a", SHAPES, zero_b=[Q0])
    record, _ = resize(source, tmp_path / "b", **how)
    zero = next(module for module in record.modules if module.path == Q0)
    assert (zero.rank, zero.error) == (how.get("rank", 1), None)
    assert not updates(tmp_path / "b")[Q0].any()
    assert record.error is not None
    make_adapter(tmp_path / "none", SHAPES, zero_b=SHAPES)
    assert resize(tmp_path / "none", tmp_path / "c", **how)[0].error is None


@given(st.integers(0, 99), st.integers(1, 4), st.sampled_from(["float64", "float32", "bfloat16"]))
def test_it_does_not_depend_on_how_the_update_was_factored(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rank: int, dtype: str
) -> None:
    random = np.random.default_rng(seed)
    a, b = factors(24, 20, 4, dtype="float64", seed=seed)
    turn = np.linalg.qr(random.standard_normal((4, 4)))[0] * random.uniform(0.5, 2, 4)
    nearest = []
    for pair in ((a, b), (turn @ a, b @ np.linalg.inv(turn))):
        folder = tmp_path_factory.mktemp("a")
        source = make_adapter(folder / "a", {Q0: (24, 20, 4)}, dtype=dtype)
        tensors = {
            f"{PREFIX}{Q0}.lora_{side}.weight": one.astype(dtype_of(dtype))
            for side, one in zip("AB", pair, strict=True)
        }
        write_safetensors(source / "adapter_model.safetensors", tensors)
        resize(source, folder / "b", rank=rank)
        nearest.append((updates(folder / "b")[Q0], best(updates(source)[Q0], rank)))
    size = np.linalg.norm(nearest[0][0])
    for made, wanted in nearest:
        assert np.linalg.norm(made - wanted) <= 4 * ROUNDING[dtype] * size
    if dtype == "float64":
        sigma = np.linalg.svd(b @ a, compute_uv=False)
        if rank == 4 or sigma[rank - 1] > 1.01 * sigma[rank]:
            assert np.linalg.norm(nearest[0][0] - nearest[1][0]) <= 1e-10 * size


def test_the_rank_of_one_and_ranks_beyond_the_matrix(tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a", {Q0: (3, 20, 8)}, dtype="float64")
    record, _ = resize(source, tmp_path / "b", rank=5)
    assert record.error == pytest.approx(0.0, abs=1e-14)
    assert tensors_of(tmp_path / "b")[f"{PREFIX}{Q0}.lora_B.weight"].shape == (3, 5)
    assert resize(source, tmp_path / "c", energy=1.0)[0].modules[0].rank == 3
    single = make_adapter(tmp_path / "d", {Q0: (3, 20, 1)})
    assert resize(single, tmp_path / "e", rank=1)[0].changed == ()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "one of rank and energy"),
        ({"rank": 2, "energy": 0.9}, "one of rank and energy"),
        ({"rank": 0}, "rank 0"),
        ({"energy": 0.0}, "0 is no share"),
        ({"energy": 1.5}, "1.5 is no share"),
        ({"energy": float("nan")}, "nan is no share"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, how, words: str) -> None:
    source = make_adapter(tmp_path / "a", SHAPES)
    with pytest.raises(UsageError, match=words):
        resize(source, tmp_path / "b", **how)
    assert not (tmp_path / "b").exists()


def test_dora_and_changed_bases_are_refused(tmp_path: Path) -> None:
    magnitude = {f"{Q0}.lora_magnitude_vector.weight": np.ones(48, np.float32)}
    dora = make_adapter(tmp_path / "dora", SHAPES, config={"use_dora": True}, heads=magnitude)
    with pytest.raises(UnsupportedAdapterError, match="DoRA"):
        resize(dora, tmp_path / "b", rank=2)
    pissa = make_adapter(tmp_path / "pissa", SHAPES, config={"init_lora_weights": "pissa"})
    with pytest.raises(UnsupportedAdapterError, match="pissa"):
        resize(pissa, tmp_path / "b", rank=2)
    assert not (tmp_path / "b").exists()


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a", SHAPES)
    tensors = {name: value.copy() for name, value in tensors_of(source).items()}
    name = f"{PREFIX}{V0}.lora_B.weight"
    tensors[name][0, 0] = np.nan
    write_safetensors(source / "adapter_model.safetensors", tensors)
    with pytest.raises(NonFiniteError, match=V0):
        resize(source, tmp_path / "b", rank=2)
    huge = make_adapter(tmp_path / "c", {Q0: (8, 8, 2)}, dtype="float64")
    write_safetensors(
        huge / "adapter_model.safetensors", {name: 1e200 * value for name, value in tensors_of(huge).items()}
    )
    with pytest.raises(NonFiniteError, match=Q0):
        resize(huge, tmp_path / "b", rank=1)
    assert not (tmp_path / "b").exists()


def test_it_is_whole_or_not_at_all_and_the_same_each_time(tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a", SHAPES, heads={"score.weight": np.ones((2, 32), np.float32)})
    resize(source, tmp_path / "b", rank=2)
    first = listing(tmp_path / "b")
    with pytest.raises(OutputError):
        resize(source, tmp_path / "b", rank=3)
    assert listing(tmp_path / "b") == first
    resize(source, tmp_path / "b", rank=2, force=True)
    assert listing(tmp_path / "b") == first
    assert tensors_of(tmp_path / "b")[f"{PREFIX}score.weight"].tobytes() == np.ones((2, 32), np.float32).tobytes()
    with pytest.raises(CostError):
        resize(source, tmp_path / "c", rank=2, max_cost=10)


def test_its_record_tells_of_it_and_is_not_undone(tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a", SHAPES)
    record, written = resize(source, tmp_path / "b", rank=2)
    assert written.files == record.written
    content = json.loads((tmp_path / "b/s3lora.json").read_text())
    assert (content["kind"], content["rank"], content["energy"]) == ("resize", 2, None)
    assert [module["rank"] for module in content["modules"]] == [2] * 4
    with pytest.raises(AdapterFileError, match="resized, which cannot be undone"):
        read_provenance(tmp_path / "b")
    with open_adapter(tmp_path / "b") as adapter:
        assert provenance_of(source_of(adapter), tmp_path / "b") == record
    with pytest.raises(AdapterFileError, match="tells of other weights"):
        provenance_of(record.source, tmp_path / "b")


@pytest.mark.parametrize("loader", ["vllm", "sglang", "llamacpp"])
@pytest.mark.parametrize("bake", [False, True])
def test_other_loaders(tmp_path: Path, loader: str, bake: bool) -> None:
    source = make_adapter(tmp_path / "a", SHAPES, dtype="float64", config={"lora_alpha": 6})
    resize(source, tmp_path / "b", rank=2, loader=loader, bake=bake)
    before, after = updates(source), updates(tmp_path / "b")
    for path, old in before.items():
        assert np.allclose(after[path], best(old, 2), rtol=0, atol=1e-12 * np.linalg.norm(old))


@pytest.mark.parametrize("case", ["mlx_npz", "mlx_vlm", "kohya_split_qkv", "torchtune_pt", "a_in_by_r.pt"])
def test_other_formats_keep_their_scaling(tmp_path: Path, case: str) -> None:
    source = shared() / "cases" / case
    resize(source, tmp_path / "b", rank=1)
    after = updates(tmp_path / "b")
    for path, old in updates(source).items():
        assert np.linalg.norm(after[path] - best(old, 1)) <= 3 * ROUNDING["float32"] * np.linalg.norm(old)


def test_experts_with_an_update_each_keep_one_rank(tmp_path: Path) -> None:
    """Loaders of today stack them, and take `r` and `lora_alpha` of the configuration for all."""
    shapes = {
        f"model.layers.{i}.mlp.experts.{e}.{name}": (16, 12, 8)
        for i in range(2)
        for e in range(3)
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    shapes |= {f"model.layers.{i}.self_attn.{name}": (12, 12, 8) for i in range(30) for name in ("q_proj", "v_proj")}
    source = make_adapter(tmp_path / "a", shapes)
    with pytest.raises(UnsupportedAdapterError, match="which newer loaders stack, and these would have ranks"):
        resize(source, tmp_path / "no", energy=0.8)
    config = {"rank_pattern": {"q_proj": 2, "v_proj": 2}, "alpha_pattern": {"q_proj": 1, "v_proj": 1}}
    smaller = {path: (m, n, 2 if "self_attn" in path else 8) for path, (m, n, _) in shapes.items()}
    resize(make_adapter(tmp_path / "b", smaller, config={"r": 8, **config}), tmp_path / "out", rank=4)
    made = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (made["r"], made["lora_alpha"]) == (4, 8)
    assert all("self_attn" in name for name in made["rank_pattern"])
