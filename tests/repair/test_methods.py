"""What every method of repair must hold to, on a real model that is small."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from s3lora.adapter.open import open_adapter
from s3lora.repair.canonical import canonical, directions_of, factors_of
from s3lora.repair.methods.gates import GatedUpdates
from s3lora.repair.methods.method import RepairSubject
from s3lora.repair.methods.registry import METHODS
from s3lora.repair.methods.shrink import Shrink
from s3lora.rewrite.factors import NewFactors
from tests.repair.subjects import TARGETS, change, made, regauged, subject_of

FAST = {"steps": 4}
LEARNED = [name for name, method in METHODS.items() if "prompts" in method.needs and "unaligned" not in method.needs]
PAIRS = TARGETS.refusals
OWN = [name for name, method in METHODS.items() if "unaligned" not in method.needs]


def quiet(share: float, label: str) -> None:
    """Tell nobody."""


def learned(name: str, subject: RepairSubject, **settings: object):
    more = FAST if name in LEARNED else {}
    return METHODS[name].learn(subject, {**METHODS[name].settings[0], **more, **settings}, quiet)


def updates(subject: RepairSubject, factors: NewFactors) -> dict[str, np.ndarray]:
    """Return ΔW of every module, in float64."""
    found = {}
    for module in subject.adapter.modules:
        new = factors.modules.get(module.path)
        a, b = (module.A.array(), module.B.array()) if new is None else (new.A, new.B)
        found[module.path] = module.scaling.value * (b.astype(np.float64) @ a.astype(np.float64))
    return found


@pytest.mark.parametrize("name", OWN)
def test_at_strength_zero_nothing_changes(name: str, tmp_path: Path):
    with subject_of(*made(tmp_path)) as subject:
        assert learned(name, subject).at(0.0).modules == {}


@pytest.mark.parametrize("name", OWN)
def test_it_does_not_depend_on_how_the_update_was_factored(name: str, tmp_path: Path):
    base, folder = made(tmp_path, scale=0.1)
    other = regauged(folder, tmp_path / "other")
    found = []
    for one in (folder, other):
        with subject_of(base, one) as subject:
            found.append(updates(subject, learned(name, subject).at(0.6)))
    for path in found[0]:
        assert np.linalg.norm(found[0][path] - found[1][path]) <= 2e-3 * np.linalg.norm(found[0][path]), path


@pytest.mark.parametrize("name", OWN)
def test_a_seed_and_the_same_data_give_the_same_bytes(name: str, tmp_path: Path):
    base, folder = made(tmp_path)
    digests = []
    for seed in (0, 0):
        with subject_of(base, folder, seed) as subject:
            digests.append(learned(name, subject).at(0.5).identity)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", LEARNED)
def test_it_learns_something_and_leaves_the_model_as_it_was(name: str, tmp_path: Path):
    with subject_of(*made(tmp_path)) as subject:
        model, attached, _ = subject.ready
        before = model.losses([pair.prompt for pair in PAIRS], [pair.answer for pair in PAIRS])
        factors = learned(name, subject).at(1.0)
        assert factors.modules
        model.use(attached)
        assert model.losses([pair.prompt for pair in PAIRS], [pair.answer for pair in PAIRS]) == before


@pytest.mark.parametrize("name", LEARNED)
def test_what_was_learned_makes_the_refusals_likelier(name: str, tmp_path: Path):
    with subject_of(*made(tmp_path)) as subject:
        model, attached, _ = subject.ready
        prompts, answers = [pair.prompt for pair in PAIRS], [pair.answer for pair in PAIRS]
        before = sum(nats for nats, _ in model.losses(prompts, answers))
        factors = learned(name, subject, steps=30, harmless_weight=0.0, task_weight=0.0).at(1.0)
        model.adapters.use(dataclasses.replace(model.adapters.state, factors=factors))
        after = sum(nats for nats, _ in model.losses(prompts, answers))
        assert after < before
        model.use(attached)


def test_equal_gates_shrink(tmp_path: Path):
    with subject_of(*made(tmp_path)) as subject:
        modules = subject.adapter.modules
        gates = GatedUpdates(modules, {m.path: (0.0,) * min(m.rank, m.m, m.n) for m in modules}).at(0.3)
        shrunk = Shrink().learn(subject, {}, quiet).at(0.3)
        for path, wanted in updates(subject, shrunk).items():
            assert np.allclose(updates(subject, gates)[path], wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("name", OWN)
def test_the_rank_is_kept_but_for_a_patch(name: str, tmp_path: Path):
    with subject_of(*made(tmp_path)) as subject:
        more = 2 if "patch" in name else 0
        new = learned(name, subject).at(1.0).modules
        for module in subject.adapter.modules:
            if module.path in new:
                assert new[module.path].A.shape == (module.rank + more, module.n)
                assert new[module.path].B.shape == (module.m, module.rank + more)


def as_it_is(name: str, values: np.ndarray) -> np.ndarray:
    return values


def without_updates(name: str, values: np.ndarray) -> np.ndarray:
    return values * 0 if ".lora_B." in name and "layers.0." in name else values


def in_half(name: str, values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16)


def in_bfloat16(name: str, values: np.ndarray) -> np.ndarray:
    return values.astype(ml_dtypes.bfloat16)


KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "rank-1": ({"r": 1}, as_it_is),
    "rank-48": ({"r": 48}, as_it_is),  # more than the model has rows
    "rslora": ({"use_rslora": True}, as_it_is),
    "zero-B": ({}, without_updates),
    "float16": ({}, in_half),
    "bfloat16": ({}, in_bfloat16),
}


@pytest.mark.parametrize(
    ("name", "config", "new"),
    [
        # Each kind with the method that does most, and each method with one kind; the others are proved at length.
        pytest.param(name, *made, id=f"{name}-{kind}", marks=() if usual else pytest.mark.thorough)
        for name in OWN
        for kind, made in KINDS.items()
        for usual in (name == "gates+patch" or kind == "bfloat16",)
    ],
)
def test_any_adapter_gets_factors_that_its_file_can_hold(name: str, config: dict[str, Any], new: Any, tmp_path: Path):
    base, folder = made(tmp_path, scale=0.1, **config)
    change(folder, new)
    with subject_of(base, folder) as subject:
        found = learned(name, subject).at(1.0).modules
        assert found
        for module in subject.adapter.modules:
            if module.path in found:
                a, b = found[module.path].A, found[module.path].B
                assert (a.shape[1], b.shape[0]) == (module.n, module.m)
                assert a.shape[0] == b.shape[1] == found[module.path].rank
                assert (a.dtype, b.dtype) == (module.A.array().dtype, module.B.array().dtype)
                assert np.isfinite(a.astype(np.float64)).all()
                assert np.isfinite(b.astype(np.float64)).all()


def test_canonical_factors_give_the_update(tmp_path: Path):
    _, folder = made(tmp_path)
    with open_adapter(folder) as adapter:
        for module in adapter.modules:
            directions = canonical(module)
            a, b = factors_of(directions, module.scaling.value, rank=module.rank + 1)
            whole = module.scaling.value * module.B.array().astype(float) @ module.A.array()
            assert np.allclose(module.scaling.value * b @ a, whole, atol=1e-6)
            assert np.allclose(directions.sigma, np.linalg.svd(whole, compute_uv=False)[: len(directions.sigma)])
            assert a.shape == (module.rank + 1, module.n)


@pytest.mark.parametrize("scaling", [-2.0, 0.0, 0.5])
def test_any_scaling_has_directions(scaling: float):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((5, 4))
    directions = directions_of(a, b, scaling)
    assert directions.U.shape == (5, 3)
    new_a, new_b = factors_of(directions, scaling)
    assert np.allclose(scaling * new_b @ new_a, scaling * b @ a)
