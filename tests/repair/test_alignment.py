from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora.repair.alignment as tested
from s3lora.adapter.open import open_adapter
from s3lora.errors import NonFiniteError, UsageError
from s3lora.repair.alignment import AlignmentChange, changes, seed_of
from s3lora.repair.modules import repairable
from tests.reference.unaligned import alignment
from tests.repair.pairs import SHAPES, TALL, model_folder, quiet, random_adapter, random_weights, subject_of
from tests.support import dtype_of


@pytest.mark.parametrize("numbers", [1, 7, 1000])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_products_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, numbers: int, dtype: str) -> None:
    monkeypatch.setattr(tested, "NUMBERS", numbers)
    generator = np.random.default_rng(0)
    after, before = (generator.normal(size=(5, 3)).astype(dtype_of(dtype)) for _ in range(2))
    change = AlignmentChange(after, before)
    v = after.astype(np.float64) - before.astype(np.float64)
    left, right = generator.normal(size=(5, 2)), generator.normal(size=(3, 2))
    assert change.shape == (5, 3)
    assert np.isclose(change.norm, np.linalg.norm(v))
    assert np.allclose(change.times(right), v @ right)
    assert np.allclose(change.transposed_times(left), v.T @ left)
    assert np.allclose(change.projected(left), alignment(v) @ left)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(0, 100))
def test_small_matrices_have_exact_directions(m: int, n: int, size: int, seed: int) -> None:
    v = np.random.default_rng(seed).normal(size=(m, n))
    found = AlignmentChange(v, np.zeros_like(v)).leading(size, [seed])
    k = min(m, n, size)
    u, tau, vt = np.linalg.svd(v)
    assert (found.P.shape, found.Q.shape, found.tau.shape) == ((m, k), (n, k), (k,))
    assert np.allclose(found.tau, tau[:k], atol=1e-9)
    assert np.allclose(found.P.T @ found.P, np.eye(k))
    assert np.allclose(found.Q.T @ found.Q, np.eye(k))
    assert np.allclose(found.P * found.tau @ found.Q.T, u[:, :k] * tau[:k] @ vt[:k], atol=1e-7)


def test_the_sketch_of_a_larger_matrix_finds_what_stands_out() -> None:
    generator = np.random.default_rng(0)
    left, right = (np.linalg.qr(generator.normal(size=(size, 5)))[0] for size in (90, 70))
    tau = np.array([50.0, 40.0, 30.0, 25.0, 20.0])
    v = left * tau @ right.T + 0.02 * generator.normal(size=(90, 70))
    found = AlignmentChange(v, np.zeros_like(v)).leading(5, [3])
    assert np.allclose(found.tau, np.linalg.svd(v, compute_uv=False)[:5], rtol=1e-9)
    # The least cosine of a principal angle to the dense directions: their projectors agree.
    u, _, vt = np.linalg.svd(v)
    for mine, dense in ((found.P, u[:, :5]), (found.Q, vt[:5].T)):
        assert np.linalg.svd(mine.T @ dense, compute_uv=False).min() > 1 - 1e-9


def test_without_a_gap_the_sketch_holds_nearly_as_much_as_the_best() -> None:
    v = np.random.default_rng(1).normal(size=(120, 100))
    found = AlignmentChange(v, np.zeros_like(v)).leading(20, [0])
    best = np.linalg.svd(v, compute_uv=False)[:20]
    assert 0.97 < (found.tau**2).sum() / (best**2).sum() <= 1


def test_a_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    v = np.random.default_rng(1).normal(size=(60, 50))
    first, again, other = (AlignmentChange(v, np.zeros_like(v)).leading(5, seed) for seed in ([1], [1], [2]))
    assert first.P.tobytes() == again.P.tobytes()
    assert first.P.tobytes() != other.P.tobytes()
    assert seed_of(1, "a") != seed_of(1, "b")


def test_modules_come_one_by_one_without_those_that_alignment_left_alone(tmp_path: Path) -> None:
    adapter = random_adapter(tmp_path / "adapter")
    subject = subject_of(tmp_path, adapter)
    before = random_weights(2, SHAPES)
    before[f"{TALL}.weight"] = random_weights(1, SHAPES)[f"{TALL}.weight"]
    unaligned = model_folder(tmp_path / "other", before)
    told: list[float] = []
    found = list(changes(subject.base, unaligned, adapter.modules, lambda share, what: told.append(share)))
    assert {module.path for module, _ in found} == set(SHAPES) - {TALL}
    assert told == [0, 1 / 3, 2 / 3]


def test_the_same_weights_twice_are_told(tmp_path: Path) -> None:
    adapter = random_adapter(tmp_path / "adapter")
    subject = subject_of(tmp_path, adapter)
    with pytest.raises(UsageError, match="the same weights in all modules"):
        list(changes(subject.base, subject.base, adapter.modules, quiet))
    for base, unaligned in ((None, subject.base), (subject.base, None)):
        with pytest.raises(UsageError, match="unaligned="):
            list(changes(base, unaligned, adapter.modules, quiet))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_told(tmp_path: Path, bad: float) -> None:
    adapter = random_adapter(tmp_path / "adapter")
    subject = subject_of(tmp_path, adapter)
    weights = random_weights(2, SHAPES)
    weights[f"{TALL}.weight"][1, 1] = bad
    unaligned = model_folder(tmp_path / "bad", weights)
    with pytest.raises(NonFiniteError, match=f"{TALL}.*NaN or infinity"):
        list(changes(subject.base, unaligned, adapter.modules, quiet))


def test_folders_of_real_models_give_the_difference_of_their_weights(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from tests.tiny_adapters import MODULES, tiny_adapter
    from tests.tiny_model import tiny_folder, tiny_llama

    base, unaligned = (str(tiny_folder(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    after, before = (tiny_llama(seed).state_dict() for seed in (0, 1))
    with open_adapter(tiny_adapter(Path(base), tmp_path / "adapter")) as adapter:
        found = list(changes(base, unaligned, repairable(adapter), quiet))
    assert {module.path for module, _ in found} == set(MODULES)
    for module, change in found:
        v = (after[f"{module.path}.weight"] - before[f"{module.path}.weight"]).double().numpy()
        assert np.allclose(change.times(np.eye(module.n)), v, atol=1e-6)
