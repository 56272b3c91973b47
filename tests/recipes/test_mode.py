"""The recipe for a mode: its option, what it writes, and every command and page that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.planning import PREFIX, tensors_of
from tests.recipes.recipe import Copy, follow
from tests.support import make_adapter

PATHS = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(4)]
AMOUNT = 0.25


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A mode", tmp_path_factory.mktemp("mode"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", dict.fromkeys(PATHS, (12, 10, 3)), dtype="float16")


def test_what_it_writes_and_what_is_said_of_it(toy: Copy, adapter: Path, tmp_path: Path) -> None:
    out, half = tmp_path / "out", tmp_path / "half"
    given = ("prune", adapter, "--mode", "shrink", "--amount", AMOUNT, "--only", "[01]", "--top", "2", "--force-flat")
    shown = toy.run(
        (*given, "-o", out, "--format", "json"),
        *((*given, "-o", tmp_path / form, "--format", form) for form in ("text", "csv", "html")),
        ("restore", out, "--from", adapter, "-o", tmp_path / "back"),
        ("restore", out, "--from", adapter, "-o", half, "--module", PATHS[0]),
        ("card", out),
        ("bom", out),
        ("prune", "--help"),
    )
    assert [result.status for result in shown] == [0] * len(shown), shown
    record = json.loads(shown[0].out)
    assert (record["mode"], record["settings"]) == ("shrink", {"amount": AMOUNT})
    before, after = tensors_of(adapter), tensors_of(out)
    for name, values in before.items():
        b = values.astype(np.float64)
        shrunk = np.sign(b) * np.maximum(np.abs(b) - AMOUNT, 0)
        changed = any(name == f"{PREFIX}{path}.lora_B.weight" for path in PATHS[:2])
        assert np.array_equal(after[name], shrunk.astype(np.float16) if changed else values)
    assert all(np.array_equal(values, before[name]) for name, values in tensors_of(tmp_path / "back").items())
    partly = tensors_of(half)
    for path, whole in ((PATHS[0], before), (PATHS[1], after)):
        name = f"{PREFIX}{path}.lora_B.weight"
        assert np.array_equal(partly[name], whole[name])
    assert "2 shrunk" in " ".join(shown[1].out.split())
    assert "shrunk" in shown[2].out
    assert "shrink, for peft" in shown[3].out
    assert "2 shrunk" in (out / "README.md").read_text()
    assert "2 shrunk" in shown[-2].out
    assert "--amount X" in shown[-1].out


def test_its_option_is_checked(toy: Copy, adapter: Path, tmp_path: Path) -> None:
    idle, wrong, word = toy.run(
        ("prune", adapter, "-o", tmp_path / "out", "--amount", "1"),
        ("prune", adapter, "-o", tmp_path / "out", "--mode", "shrink", "--amount", "0"),
        ("prune", adapter, "-o", tmp_path / "out", "--mode", "shrink", "--amount", "much"),
    )
    assert (idle.status, idle.err) == (2, "s3lora: --amount does nothing without --mode shrink\n")
    assert (wrong.status, wrong.err) == (2, "s3lora: shrinking by 0.0 changes nothing; give a positive number\n")
    assert word.status == 2
    assert "'much' is not a valid float" in word.err
    assert not (tmp_path / "out").exists()
