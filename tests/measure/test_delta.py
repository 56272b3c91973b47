"""Whole checkpoints held against their base, against dense differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora.errors import ModelError, NonFiniteError, NothingToAuditError, UnsupportedAdapterError
from tests.command import call
from tests.measure.test_base_scan import DOWN, Q, V, weights
from tests.reference import base_weights as reference
from tests.reference import dense as slow
from tests.repair.pairs import model_folder

Pair = tuple[str, str, dict[str, Any]]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return a merged model, its base, and the differences: of rank 2 in one matrix, of full rank in another."""
    generator = np.random.default_rng(3)
    before = weights()
    changes = {
        f"{Q}.weight": generator.normal(size=(12, 2)) @ generator.normal(size=(2, 12)),
        f"{DOWN}.weight": 0.1 * generator.normal(size=(12, 20)),
        "model.norm.weight": np.full(12, 0.25),
    }
    after = {name: (value + changes.get(name, 0.0)).astype(np.float32) for name, value in before.items()}
    changes = {name: after[name].astype(float) - before[name].astype(float) for name in changes}
    return model_folder(tmp_path / "merged", after), model_folder(tmp_path / "base", before), changes


@pytest.mark.parametrize("method", ["svd", "mas-svd"])
def test_the_numbers_are_of_the_differences(pair: Pair, method: str) -> None:
    tuned, base, changes = pair
    scan = s3lora.scan_delta(tuned, base, method, 5, intruders=True)
    assert [module.path for module in scan] == [Q, DOWN]
    for module in scan:
        change = changes[f"{module.path}.weight"]
        how = {"svd": slow.svd, "mas-svd": slow.mas_svd}[method]
        assert np.allclose(module.sigma, how(change, 5), rtol=1e-6, atol=1e-7)
        assert module.indices["stable_rank"] == pytest.approx(slow.stable_rank(change))
        assert module.shape == change.shape
        assert module.of == "ΔW"
        assert module.dense
    assert scan.base is not None
    for one in scan.base.modules:
        before = weights()[one.weight].astype(float)
        assert one.relative == pytest.approx(np.linalg.norm(changes[one.weight]) / np.linalg.norm(before))
        assert one.intruders == reference.intruders(before, before + changes[one.weight])
    (norm,) = scan.base.weights
    assert norm.name == "model.norm.weight"
    assert norm.relative == pytest.approx(0.25)
    assert any("2 of 4 matrices and 1 of 1 other weights differ" in note for note in scan.warnings)
    assert scan.source.format == "checkpoint"
    assert scan.source.sha256 is not None


def test_the_command_shows_it_in_every_format(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    tuned, base, _ = pair
    command = ("scan", "--delta", tuned, "--base-weights", base)
    text = call(capsys, *command)
    assert text.status == 0, text.err
    assert "q_proj" in text.out
    assert "s3lora prune" not in text.out
    assert "s3lora repair" not in text.out
    document = json.loads(call(capsys, *command, "--format", "json").out)
    assert document["source"]["format"] == "checkpoint"
    assert len(document["modules"]) == 2
    for form in ("csv", "html", "sarif", "junit", "svg", "tensors"):
        assert call(capsys, *command, "--format", form).status == 0, form
    assert call(capsys, *command, "--fail-on", "magnitude > 1").status == 1
    assert document["plan"] is None
    assert "would prune" not in text.out
    assert "--top does nothing with --delta" in call(capsys, *command, "--top", "3").err
    assert call(capsys, "scan", tuned, "--delta", tuned, "--base-weights", base).status == 2
    assert call(capsys, "scan", "--delta", tuned).status == 2
    assert "Missing argument" in call(capsys, "scan").err


def test_experts_that_lie_together_are_each_one_matrix(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    name = "model.layers.0.mlp.experts.down_proj"
    before = {name: generator.normal(size=(3, 6, 5)).astype(np.float32)}
    after = {name: before[name].copy()}
    after[name][1] += generator.normal(size=(6, 5)).astype(np.float32)
    scan = s3lora.scan_delta(model_folder(tmp_path / "a", after), model_folder(tmp_path / "b", before), "svd")
    (module,) = scan.modules
    assert module.path == f"{name}.1"
    assert module.shape == (6, 5)
    assert np.allclose(module.sigma, slow.singular_values(after[name][1].astype(float) - before[name][1].astype(float)))


def test_what_is_the_same_or_has_nothing_in_common_is_nothing_to_audit(pair: Pair, tmp_path: Path) -> None:
    _, base, _ = pair
    with pytest.raises(NothingToAuditError, match="the same weights"):
        s3lora.scan_delta(base, base)
    with pytest.raises(NothingToAuditError, match="no matrix in common"):
        s3lora.scan_delta(base, model_folder(tmp_path / "x", {"other.weight": np.ones((3, 3), np.float32)}))
    with pytest.raises(ModelError):
        s3lora.scan_delta(tmp_path / "nothing", base)


def test_what_differs_in_no_matrix_is_nothing_to_audit_and_named(pair: Pair, tmp_path: Path) -> None:
    _, base, _ = pair
    after = weights() | {"model.norm.weight": np.full(12, 7, np.float32)}
    with pytest.raises(NothingToAuditError, match=r"in no matrix, but in 1 other weight \(first model\.norm\.weight\)"):
        s3lora.scan_delta(model_folder(tmp_path / "norms", after), base)


def test_weights_that_the_base_lacks_are_said(pair: Pair, tmp_path: Path) -> None:
    tuned, _, _ = pair
    part = {name: value for name, value in weights().items() if not name.startswith(V)}
    part["lm_head.weight"] = part["lm_head.weight"][:-1]
    scan = s3lora.scan_delta(tuned, model_folder(tmp_path / "part", part))
    assert scan.base is not None
    assert scan.base.missing == ("lm_head.weight", f"{V}.weight")
    assert any("2 weights are not in part" in note for note in scan.warnings)


def test_quantised_and_damaged_weights_are_refused(pair: Pair, tmp_path: Path) -> None:
    _, base, _ = pair
    quantised = {f"{Q}.weight": np.ones((72, 1), np.uint8)}
    with pytest.raises(UnsupportedAdapterError, match="stored as uint8"):
        s3lora.scan_delta(model_folder(tmp_path / "q", quantised), base)
    damaged = weights()
    damaged[f"{V}.weight"][2, 3] = np.inf
    with pytest.raises(NonFiniteError, match=r"v_proj .8 × 12."):
        s3lora.scan_delta(model_folder(tmp_path / "d", damaged), base)
