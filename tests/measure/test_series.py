"""Comparing several adapters in a row, against their dense updates."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from s3lora import (
    AdapterFileError,
    NothingToAuditError,
    S3LoRAError,
    UsageError,
    checkpoints,
    compare,
    compare_series,
    scan,
)
from s3lora.measure.series import step_of
from tests.hostile import bad_files as bad
from tests.measure.test_compare import relation
from tests.planning import dense, tensors_of
from tests.support import make_adapter, shared, write_safetensors

Q0, V0, Q1 = (f"model.layers.{i}.self_attn.{p}_proj" for i, p in ((0, "q"), (0, "v"), (1, "q")))
SHAPES = {Q0: (48, 32, 4), V0: (24, 32, 4), Q1: (48, 32, 4)}


def run_of(folder: Path, steps: Sequence[int], *, final: bool = False) -> Path:
    """Write the folder of a run with a checkpoint at each step."""
    for seed, step in enumerate(steps):
        make_adapter(folder / f"checkpoint-{step}", SHAPES, seed=seed)
    if final:
        make_adapter(folder, SHAPES, seed=99)
    return folder


def test_against_dense_updates(tmp_path: Path) -> None:
    ranks = (4, 8, 2, 4)
    folders = [
        make_adapter(tmp_path / f"checkpoint-{i}", {path: (m, n, rank) for path, (m, n, _) in SHAPES.items()}, seed=i)
        for i, rank in enumerate(ranks)
    ]
    updates = [dense(folder) for folder in folders]
    scans = [scan(folder) for folder in folders]
    series = compare_series(folders)
    assert [source.name for source in series.sources] == [folder.name for folder in folders]
    assert series.steps == (0, 1, 2, 3)
    assert [module.path for module in series.modules] == [Q0, V0, Q1]
    for module in series.modules:
        dense_updates = [update[module.path] for update in updates]
        steps = [relation(*pair) for pair in pairwise(dense_updates)]
        assert module.distance == pytest.approx([distance for distance, _ in steps], rel=1e-6)
        assert module.cosine == pytest.approx([cosine for _, cosine in steps], abs=1e-9)
        net = relation(dense_updates[0], dense_updates[-1])
        assert (module.net_distance, module.net_cosine) == pytest.approx(net, rel=1e-6, abs=1e-9)
        assert module.frobenius == pytest.approx([np.linalg.norm(update) for update in dense_updates])
        assert module.ssi == tuple(one.module(module.path).indices["ssi"] for one in scans)
        assert module.normalised_ssi == tuple(one.module(module.path).indices["normalised_ssi"] for one in scans)
        assert (module.rank, module.shape) == (ranks, (scans[0].module(module.path).shape,) * 4)
    assert any(warning.startswith("3 of 3 modules change their rank") for warning in series.warnings)


def test_two_are_what_compare_says(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", {**SHAPES, "only.a": (4, 4, 2)}, zero_b=[V0])
    b = make_adapter(tmp_path / "b", {**SHAPES, Q1: (40, 32, 4), "only.b": (4, 4, 2)}, seed=1)
    series, pair = compare_series([a, b], "svd"), compare(a, b, "svd")
    found = {module.path: module for module in series.modules}
    for change in pair.modules:
        module = found.pop(change.path)
        assert (module.ssi, module.frobenius) == (change.ssi, change.frobenius)
        assert (module.distance, module.cosine) == ((change.distance,), (change.cosine,))
        assert (module.net_distance, module.net_cosine) == (change.distance, change.cosine)
    assert set(found) == {*pair.only_a, *pair.only_b, *pair.reshaped}
    assert found["only.a"].frobenius[1] is found["only.b"].ssi[0] is None
    assert (found[Q1].distance, found[Q1].shape) == ((None,), ((48, 32), (40, 32)))
    assert (series.sources, series.configuration, series.steps) == (pair.sources, pair.configuration, (None, None))
    assert [warning.partition(": ")[0] for warning in series.warnings if "zero" in warning] == ["a"]
    assert {"1 of 5 modules change their shape: no distance is known where they do",
            "2 of 5 modules are not in every adapter"} <= set(series.warnings)  # fmt: skip


def test_a_module_that_comes_and_goes(tmp_path: Path) -> None:
    """What is missing or zero in one adapter is so there alone; order is that of the model, not that of the files."""
    held = ([Q0, V0, Q1], [Q0, Q1], [Q0, V0, Q1], [V0, Q1])
    folders = [
        make_adapter(tmp_path / str(i), {path: SHAPES[path] for path in paths}, seed=i, zero_b=[Q1] if i == 1 else [])
        for i, paths in enumerate(held)
    ]
    series = compare_series(folders)
    q0, v0, q1 = series.modules
    assert [module.path for module in series.modules] == [Q0, V0, Q1]
    assert [value is None for value in v0.ssi] == [False, True, False, False]
    assert [value is None for value in v0.distance] == [True, True, False]
    assert v0.net_distance is not None, "the first and the last have it"
    assert q0.net_distance is q0.distance[2] is None
    assert (q1.frobenius[1], q1.ssi[1], q1.rank[1]) == (0.0, None, 4)
    assert (q1.distance[0], q1.distance[1]) == (1.0, None), "it vanished, and then it was new"
    assert "1: 1 of 2 modules are zero updates (B = 0: never trained, or pruned): no index" in series.warnings
    assert "2 of 3 modules are not in every adapter" in series.warnings


def test_other_base_models_are_told(tmp_path: Path) -> None:
    names = ("org/Model-8B", "/models/model-8b/", "C:\\models\\model-8B", None, "org/other")
    folders = [
        make_adapter(tmp_path / str(i), SHAPES, seed=i, config={"base_model_name_or_path": name})
        for i, name in enumerate(names)
    ]
    assert compare_series(folders[:4]).warnings == compare(*folders[:2]).warnings == ()
    (told,) = compare_series(folders[2:]).warnings
    assert told.startswith("the adapters name different base models (model-8B, other): ")
    assert compare(folders[0], folders[4]).warnings == (told.replace("model-8B", "Model-8B"),)


def test_the_order_is_the_one_given(tmp_path: Path) -> None:
    folders = [make_adapter(tmp_path / name, SHAPES, seed=i) for i, name in enumerate(("b", "a", "checkpoint-7"))]
    series = compare_series(folders)
    assert [source.name for source in series.sources] == ["b", "a", "checkpoint-7"]
    assert series.steps == (None, None, 7)
    assert compare_series(folders[::-1]).modules[0].ssi == series.modules[0].ssi[::-1]


def test_progress_is_told_of_every_adapter(tmp_path: Path) -> None:
    folders = [make_adapter(tmp_path / name, SHAPES, seed=i) for i, name in enumerate("abc")]
    told: list[tuple[str, int, int]] = []
    compare_series(folders, progress=lambda name: None if name == "b" else lambda done, n: told.append((name, done, n)))
    assert told == [(name, done, 3) for name in "ac" for done in (1, 2, 3)]


def test_neighbours_with_nothing_in_common(tmp_path: Path) -> None:
    a, b = (make_adapter(tmp_path / name, SHAPES, seed=i) for i, name in enumerate("ab"))
    other = make_adapter(tmp_path / "other", {"elsewhere.k": (8, 8, 2)})
    with pytest.raises(NothingToAuditError, match=r"^b and other have no module in common$"):
        compare_series([a, b, other])
    with pytest.raises(UsageError, match="one adapter is no series"):
        compare_series([a])


def test_the_checkpoints_of_a_run(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", (900, 1000, 50))
    (run / "checkpoint-last").mkdir()
    (run / "checkpoint-77").write_text("no folder")
    (run / "runs").mkdir()
    assert [path.name for path in checkpoints(run)] == ["checkpoint-50", "checkpoint-900", "checkpoint-1000"]
    make_adapter(run, SHAPES)
    assert checkpoints(run)[-1] == run
    assert len(checkpoints(run)) == 4
    assert compare_series(checkpoints(run)).steps == (50, 900, 1000, None)


def test_the_checkpoints_of_mlx() -> None:
    run = shared() / "adapters" / "qwen25-mlx"
    paths = checkpoints(run)
    assert [path.name for path in paths] == ["0000100_adapters.safetensors", "0000200_adapters.safetensors"]
    series = compare_series(paths)
    assert series.steps == (100, 200)
    assert all(0 < distance < 1 for module in series.modules for distance in module.distance if distance is not None)


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match="no such file or folder"):
        checkpoints(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no checkpoints, so there is nothing to compare; give two adapters, or"):
        checkpoints(make_adapter(tmp_path / "adapter", SHAPES))
    with pytest.raises(UsageError, match="holds one checkpoint only"):
        checkpoints(run_of(tmp_path / "run", (5,)))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-0", 0), ("checkpoint-01", 1), ("checkpoint-1500", 1500), ("0000200_adapters.safetensors", 200),
        ("checkpoint-", None), ("checkpoint-1-old", None), ("my-checkpoint-1", None), ("checkpoint--1", None),
        ("adapters.safetensors", None), ("checkpoint-²", None), (f"checkpoint-{'9' * 400}", None), ("", None),
    ],
)  # fmt: skip
def test_steps_in_names(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_one_broken_checkpoint_is_told_before_any_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path / "run", (1, 2, 3))
    shutil.rmtree(run / "checkpoint-2")
    bad.weights(bad.POINTER)(run / "checkpoint-2")
    monkeypatch.setattr("s3lora.measure.series.scan", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(AdapterFileError, match="is a Git LFS pointer") as caught:
        compare_series(checkpoints(run))
    assert caught.value.located().startswith(str(run / "checkpoint-2"))
    assert str(caught.value).endswith(", or name the others to leave it out")
    with pytest.raises(AdapterFileError) as caught:
        compare_series([run / "checkpoint-1", run / "checkpoint-2"])
    assert "name the others" not in str(caught.value), "of two there is no other"


def test_a_checkpoint_that_is_not_finite(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", (1, 2, 3))
    shutil.rmtree(run / "checkpoint-3")
    folder = make_adapter(run / "checkpoint-3", SHAPES)
    tensors = {name: np.full_like(values, np.nan) for name, values in tensors_of(folder).items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    with pytest.raises(S3LoRAError, match="holds NaN or infinity") as caught:
        compare_series(checkpoints(run))
    assert "checkpoint-3" in caught.value.located()
