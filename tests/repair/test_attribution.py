"""Attributions on a real model that is small: they add up, and gradients agree however they are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.evaluate.attach import State
from s3lora.repair.attribution import attribution_of, integrate
from s3lora.repair.learning import learning_rows
from s3lora.repair.live import live
from s3lora.repair.losses import Term, gradients, values_of
from s3lora.repair.methods.patch import PatchedUpdates
from s3lora.rewrite.factors import NewFactor, NewFactors
from tests.repair.subjects import TARGETS, made, subject_of
from tests.tiny_model import torch


def test_the_error_falls_as_points_double(tmp_path: Path):
    with subject_of(*made(tmp_path, scale=0.05)) as subject:
        model, attached, rows = subject.ready
        with live(model, attached, subject.adapter.modules) as adapter:
            for term, of in zip(rows.terms(), ("lost", "learned"), strict=True):
                errors = [
                    integrate(adapter, term, of, points=points, most=points).completeness.error
                    for points in (5, 20, 80)
                ]
                assert errors[2] < 0.02
                assert errors[2] <= errors[0] + 1e-4


def test_points_double_until_it_adds_up(tmp_path: Path):
    with subject_of(*made(tmp_path, scale=0.2)) as subject:
        model, attached, rows = subject.ready
        with live(model, attached, subject.adapter.modules) as adapter:
            found = integrate(adapter, rows.terms()[0], "lost", points=1, most=64).completeness
        assert found.error < 0.2
        assert found.points in {1, 2, 4, 8, 16, 32, 64}


def test_the_difference_is_that_of_base_and_adapter(tmp_path: Path):
    with subject_of(*made(tmp_path, scale=0.2)) as subject:
        model, attached, rows = subject.ready
        losses = []
        for state in (State(attached), State()):
            model.adapters.use(state)
            losses.append(values_of(model, [rows.terms()[0]])[0])
        with live(model, attached, subject.adapter.modules) as adapter:
            found = integrate(adapter, rows.terms()[0], "lost", points=1, most=1).completeness
        assert found.difference == pytest.approx(losses[0] - losses[1], abs=1e-4)


def test_the_gradient_of_a_gate_is_that_of_its_factors(tmp_path: Path):
    """At g = 1, ∂L/∂g of a module is ⟨B, ∂L/∂B⟩ = ⟨A, ∂L/∂A⟩."""
    with subject_of(*made(tmp_path)) as subject:
        model, attached, rows = subject.ready
        with live(model, attached, subject.adapter.modules) as adapter:
            found = gradients(model, [rows.terms()[0]], list(adapter.gates.values()))[1]
        by_gate = {path: float(one.sum()) for path, one in zip(adapter.gates, found, strict=True)}
        model.use(attached)
        pairs = [
            (
                model.adapters.layer(path).lora_A[attached.key].weight,
                model.adapters.layer(path).lora_B[attached.key].weight,
            )
            for path in by_gate
        ]
        leaves = [weight.requires_grad_(True) for pair in pairs for weight in pair]
        found = gradients(model, [rows.terms()[0]], leaves)[1]
        for path, (a, b), (of_a, of_b) in zip(by_gate, pairs, zip(found[::2], found[1::2], strict=True), strict=True):
            assert float((a.detach() * of_a).sum()) == pytest.approx(by_gate[path], rel=1e-3, abs=1e-5)
            assert float((b.detach() * of_b).sum()) == pytest.approx(by_gate[path], rel=1e-3, abs=1e-5)


def test_shares_add_up_to_one(tmp_path: Path):
    with subject_of(*made(tmp_path, scale=0.2)) as subject:
        model, attached, rows = subject.ready
        modules = subject.adapter.modules
        with live(model, attached, modules) as adapter:
            both = [integrate(adapter, term, of) for term, of in zip(rows.terms(), ("lost", "learned"), strict=True)]
        found = attribution_of(modules, *both, {modules[0].path: (0.5, 1.0, 1.0, 0.0)})
        assert sum(one.lost for one in found.modules) == pytest.approx(1)
        assert sum(one.learned for one in found.modules) == pytest.approx(1)
        assert sum(found.modules[1].lost_by_direction) == pytest.approx(found.modules[1].lost)
        assert found.modules[0].gates == (0.5, 1.0, 1.0, 0.0)


def test_an_anchor_is_at_its_least_where_it_was_taken(tmp_path: Path):
    with subject_of(*made(tmp_path)) as subject:
        model, attached, rows = subject.ready
        model.use(attached)
        term = rows.terms()[1]
        assert values_of(model, [term])[0] == pytest.approx(0, abs=1e-5)
        model.use()
        assert values_of(model, [term])[0] > 0.1


def test_memory_that_runs_out_halves_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with subject_of(*made(tmp_path)) as subject:
        model, attached, rows = subject.ready
        with live(model, attached, subject.adapter.modules) as adapter:
            leaves = list(adapter.gates.values())
            values, wanted = gradients(model, [rows.terms()[0]], leaves)
            inner = model.adapters.model.forward

            def small(*args: object, **more: object) -> object:
                if len(more["input_ids"]) > 1:
                    raise MemoryError
                return inner(*args, **more)

            monkeypatch.setattr(model.adapters.model, "forward", small)
            again, found = gradients(model, [rows.terms()[0]], leaves)
        assert again == pytest.approx(values, rel=1e-5)
        for one, other in zip(found, wanted, strict=True):
            assert np.allclose(one, other, atol=1e-5)


def test_the_live_factors_are_those_of_the_file(tmp_path: Path):
    """With all gates open, the model says what it says with the adapter as it was loaded."""
    with subject_of(*made(tmp_path, scale=0.2)) as subject:
        model, attached, _ = subject.ready
        prompts, answers = zip(*((pair.prompt, pair.answer) for pair in TARGETS.task), strict=True)
        wanted = model.losses(prompts, answers)
        with live(model, attached, subject.adapter.modules, patch=1):
            found = model.losses(prompts, answers)
        assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in wanted], rel=1e-4)
        assert model.losses(prompts, answers) == wanted
        assert learning_rows(model, attached, TARGETS).terms()[0].tokens > 0


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("scaling", [{"lora_alpha": 8}, {"lora_alpha": 1}, {"use_rslora": True, "lora_alpha": 5}])
def test_the_written_patch_is_the_one_that_was_learned(tmp_path: Path, scaling: dict[str, Any], gated: bool):
    """At strength 1 the model says what it said while the gates and the patch stood beside its modules."""
    rng = np.random.default_rng(3)
    with subject_of(*made(tmp_path, scale=0.2, **scaling)) as subject:
        model, attached, _ = subject.ready
        modules = subject.adapter.modules
        assert all(module.scaling.value != 1 for module in modules)
        prompts, answers = zip(*((pair.prompt, pair.answer) for pair in TARGETS.task), strict=True)
        with live(model, attached, modules, patch=2) as adapter:
            gates: dict[str, tuple[float, ...]] = {}
            for module in modules:
                shape = tuple(adapter.up[module.path].shape)
                adapter.up[module.path].data.copy_(torch.tensor(0.3 * rng.standard_normal(shape)))
                if gated:
                    adapter.gates[module.path].data.copy_(torch.tensor(rng.random(len(adapter.gates[module.path]))))
                    gates[module.path] = tuple(adapter.gates[module.path].tolist())
            wanted = model.losses(prompts, answers)
            down = {path: leaf.detach().numpy().copy() for path, leaf in adapter.down.items()}
            up = {path: leaf.detach().numpy().copy() for path, leaf in adapter.up.items()}
        before = model.losses(prompts, answers)
        model.adapters.use(State(attached, factors=PatchedUpdates(modules, down, up, gates).at(1.0)))
        found = model.losses(prompts, answers)
        assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in wanted], rel=1e-4)
        assert [nats for nats, _ in found] != pytest.approx([nats for nats, _ in before], rel=1e-2)


def test_new_factors_are_switched_like_any_state(tmp_path: Path):
    with subject_of(*made(tmp_path)) as subject:
        model, attached, rows = subject.ready
        module = subject.adapter.modules[0]
        a, b = module.A.array(), module.B.array()
        wide = NewFactors({module.path: NewFactor(np.vstack((a, a)), np.hstack((b / 2, b / 2)))})
        term: Term = rows.terms()[0]
        before, identity = values_of(model, [term])[0], model.identity
        model.adapters.use(State(attached, factors=wide))
        assert values_of(model, [term])[0] == pytest.approx(before, rel=1e-5)
        assert model.identity != identity
        model.use(attached)
        assert (values_of(model, [term])[0], model.identity) == (before, identity)
