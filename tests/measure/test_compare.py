"""Comparing two adapters, against their dense updates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s3lora import NothingToAuditError, compare, scan
from tests.planning import dense, tensors_of
from tests.support import factors, make_adapter, shared, write_safetensors

Q0, V0, Q1 = (f"model.layers.{i}.self_attn.{p}_proj" for i, p in ((0, "q"), (0, "v"), (1, "q")))


def relation(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return (distance, cosine) of two dense updates."""
    norms = np.linalg.norm(first), np.linalg.norm(second)
    return float(np.linalg.norm(second - first) / norms[0]), float(np.sum(first * second) / (norms[0] * norms[1]))


def check(a: Path, b: Path) -> None:
    """Compare every module with the dense updates."""
    updates = dense(a), dense(b)
    for change in compare(a, b).modules:
        first, second = (update[change.path] for update in updates)
        distance, cosine = relation(first, second)
        assert change.distance == pytest.approx(distance, rel=1e-6, abs=1e-7)
        assert change.cosine == pytest.approx(cosine, abs=1e-9)
        assert change.frobenius == pytest.approx((np.linalg.norm(first), np.linalg.norm(second)), rel=1e-9)


def test_against_dense_updates_of_other_ranks_and_scalings(tmp_path: Path):
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4), V0: (24, 32, 4), Q1: (5000, 32, 4)})
    b = make_adapter(
        tmp_path / "b", {Q0: (48, 32, 8), V0: (24, 32, 8), Q1: (5000, 32, 8)}, seed=1, config={"use_rslora": True}
    )
    check(a, b)
    result = compare(a, b)
    assert [change.path for change in result.modules] == [Q0, V0, Q1]
    assert [source.name for source in result.sources] == ["a", "b"]
    assert result.modules[0].ssi == (scan(a).module(Q0).indices["ssi"], scan(b).module(Q0).indices["ssi"])


def test_a_small_step_of_training(tmp_path: Path):
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    b = make_adapter(tmp_path / "b", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    tensors = {name: value * 1.001 if "lora_B" in name else value for name, value in tensors_of(b).items()}
    write_safetensors(b / "adapter_model.safetensors", tensors)
    check(a, b)
    assert [change.distance for change in compare(a, b).modules] == pytest.approx([0.001] * 2, rel=1e-3)


def test_the_same_update_in_other_factors(tmp_path: Path):
    """ΔW decides, not the factors: B·G and G⁻¹·A are the same update, −B·A the opposite one."""
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    b = make_adapter(tmp_path / "b", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    tensors = dict(tensors_of(b))
    gauge = np.diag([2.0, 4.0, 0.5, 8.0]).astype(np.float32)  # exact
    names = [f"base_model.model.{Q0}.lora_{letter}.weight" for letter in "AB"]
    tensors[names[0]], tensors[names[1]] = np.linalg.inv(gauge) @ tensors[names[0]], tensors[names[1]] @ gauge
    tensors[f"base_model.model.{Q1}.lora_A.weight"] *= -1
    write_safetensors(b / "adapter_model.safetensors", tensors)
    same, opposite = compare(a, b).modules
    assert same.distance == pytest.approx(0.0, abs=1e-7)
    assert same.cosine == pytest.approx(1.0)
    assert (opposite.distance, opposite.cosine) == pytest.approx((2.0, -1.0))
    for change in compare(a, a).modules:
        assert (change.distance, change.cosine) == (0.0, 1.0)


def test_zero_updates(tmp_path: Path):
    shapes = dict.fromkeys((Q0, V0, Q1), (8, 8, 2))
    a = make_adapter(tmp_path / "a", shapes, zero_b=[Q0, Q1])
    b = make_adapter(tmp_path / "b", shapes, zero_b=[V0, Q1], seed=1)
    result = compare(a, b)
    found = {change.path: (change.distance, change.cosine) for change in result.modules}
    assert found == {Q0: (None, None), V0: (1.0, None), Q1: (None, None)}
    assert any(warning.startswith("a and b: 2 of 3 modules are zero updates") for warning in result.warnings)


def test_what_only_one_has(tmp_path: Path):
    a = make_adapter(tmp_path / "a", {Q0: (8, 8, 2), V0: (8, 8, 2), Q1: (8, 8, 2)})
    b = make_adapter(tmp_path / "b", {Q0: (8, 8, 2), V0: (8, 6, 2), "model.layers.2.self_attn.q_proj": (8, 8, 2)})
    result = compare(a, b)
    assert [change.path for change in result.modules] == [Q0]
    assert result.reshaped == (V0,)
    assert result.only_a == (Q1,)
    assert result.only_b == ("model.layers.2.self_attn.q_proj",)
    other = make_adapter(tmp_path / "c", {"elsewhere.k": (8, 8, 2)})
    with pytest.raises(NothingToAuditError, match="no module in common"):
        compare(a, other)


@pytest.mark.parametrize("size", [1e-75, 1e140])
def test_extreme_sizes(tmp_path: Path, size: float):
    folders = []
    for name, seed in (("a", 0), ("b", 1)):
        folder = make_adapter(tmp_path / name, {Q0: (8, 8, 2)})
        pairs = zip("AB", factors(8, 8, 2, dtype="float64", seed=seed), strict=True)
        tensors = {f"base_model.model.{Q0}.lora_{k}.weight": v * (size if k == "B" else 1.0) for k, v in pairs}
        write_safetensors(folder / "adapter_model.safetensors", tensors)
        folders.append(folder)
    first, second = (dense(folder)[Q0] / size for folder in folders)
    (change,) = compare(*folders).modules
    assert (change.distance, change.cosine) == pytest.approx(relation(first, second))


def test_checkpoints_of_one_run():
    folder = shared() / "adapters" / "qwen25-mlx"
    result = compare(folder / "0000100_adapters.safetensors", folder / "0000200_adapters.safetensors")
    assert result.modules
    assert (result.only_a, result.only_b, result.reshaped) == ((), (), ())
    moved = [change for change in result.modules if change.distance is not None]
    assert all(0 < change.distance < 1 and 0.5 < change.cosine < 1 for change in moved)
