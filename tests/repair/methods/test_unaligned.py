"""What the methods that compare with unaligned weights have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from s3lora.errors import UnsupportedAdapterError, UsageError
from s3lora.repair.methods.method import RepairMethod
from s3lora.repair.methods.safelora import SAFELORA
from s3lora.repair.methods.splora import SPLORA
from s3lora.repair.methods.subspace import RANDOM_SUBSPACE, SUBSPACE
from tests.repair.pairs import (
    SEEDS,
    SHAPES,
    SQUARE,
    STRENGTHS,
    deltas,
    model_folder,
    quiet,
    random_adapter,
    random_weights,
    subject_of,
)

METHODS: tuple[RepairMethod, ...] = (SUBSPACE, RANDOM_SUBSPACE, SAFELORA, SPLORA)
#: Settings under which every method changes every module that it may, so that no threshold stands between two gauges.
ALL: dict[str, dict[str, Any]] = {
    "subspace": {"size": 3},
    "random-subspace": {"size": 3},
    "safelora": {"threshold": 1.0},
    "splora": {"count": 2},
}
each = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
#: The folder of a test is used again by each example, which overwrites what the one before it left.
again = settings(max_examples=15, deadline=None)


@each
def test_strength_0_changes_nothing_and_1_all_that_is_chosen(tmp_path: Path, method: RepairMethod) -> None:
    subject = subject_of(tmp_path, random_adapter(tmp_path / "adapter"))
    learned = method.learn(subject, ALL[method.name], quiet)
    assert not learned.at(0.0).modules
    assert learned.at(0.0).identity == ""
    assert len(learned.at(1.0).modules) == (2 if method is SPLORA else 3)
    assert not learned.gates
    assert len(learned.notes) == 1


@each
def test_the_first_settings_are_those_that_are_not_given(tmp_path: Path, method: RepairMethod) -> None:
    subject = subject_of(tmp_path, random_adapter(tmp_path / "adapter"))
    first = method.learn(subject, method.settings[0], quiet).at(0.7)
    assert first.identity == method.learn(subject, {}, quiet).at(0.7).identity


@each
@again
@given(seed=SEEDS, gauge=SEEDS, strength=STRENGTHS)
def test_the_same_update_in_other_factors_is_treated_alike(
    tmp_path: Path, method: RepairMethod, seed: int, gauge: int, strength: float
) -> None:
    found = []
    for one in (None, gauge):
        with random_adapter(tmp_path / "adapter", seed, gauge=one) as adapter:
            learned = method.learn(subject_of(tmp_path, adapter), ALL[method.name], quiet)
            found.append(deltas(adapter, learned.at(strength)))
    for path, first in found[0].items():
        assert np.allclose(first, found[1][path], atol=1e-9 * np.abs(first).max()), path


@each
@again
@given(seed=SEEDS, strength=STRENGTHS)
def test_a_seed_gives_the_same_bytes(tmp_path: Path, method: RepairMethod, seed: int, strength: float) -> None:
    with random_adapter(tmp_path / "adapter", dtype="float32") as adapter:
        subject = subject_of(tmp_path, adapter, seed)
        first, second = (method.learn(subject, ALL[method.name], quiet).at(strength) for _ in range(2))
    assert first.identity == second.identity != ""


@each
@again
@given(seed=SEEDS, strength=STRENGTHS)
def test_the_strength_goes_straight_from_the_adapter_to_the_end(
    tmp_path: Path, method: RepairMethod, seed: int, strength: float
) -> None:
    with random_adapter(tmp_path / "adapter", seed) as adapter:
        learned = method.learn(subject_of(tmp_path, adapter), ALL[method.name], quiet)
        start, between, end = (deltas(adapter, learned.at(t)) for t in (0.0, strength, 1.0))
    for path, whole in start.items():
        straight = whole - strength * (whole - end[path])
        assert np.allclose(between[path], straight, atol=1e-9 * np.abs(whole).max()), path


@each
def test_new_factors_have_the_dtype_of_the_file_and_an_allowed_rank(tmp_path: Path, method: RepairMethod) -> None:
    with random_adapter(tmp_path / "adapter", dtype="bfloat16") as adapter:
        new = method.learn(subject_of(tmp_path, adapter), ALL[method.name], quiet).at(0.5)
        ranks = {module.path: module.rank for module in adapter.modules}
    for path, one in new.modules.items():
        assert one.A.dtype.name == one.B.dtype.name == "bfloat16"
        most = 2 * ranks[path] if "subspace" in method.name else ranks[path]
        assert ranks[path] <= one.rank <= most
        assert one.bias == (0.5 if method is SPLORA else 1.0)


@each
def test_untouched_are_modules_that_learned_nothing(tmp_path: Path, method: RepairMethod) -> None:
    path = next(iter(SHAPES))
    with random_adapter(tmp_path / "adapter", zero=path) as adapter:
        new = method.learn(subject_of(tmp_path, adapter), ALL[method.name], quiet).at(1.0)
    assert set(new.modules) == set(SHAPES) - {path}


@each
def test_a_folder_that_is_missing_or_does_not_fit_stops_it(tmp_path: Path, method: RepairMethod) -> None:
    adapter = random_adapter(tmp_path / "adapter")
    with pytest.raises(UsageError, match="unaligned="):
        method.learn(subject_of(tmp_path, adapter, unaligned=None), {}, quiet)
    few = random_weights(2, {SQUARE: SHAPES[SQUARE]})
    unaligned = model_folder(tmp_path / "few", few)
    with pytest.raises(UnsupportedAdapterError, match="no weight of this name"):
        method.learn(subject_of(tmp_path, adapter, unaligned=unaligned), {}, quiet)


@each
def test_a_method_says_what_it_needs(method: RepairMethod) -> None:
    assert method.needs == {"unaligned"}
    assert method.about
    assert "\n" not in method.about
