from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s3lora.repair.alignment import AlignmentChange, changes, seed_of
from s3lora.repair.canonical import Directions, canonical
from s3lora.repair.methods.splora import SPLORA, e_diem
from tests.reference import unaligned as reference
from tests.repair.pairs import change_of, delta_of, deltas, quiet, random_adapter, subject_of


def test_the_score_is_that_of_the_whole_matrices_up_to_sampling(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        for module in adapter.modules:
            v = change_of(module.path)
            found = e_diem(canonical(module), AlignmentChange(v, np.zeros_like(v)), [0], samples=4000)
            dense = reference.e_diem(delta_of(module), v, 1, samples=2000)
            # Mean and spread of 2,000 samples are good to about 1 part in 40.
            assert abs(found - dense) < 0.08 + 0.08 * abs(dense), module.path


def test_of_the_same_samples_the_score_is_exactly_the_formula(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        module = adapter.modules[0]
        v = change_of(module.path)
        u, sigma, vt = canonical(module)
        generator = np.random.default_rng([5])
        samples = [np.linalg.qr(generator.standard_normal(u.shape))[0] * sigma @ vt for _ in range(4)]
        distances = np.array([reference.distance(sample, v) for sample in samples])
        spread = np.sqrt(((distances - distances.mean()) ** 2).sum() / 3)
        expected = (reference.distance(delta_of(module), v) - distances.mean()) / spread
        found = e_diem(canonical(module), AlignmentChange(v, np.zeros_like(v)), [5], samples=4)
    assert np.isclose(found, expected, rtol=1e-9)


def test_the_samples_differ_as_the_released_ones_do_not(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        module = adapter.modules[0]
        v = change_of(module.path)
        change, directions = AlignmentChange(v, np.zeros_like(v)), canonical(module)
        first, second = (e_diem(directions, change, [seed]) for seed in (0, 1))
    assert first != second
    assert np.isfinite([first, second]).all()
    assert abs(first - second) < 2


@pytest.mark.parametrize("samples", [50, 7])
def test_the_score_does_not_depend_on_how_many_samples_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        module = adapter.modules[0]
        v = change_of(module.path)
        change, directions = AlignmentChange(v, np.zeros_like(v)), canonical(module)
        whole = e_diem(directions, change, [0], samples)
        monkeypatch.setattr("s3lora.repair.methods.splora.COLUMNS", 5)
        assert np.isclose(e_diem(directions, change, [0], samples), whole, rtol=1e-12)


def test_where_all_directions_are_moved_alike_no_module_stands_out() -> None:
    v = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    directions = Directions(np.eye(6)[:, :2], np.array([2.0, 1.0]), np.eye(6)[:2])
    assert e_diem(directions, AlignmentChange(v, np.zeros_like(v)), [0]) == 0.0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_it_removes_the_modules_of_the_highest_score_and_as_many_as_asked(tmp_path: Path, count: int) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        subject = subject_of(tmp_path, adapter)
        scores = {
            module.path: e_diem(canonical(module), change, seed_of(subject.seed, module.path))
            for module, change in changes(subject.base, subject.unaligned, adapter.modules, quiet)
        }
        ranked = sorted(scores, key=lambda path: -scores[path])
        learned = SPLORA.learn(subject, {"count": count}, quiet)
        assert [module.path for module in learned.modules] == ranked[:count]
        after = deltas(adapter, learned.at(1.0))
        assert {path for path, whole in after.items() if not whole.any()} == set(ranked[:count])
        assert f"removes {count} of 3 modules" in learned.notes[0]


def test_the_highest_score_is_that_of_what_alignment_keeps_least(tmp_path: Path) -> None:
    """C is the projector on the first half of the directions here: what lies in the other half is moved furthest."""
    v = np.diag([1.0] * 4 + [0.0] * 4) * 2.0  # ‖V‖ = 4, so C = V·Vᵀ/4 = 1 on the first four
    change = AlignmentChange(v, np.zeros_like(v))
    kept, lost = (Directions(np.eye(8)[:, i : i + 2], np.ones(2), np.eye(8)[:2]) for i in (0, 4))
    assert e_diem(kept, change, [0]) < 0 < e_diem(lost, change, [0])


def test_a_share_removes_at_least_one_module(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        subject = subject_of(tmp_path, adapter)
        assert len(SPLORA.learn(subject, {"share": 0.01}, quiet).modules) == 1
        assert len(SPLORA.learn(subject, {"share": 0.6}, quiet).modules) == 2
