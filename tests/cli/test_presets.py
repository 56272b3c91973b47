"""`--preset`: one name for method, index and rule, and what is written beside it goes before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s3lora.choose.presets import PRESETS
from tests.command import call
from tests.support import make_adapter

LAYERS = {f"model.layers.{i}.self_attn.{name}": (16, 12, 4) for i in range(7) for name in ("q_proj", "v_proj")}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("preset") / "adapter", LAYERS)


def plan(capsys: pytest.CaptureFixture[str], adapter: Path, *options: str) -> tuple[str, Any]:
    """Return the method and the plan of a scan."""
    result = call(capsys, "scan", adapter, "--format", "json", *options)
    assert (result.status, result.err) == (0, "")
    document = json.loads(result.out)
    return document["configuration"]["method"], document["plan"]


def test_the_paper_takes_ten_by_ssi(capsys: pytest.CaptureFixture[str], adapter: Path) -> None:
    method, found = plan(capsys, adapter, "--preset", "paper")
    assert (method, found["index"], found["rule"], len(found["chosen"])) == ("mas-svd", "ssi", "top 10", 10)
    # Not the default, which stops at half of the fourteen.
    assert len(plan(capsys, adapter)[1]["chosen"]) == 7


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_its_parts_are(capsys: pytest.CaptureFixture[str], adapter: Path, name: str) -> None:
    preset = PRESETS[name]
    method, found = plan(capsys, adapter, "--preset", name)
    assert (method, found["index"], found["rule"]) == (preset.method, preset.index, str(preset.rule))


def test_options_beside_a_preset_go_before(capsys: pytest.CaptureFixture[str], adapter: Path) -> None:
    for order in (("--preset", "paper", "--index", "magnitude"), ("--index", "magnitude", "--preset", "paper")):
        method, found = plan(capsys, adapter, *order, "--method", "svd", "--fraction", "0.5")
        assert (method, found["index"], found["rule"], len(found["chosen"])) == ("svd", "magnitude", "fraction 0.5", 7)


def test_no_other_name(capsys: pytest.CaptureFixture[str], adapter: Path) -> None:
    result = call(capsys, "scan", adapter, "--preset", "best")
    assert result.status == 2
    assert "'best' is not" in result.err
