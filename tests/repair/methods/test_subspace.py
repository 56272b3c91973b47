from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora.repair.methods.subspace as tested
from s3lora.adapter.open import open_adapter
from s3lora.repair.alignment import AlignmentChange, Leading
from s3lora.repair.canonical import canonical
from s3lora.repair.methods.subspace import RANDOM_SUBSPACE, SUBSPACE, cut
from tests.reference import unaligned as reference
from tests.repair.methods.test_unaligned import again
from tests.repair.pairs import (
    SEEDS,
    SHAPES,
    SQUARE,
    STRENGTHS,
    change_of,
    delta_of,
    deltas,
    quiet,
    random_adapter,
    subject_of,
    write_peft,
)
from tests.support import factors


@again
@given(seed=SEEDS, size=st.integers(1, 12), kappa=st.floats(0, 50), strength=STRENGTHS)
def test_it_is_what_the_whole_matrices_give(
    tmp_path: Path, seed: int, size: int, kappa: float, strength: float
) -> None:
    with random_adapter(tmp_path / "adapter", seed) as adapter:
        learned = SUBSPACE.learn(subject_of(tmp_path, adapter), {"size": size, "kappa": kappa}, quiet)
        before, after = deltas(adapter, learned.at(0)), deltas(adapter, learned.at(strength))
    for path, whole in before.items():
        expected = reference.subspace(whole, change_of(path), size, kappa, strength)
        assert np.allclose(after[path], expected, atol=1e-8 * np.abs(whole).max()), path


@again
@given(seed=SEEDS, kappa=st.floats(0, 1e6), strength=STRENGTHS)
def test_a_subspace_of_full_size_is_the_identity(tmp_path: Path, seed: int, kappa: float, strength: float) -> None:
    """All of a square module lies inside, and what lies inside stays as it is whatever κ; nor does the rank grow."""
    with random_adapter(tmp_path / "adapter", seed) as adapter:
        learned = SUBSPACE.learn(subject_of(tmp_path, adapter), {"size": 12, "kappa": kappa}, quiet)
        module = next(one for one in adapter.modules if one.path == SQUARE)
        new = learned.at(strength).modules[SQUARE]
        assert new.rank == module.rank
        assert np.allclose(delta_of(module, new), delta_of(module), atol=1e-9 * np.abs(delta_of(module)).max())


@again
@given(seed=SEEDS, size=st.integers(1, 12), strength=STRENGTHS)
def test_without_a_penalty_any_subspace_is_the_identity(tmp_path: Path, seed: int, size: int, strength: float) -> None:
    with random_adapter(tmp_path / "adapter", seed) as adapter:
        for method in (SUBSPACE, RANDOM_SUBSPACE):
            learned = method.learn(subject_of(tmp_path, adapter), {"size": size, "kappa": 0.0}, quiet)
            before, after = deltas(adapter, learned.at(0)), deltas(adapter, learned.at(strength))
            for path, whole in before.items():
                assert np.allclose(after[path], whole, atol=1e-9 * np.abs(whole).max()), path


@again
@given(seed=SEEDS, size=st.integers(1, 12))
def test_energies_are_those_of_the_whole_matrices_and_add_up(tmp_path: Path, seed: int, size: int) -> None:
    with random_adapter(tmp_path / "adapter", seed) as adapter:
        for module in adapter.modules:
            v = change_of(module.path)
            subspace = AlignmentChange(v, np.zeros_like(v)).leading(size, [seed])
            found = cut(module, canonical(module), subspace).energies
            P, Q = subspace.P @ subspace.P.T, subspace.Q @ subspace.Q.T
            whole = delta_of(module)
            off = (np.eye(len(P)) - P) @ whole @ (np.eye(len(Q)) - Q)
            assert np.isclose(found.inside, reference.share(P @ whole @ Q, whole), atol=1e-10)
            assert np.isclose(found.outside, reference.share(off, whole), atol=1e-10)
            assert np.isclose(sum(found), 1)
            assert min(found) >= 0


def test_an_update_that_alignment_spans_is_left_alone(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        for module in adapter.modules:
            u, sigma, vt = canonical(module)
            part = cut(module, canonical(module), Leading(u, vt.T, sigma))
            assert np.allclose(part.energies, (1, 0, 0))
            assert np.allclose(delta_of(module, part.at(0.0, 0.0)), delta_of(module))


def test_the_rank_grows_to_twice_that_of_the_file_where_it_must(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        new = SUBSPACE.learn(subject_of(tmp_path, adapter), {"size": 3}, quiet).at(0.5)
    assert {path: one.rank for path, one in new.modules.items()} == {path: 2 * r for path, (_, _, r) in SHAPES.items()}


def test_factors_of_more_columns_than_the_update_needs_keep_their_rank(tmp_path: Path) -> None:
    a, b = factors(12, 12, 2)
    b[:, 1] = 2 * b[:, 0]  # exactly
    with open_adapter(write_peft(tmp_path / "adapter", {SQUARE: (a, b)})) as adapter:
        new = SUBSPACE.learn(subject_of(tmp_path, adapter), {"size": 12}, quiet).at(0.5).modules[SQUARE]
        assert new.rank == adapter.modules[0].rank == 2
        assert np.allclose(delta_of(adapter.modules[0], new), delta_of(adapter.modules[0]), atol=1e-5)


def test_the_control_has_the_size_of_the_subspace_and_not_its_directions(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        subject = subject_of(tmp_path, adapter)
        real, random = (method.learn(subject, {"energy": 0.6}, quiet) for method in (SUBSPACE, RANDOM_SUBSPACE))
        for one, control in zip(real.parts, random.parts, strict=True):
            assert np.linalg.matrix_rank(one.left) == np.linalg.matrix_rank(control.left)
            assert not np.allclose(one.left, control.left)
        assert real.at(1.0).identity != random.at(1.0).identity
    sizes = [notes[0].partition(" directions")[0].rpartition(" ")[2] for notes in (real.notes, random.notes)]
    assert sizes[0] == sizes[1]
    assert "random subspaces" in random.notes[0]


@pytest.mark.parametrize("energy", [0.05, 0.5, 0.9, 1.0])
def test_the_size_is_the_least_that_holds_the_energy(energy: float) -> None:
    v = np.random.default_rng(0).normal(size=(80, 60))
    found = tested._subspace(AlignmentChange(v, np.zeros_like(v)), {"energy": energy}, [0])
    squares = np.linalg.svd(v, compute_uv=False) ** 2
    least = 1 + int(np.searchsorted(np.cumsum(squares) / squares.sum(), energy - 1e-12))
    # A sketch of a flat spectrum holds a little less than the best subspace of its size.
    assert least <= len(found.tau) <= least + 2


def test_where_the_most_directions_are_too_few_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "MOST", 2)
    with random_adapter(tmp_path / "adapter") as adapter:
        learned = SUBSPACE.learn(subject_of(tmp_path, adapter), {"energy": 0.9}, quiet)
    assert learned.notes[1] == "in 3 modules 2 directions hold less than 90% of what alignment changed"
    assert "of 2 directions (medians over 3 modules)" in learned.notes[0]
