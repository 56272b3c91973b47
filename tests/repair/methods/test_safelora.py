from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given

from s3lora.repair.alignment import AlignmentChange
from s3lora.repair.methods.safelora import SAFELORA, project
from tests.reference import unaligned as reference
from tests.repair.methods.test_unaligned import again
from tests.repair.pairs import SEEDS, STRENGTHS, change_of, delta_of, deltas, quiet, random_adapter, subject_of


@again
@given(seed=SEEDS, strength=STRENGTHS)
def test_it_is_what_the_whole_matrices_give(tmp_path: Path, seed: int, strength: float) -> None:
    with random_adapter(tmp_path / "adapter", seed) as adapter:
        learned = SAFELORA.learn(subject_of(tmp_path, adapter), {"threshold": 1.0}, quiet)
        before, after = deltas(adapter, learned.at(0)), deltas(adapter, learned.at(strength))
    for path, whole in before.items():
        expected = reference.safelora(whole, change_of(path), strength)
        assert np.allclose(after[path], expected, atol=1e-9 * np.abs(whole).max()), path


@again
@given(seed=SEEDS)
def test_cosines_and_lengths_are_those_of_the_whole_matrices(tmp_path: Path, seed: int) -> None:
    with random_adapter(tmp_path / "adapter", seed) as adapter:
        for module in adapter.modules:
            v = change_of(module.path)
            found = project(module, AlignmentChange(v, np.zeros_like(v)))
            assert found is not None
            turned = reference.alignment(v) @ delta_of(module)
            assert np.isclose(found.cosine, reference.cosine(turned, delta_of(module)))
            assert np.isclose(found.length, np.sqrt(reference.share(turned, delta_of(module))))


def test_the_threshold_and_the_number_choose_the_modules_of_the_lowest_cosine(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        subject = subject_of(tmp_path, adapter)
        cosines = {one.module.path: one.cosine for one in SAFELORA.learn(subject, {"threshold": 1.0}, quiet).modules}
        order = sorted(cosines, key=cosines.__getitem__)
        for count in range(4):
            by_number = SAFELORA.learn(subject, {"lowest": count}, quiet).at(1.0)
            assert set(by_number.modules) == set(order[:count])
            threshold = cosines[order[count - 1]] if count else 0.0
            by_threshold = SAFELORA.learn(subject, {"threshold": threshold}, quiet)
            assert set(by_threshold.at(1.0).modules) == set(order[:count])
        assert "changes nothing" in SAFELORA.learn(subject, {"threshold": 0.0}, quiet).notes[0]


def test_the_factor_a_stays_as_it_is_in_the_file(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter", dtype="float16") as adapter:
        new = SAFELORA.learn(subject_of(tmp_path, adapter), {"threshold": 1.0}, quiet).at(0.3)
        for module in adapter.modules:
            assert new.modules[module.path].A.tobytes() == module.A.array().tobytes()


def test_it_tells_that_its_c_is_no_projector(tmp_path: Path) -> None:
    with random_adapter(tmp_path / "adapter") as adapter:
        learned = SAFELORA.learn(subject_of(tmp_path, adapter), {"threshold": 1.0}, quiet)
    lengths = [one.length for one in learned.modules]
    assert f"multiplies the norm of an update by {np.median(lengths):.2g} (median)" in learned.notes[0]
    assert all(length > 1 for length in lengths), "V of these random weights is large, so C makes updates larger"
