"""Comparing adapters, two and more, against their dense updates."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import (
    Adapter,
    AdapterFileError,
    Comparison,
    NothingToAuditError,
    S3LoRAError,
    UsageError,
    checkpoints,
    compare,
    open_adapter,
    scan,
)
from s3lora.measure import comparison as measured
from tests.hostile import bad_files as bad
from tests.planning import dense, tensors_of
from tests.support import factors, make_adapter, shared, write_safetensors

Q0, V0, Q1 = (f"model.layers.{i}.self_attn.{p}_proj" for i, p in ((0, "q"), (0, "v"), (1, "q")))
SHAPES = {Q0: (48, 32, 4), V0: (24, 32, 4), Q1: (48, 32, 4)}


def run_of(folder: Path, count: int) -> Path:
    """Write the folder of a run with so many checkpoints."""
    for i in range(count):
        make_adapter(folder / f"checkpoint-{i + 1}", SHAPES, seed=i)
    return folder


def relation(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return (distance, cosine) of two dense updates."""
    norms = np.linalg.norm(first), np.linalg.norm(second)
    return float(np.linalg.norm(second - first) / norms[0]), float(np.sum(first * second) / (norms[0] * norms[1]))


def check(folders: Sequence[Path]) -> Comparison:
    """Compare every module with the dense updates."""
    updates = [dense(folder) for folder in folders]
    scans = [scan(folder) for folder in folders]
    found = compare(folders)
    assert [source.name for source in found.sources] == [folder.name for folder in folders]
    for module in found.modules:
        own = [update[module.path] for update in updates]
        steps = [relation(*pair) for pair in pairwise(own)]
        assert module.distance == pytest.approx([distance for distance, _ in steps], rel=1e-6, abs=1e-7)
        assert module.cosine == pytest.approx([cosine for _, cosine in steps], abs=1e-9)
        net = relation(own[0], own[-1])
        assert module.net_distance == pytest.approx(net[0], rel=1e-6, abs=1e-7)
        assert module.net_cosine == pytest.approx(net[1], abs=1e-9)
        assert module.frobenius == pytest.approx([np.linalg.norm(update) for update in own], rel=1e-9)
        assert module.ssi == tuple(one[module.path].indices["ssi"] for one in scans)
        assert module.normalised_ssi == tuple(one[module.path].indices["normalised_ssi"] for one in scans)
        assert module.shape == (own[0].shape,) * len(folders)
    return found


def test_against_dense_updates_of_other_ranks(tmp_path: Path) -> None:
    ranks = (4, 8, 2, 4)
    folders = [
        make_adapter(tmp_path / f"checkpoint-{i}", {path: (m, n, rank) for path, (m, n, _) in SHAPES.items()}, seed=i)
        for i, rank in enumerate(ranks)
    ]
    found = check(folders)
    assert found.steps == (0, 1, 2, 3)
    assert [module.path for module in found.modules] == [Q0, V0, Q1]
    assert [module.rank for module in found.modules] == [ranks] * 3
    assert any(warning.startswith("3 of 3 modules change their rank") for warning in found.warnings)


def test_against_dense_updates_of_other_scalings(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4), V0: (24, 32, 4), Q1: (5000, 32, 4)})
    b = make_adapter(
        tmp_path / "b", {Q0: (48, 32, 8), V0: (24, 32, 8), Q1: (5000, 32, 8)}, seed=1, config={"use_rslora": True}
    )
    found = check([a, b])
    assert [module.path for module in found.modules] == [Q0, V0, Q1]
    assert found.steps == (None, None)
    assert found[V0] is found.modules[1]
    with pytest.raises(KeyError):
        found["elsewhere"]


def test_a_small_step_of_training(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    b = make_adapter(tmp_path / "b", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    tensors = {name: value * 1.001 if "lora_B" in name else value for name, value in tensors_of(b).items()}
    write_safetensors(b / "adapter_model.safetensors", tensors)
    found = check([a, b])
    assert [module.net_distance for module in found.modules] == pytest.approx([0.001] * 2, rel=1e-3)


def test_the_same_update_in_other_factors(tmp_path: Path) -> None:
    """ΔW decides, not the factors: B·G and G⁻¹·A are the same update, −B·A the opposite one."""
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    b = make_adapter(tmp_path / "b", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    tensors = dict(tensors_of(b))
    gauge = np.diag([2.0, 4.0, 0.5, 8.0]).astype(np.float32)  # exact
    names = [f"base_model.model.{Q0}.lora_{letter}.weight" for letter in "AB"]
    tensors[names[0]], tensors[names[1]] = np.linalg.inv(gauge) @ tensors[names[0]], tensors[names[1]] @ gauge
    tensors[f"base_model.model.{Q1}.lora_A.weight"] *= -1
    write_safetensors(b / "adapter_model.safetensors", tensors)
    same, opposite = compare([a, b]).modules
    assert same.distance == pytest.approx((0.0,), abs=1e-7)
    assert same.cosine == pytest.approx((1.0,))
    assert (opposite.net_distance, opposite.net_cosine) == pytest.approx((2.0, -1.0))
    for module in compare([a, a]).modules:
        assert (module.distance, module.cosine) == ((0.0,), (1.0,))


def test_zero_updates(tmp_path: Path) -> None:
    shapes = dict.fromkeys((Q0, V0, Q1), (8, 8, 2))
    a = make_adapter(tmp_path / "a", shapes, zero_b=[Q0, Q1])
    b = make_adapter(tmp_path / "b", shapes, zero_b=[V0, Q1], seed=1)
    found = compare([a, b])
    assert {module.path: (module.net_distance, module.net_cosine) for module in found.modules} == {
        Q0: (None, None), V0: (1.0, None), Q1: (None, None),
    }  # fmt: skip
    assert found[Q1].frobenius == (0.0, 0.0)
    assert any(warning.startswith("both: 2 of 3 modules are zero updates") for warning in found.warnings)


def test_what_not_all_have(tmp_path: Path) -> None:
    other = "model.layers.2.self_attn.q_proj"
    a = make_adapter(tmp_path / "a", {Q0: (8, 8, 2), V0: (8, 8, 2), Q1: (8, 8, 2)}, zero_b=[V0])
    b = make_adapter(tmp_path / "b", {Q0: (8, 8, 2), V0: (8, 6, 2), other: (8, 8, 2)})
    found = compare([a, b], "svd")
    assert [module.path for module in found.modules] == [Q0, V0, Q1, other]
    assert (found.only, found.reshaped) == (((Q1,), (other,)), (V0,))
    assert found[Q1].shape == ((8, 8), None)
    assert found[Q1].frobenius[1] is found[other].ssi[0] is None
    reshaped = found[V0]
    assert (reshaped.shape, reshaped.distance, reshaped.net_cosine) == (((8, 8), (8, 6)), (None,), None)
    assert (found.configuration.method, found.sources) == ("svd", (scan(a).source, scan(b).source))
    assert [warning.partition(": ")[0] for warning in found.warnings] == ["a"]
    third = make_adapter(tmp_path / "third", {Q0: (8, 8, 2), Q1: (8, 8, 2)}, seed=1)
    found = compare([a, b, third])
    assert (found.only, found.reshaped) == (((), (other,), ()), (V0,)), "the first and the last have the other"


@pytest.mark.parametrize("size", [1e-75, 1e140])
def test_extreme_sizes(tmp_path: Path, size: float) -> None:
    folders = []
    for name, seed in (("a", 0), ("b", 1)):
        folder = make_adapter(tmp_path / name, {Q0: (8, 8, 2)})
        pairs = zip("AB", factors(8, 8, 2, dtype="float64", seed=seed), strict=True)
        tensors = {f"base_model.model.{Q0}.lora_{k}.weight": v * (size if k == "B" else 1.0) for k, v in pairs}
        write_safetensors(folder / "adapter_model.safetensors", tensors)
        folders.append(folder)
    first, second = (dense(folder)[Q0] / size for folder in folders)
    (module,) = compare(folders).modules
    assert (module.net_distance, module.net_cosine) == pytest.approx(relation(first, second))


def test_a_module_that_comes_and_goes(tmp_path: Path) -> None:
    """What is missing or zero in one adapter is so there alone; order is that of the model, not that of the files."""
    held = ([Q0, V0, Q1], [Q0, Q1], [Q0, V0, Q1], [V0, Q1])
    folders = [
        make_adapter(tmp_path / str(i), {path: SHAPES[path] for path in paths}, seed=i, zero_b=[Q1] if i == 1 else [])
        for i, paths in enumerate(held)
    ]
    found = compare(folders)
    q0, v0, q1 = found.modules
    assert [module.path for module in found.modules] == [Q0, V0, Q1]
    assert [value is None for value in v0.ssi] == [False, True, False, False]
    assert [value is None for value in v0.distance] == [True, True, False]
    assert v0.net_distance is not None, "the first and the last have it"
    assert q0.net_distance is q0.distance[2] is None
    assert (q1.frobenius[1], q1.ssi[1], q1.rank[1]) == (0.0, None, 4)
    assert (q1.distance[0], q1.distance[1]) == (1.0, None), "it vanished, and then it was new"
    assert "1: 1 of 2 modules are zero updates (B = 0: never trained, or pruned): no index" in found.warnings
    assert found.only == ((), (), (), ())


def test_other_base_models_are_told(tmp_path: Path) -> None:
    names = ("org/Model-8B", "/models/model-8b/", "C:\\models\\model-8B", None, "org/other")
    folders = [
        make_adapter(tmp_path / str(i), SHAPES, seed=i, config={"base_model_name_or_path": name})
        for i, name in enumerate(names)
    ]
    assert compare(folders[:4]).warnings == compare(folders[:2]).warnings == ()
    (told,) = compare(folders[2:]).warnings
    assert told.startswith("the adapters name different base models (model-8B, other): ")
    assert compare([folders[0], folders[4]]).warnings == (told.replace("model-8B", "Model-8B"),)


def test_the_order_is_the_one_given(tmp_path: Path) -> None:
    folders = [make_adapter(tmp_path / name, SHAPES, seed=i) for i, name in enumerate(("b", "a", "checkpoint-7"))]
    found = compare(folders)
    assert [source.name for source in found.sources] == ["b", "a", "checkpoint-7"]
    assert found.steps == (None, None, 7)
    assert compare(folders[::-1]).modules[0].ssi == found.modules[0].ssi[::-1]


def test_progress_is_told_of_every_adapter(tmp_path: Path) -> None:
    folders = [make_adapter(tmp_path / name, SHAPES, seed=i) for i, name in enumerate("abc")]
    told: list[tuple[str, int, int]] = []
    compare(folders, progress=lambda name: None if name == "b" else lambda done, n: told.append((name, done, n)))
    assert told == [(name, done, 3) for name in "ac" for done in (1, 2, 3)]


def test_neighbours_with_nothing_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (make_adapter(tmp_path / name, SHAPES, seed=i) for i, name in enumerate("ab"))
    other = make_adapter(tmp_path / "other", {"elsewhere.k": (8, 8, 2)})
    monkeypatch.setattr(measured, "scan", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(NothingToAuditError, match=r"^b and other have no module in common$"):
        compare([a, b, other])
    with pytest.raises(NothingToAuditError, match=r"^other and a have no module in common$"):
        compare([other, a])


@pytest.mark.parametrize("paths", [[], ["a"]])
def test_one_adapter_is_no_comparison(paths: Any) -> None:
    with pytest.raises(UsageError, match=r"^one adapter is no comparison; give two or more, as a list of paths$"):
        compare(paths)


@pytest.mark.parametrize("paths", ["ab", Path("ab")])
def test_a_path_is_no_list_of_paths(paths: Any) -> None:
    with pytest.raises(UsageError, match=r"^compare: paths must be a list, each item "):
        compare(paths)


class Watch:
    """Counts what is opened, closed and measured; everything happens as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.scanned: list[str] = []
        self.open: set[int] = set()
        self.most = 0
        close = Adapter.close

        def open_one(path: Any, picked: str | None) -> Adapter:
            adapter = open_adapter(path, picked)
            self.opened.append(adapter.name)
            self.open.add(id(adapter))
            return adapter

        def close_one(adapter: Adapter) -> None:
            self.open.discard(id(adapter))
            close(adapter)

        def scan_one(adapter: Adapter, *arguments: Any, **named: Any) -> Any:
            self.scanned.append(adapter.name)
            self.most = max(self.most, len(self.open))
            return scan(adapter, *arguments, **named)

        monkeypatch.setattr(measured, "open_adapter", open_one)
        monkeypatch.setattr(measured, "scan", scan_one)
        monkeypatch.setattr(Adapter, "close", close_one)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_each_adapter_is_opened_and_measured_once(tmp_path: Path, monkeypatch: Any, count: int) -> None:
    paths = checkpoints(run_of(tmp_path, count))
    watch = Watch(monkeypatch)
    compare(paths)
    assert watch.opened == watch.scanned == [path.name for path in paths]
    assert not watch.open


@pytest.mark.parametrize("value", [1, 4])
def test_no_more_stay_open_than_the_bound_allows(tmp_path: Path, monkeypatch: Any, value: int) -> None:
    paths = checkpoints(run_of(tmp_path, 9))
    whole = compare(paths)
    monkeypatch.setattr(measured, "OPEN_FILES", value)
    watch = Watch(monkeypatch)
    kept = max(value, measured.AT_ONCE)
    assert compare(paths) == whole
    assert (watch.most, len(watch.scanned)) == (kept, 9)
    assert watch.opened == [path.name for path in (*paths, *paths[kept:])]
    assert not watch.open
    monkeypatch.setattr(measured, "scan", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare(paths)
    assert not watch.open, "an error closes them too"


def test_the_checkpoints_of_a_run() -> None:
    found = compare(checkpoints(shared() / "adapters" / "qwen25-mlx"))
    assert found.steps == (100, 200)
    assert found.modules
    assert (found.only, found.reshaped) == (((), ()), ())
    moved = [module for module in found.modules if module.net_distance is not None]
    assert all(0 < (module.net_distance or 0) < 1 and 0.5 < (module.net_cosine or 0) < 1 for module in moved)


def test_one_broken_checkpoint_is_told_before_any_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path / "run", 3)
    shutil.rmtree(run / "checkpoint-2")
    bad.weights(bad.POINTER)(run / "checkpoint-2")
    watch = Watch(monkeypatch)
    monkeypatch.setattr(measured, "scan", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(AdapterFileError, match="is a Git LFS pointer") as caught:
        compare(checkpoints(run))
    assert caught.value.located().startswith(str(run / "checkpoint-2"))
    assert (watch.opened, watch.open) == (["checkpoint-1"], set()), "and none stays open"
    assert str(caught.value).endswith(", or name the others to leave it out")
    with pytest.raises(AdapterFileError) as caught:
        compare([run / "checkpoint-1", run / "checkpoint-2"])
    assert "name the others" not in str(caught.value), "of two there is no other"


def test_a_checkpoint_that_is_not_finite(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 3)
    shutil.rmtree(run / "checkpoint-3")
    folder = make_adapter(run / "checkpoint-3", SHAPES)
    tensors = {name: np.full_like(values, np.nan) for name, values in tensors_of(folder).items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    with pytest.raises(S3LoRAError, match="holds NaN or infinity") as caught:
        compare(checkpoints(run))
    assert "checkpoint-3" in caught.value.located()


@pytest.mark.parametrize("changed", ["checkpoint-1", "checkpoint-2"])
def test_a_file_that_changes_after_it_was_measured_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """And no distance between what was hashed and something else."""
    folder = run_of(tmp_path / "run", 2)
    related = measured.related

    def meanwhile(*of: Any) -> Any:
        weights = folder / changed / bad.WEIGHTS
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        with weights.open("r+b") as file:
            file.write(content)
        return related(*of)

    monkeypatch.setattr(measured, "related", meanwhile)
    with pytest.raises(AdapterFileError, match="was changed while it was read") as error:
        compare(checkpoints(folder))
    assert changed in error.value.located()


def test_the_smallest_change_of_one_number_is_a_change_and_rounding_is_none(tmp_path: Path) -> None:
    path = "model.layers.0.self_attn.q_proj"
    a, b = factors(16, 12, 4)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    moved = b.copy()
    moved[0, 0] = np.nextafter(moved[0, 0], np.float32(9))
    for name, (one, other) in {
        "first": (a.astype(np.float64), b.astype(np.float64)),
        "turned": (turn @ a, b @ turn.T),
        "moved": (a, moved),
    }.items():
        make_adapter(tmp_path / name, {path: (16, 12, 4)}, dtype="float64")
        tensors = {f"base_model.model.{path}.lora_A.weight": one, f"base_model.model.{path}.lora_B.weight": other}
        write_safetensors(tmp_path / name / "adapter_model.safetensors", tensors)
    (same,) = compare([tmp_path / "first", tmp_path / "turned"]).modules
    assert same.distance == (0.0,)
    (other_,) = compare([tmp_path / "first", tmp_path / "moved"]).modules
    exact = np.linalg.norm(moved.astype(np.float64) @ a - b.astype(np.float64) @ a) / np.linalg.norm(b @ a)
    assert 0 < exact < 1e-6
    assert other_.distance == pytest.approx((exact,), rel=1e-6)
