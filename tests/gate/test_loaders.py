"""Rules about loaders: a scan asks what a check asks, by the same rule, and every report tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import numpy as np
import pytest

from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.inventory.model import Inventory
from s3lora.adapter.model import Adapter
from s3lora.choose.select import select
from s3lora.compat.checking import check
from s3lora.errors import UsageError
from s3lora.gate.audit import Terms, audit
from s3lora.gate.findings import Gate
from s3lora.measure.scan import scan
from tests.command import Result, call
from tests.gated import LAYERS, good
from tests.sarif_schema import official
from tests.support import make_adapter, write_safetensors

RANKS = {"r": 4, "lora_alpha": 8, "alpha_pattern": {"q_proj": 16}}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "good")
    make_adapter(tmp_path / "scaled", LAYERS, config=RANKS)
    make_adapter(tmp_path / "dora", LAYERS, config={"use_dora": True})
    return tmp_path


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("good", "loader:peft"),
        ("good", "loader:vllm"),
        ("good", "loader:mlx"),
        ("good", "loader:vllm=0.10.0"),
        ("scaled", "loader:peft"),
        ("scaled", "loader:vllm"),
        ("scaled", "loader:vllm=0.10.0"),
        ("scaled", "loader:sglang"),
        ("dora", "loader:vllm"),
    ],
)
def test_a_scan_finds_what_a_check_finds(path: str, rule: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = rule.removeprefix("loader:")
    asked = check(path, loaders=[name], fail_on=[rule])
    result = call(capsys, "scan", path, "-q", "--fail-on", rule, "--allow", "dead-modules")
    told = [line for line in result.err.splitlines() if "allowed:" not in line]
    assert told == [f"s3lora: {path}: finding: {one.message}" for one in asked.findings]
    assert result.status == len(asked.findings) == (asked.loaders[0].verdict != "same")


def test_a_version_decides(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "scan", "scaled", "-q", "--fail-on", "loader:vllm=0.33.0").status == 0
    old = call(capsys, "scan", "scaled", "-q", "--fail-on", "loader:vllm=0.10.0")
    assert old.status == 1
    assert "finding: vllm 0.10.0 loads, and means something else: the adapter scales modules by patterns" in old.err


def test_the_base_counts_where_its_weights_are_given(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = desk / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    paths = [*LAYERS][:-1]
    write_safetensors(base / "model.safetensors", {f"{path}.weight": np.ones((16, 12), np.float32) for path in paths})
    assert call(capsys, "scan", "good", "-q", "--fail-on", "loader:peft").status == 0
    found = call(capsys, "scan", "good", "-q", "--fail-on", "loader:peft", "--base-weights", "base")
    assert found.status == 1, found.err
    assert "1 modules that the base has not (model.layers.3.self_attn.v_proj)" in found.err


def test_a_policy_asks_for_a_loader(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "s3lora.toml").write_text('fail-on = [\n "nonfinite",\n "loader:sglang=0.5.23",\n]\n')
    assert call(capsys, "scan", "good", "-q").status == 0
    found = call(capsys, "scan", "scaled", "-q")
    assert (found.status, "finding: sglang 0.5.23" in found.err) == (1, True)
    (desk / "s3lora.toml").write_text('fail-on = [\n "nonfinite",\n "loader:slang",\n]\n')
    wrong = call(capsys, "scan", "good", "-q")
    assert wrong.status == 2
    assert wrong.err.startswith("s3lora: s3lora.toml:3: fail-on: no loader 'slang'; did you mean sglang?")


@pytest.mark.parametrize("rule", ["loader:", "loader:nobody", "loader:vllm=", "loader:vllm=new", "loader:vllm > 0"])
def test_what_is_no_rule(rule: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        Gate.parse(rule)
    result = call(capsys, "scan", "good", "-q", "--fail-on", rule)
    assert (result.status, result.out) == (2, "")


def test_one_rule_however_it_is_written() -> None:
    gate = Gate.parse("  loader:vllm=0.33.0 ")
    assert (str(gate), gate.id, Gate.parse(str(gate))) == ("loader:vllm=0.33.0", "S3L030", gate)


def test_every_report_tells_it(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("scan", "scaled", "--fail-on", "loader:vllm=0.10.0", "--format")
    (message,) = (one.message for one in check("scaled", fail_on=["loader:vllm=0.10.0"]).findings)
    document = json.loads(call(capsys, *options, "json").out)
    (found,) = document["gate"]["findings"]
    assert (found["rule"], found["rule_id"], found["message"]) == ("loader:vllm=0.10.0", "S3L030", message)
    assert found["counted"] == [path for path in LAYERS if path.endswith("q_proj")]
    text = call(capsys, *options, "sarif").out
    jsonschema.Draft7Validator(official(), format_checker=jsonschema.FormatChecker()).validate(json.loads(text))
    run = json.loads(text)["runs"][0]
    (result,) = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["name"] == "LoaderVerdict"
    assert result["message"]["text"] == f"scaled: {message}, rule loader:vllm=0.10.0."
    cases = ET.fromstring(call(capsys, *options, "junit").out).iter("testcase")
    assert {case.get("name"): len(case) for case in cases}["S3L030 loader:vllm=0.10.0"] == 1


def test_a_baseline_knows_it(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: tuple[Any, ...] = ("--fail-on", "loader:vllm=0.10.0", "--fail-on", "loader:mlx")
    assert call(capsys, "scan", "scaled", *options, "--format", "sarif", "-o", "known.sarif").status == 1
    assert call(capsys, "scan", "scaled", *options, "--baseline", "known.sarif", "-q").status == 0
    make_adapter(desk / "scaled", LAYERS, config={**RANKS, "alpha_pattern": {"q_proj": 16, "v_proj": 32}})
    again = call(capsys, "scan", "scaled", *options, "--baseline", "known.sarif", "-q")
    assert again.status == 1, "modules that were scaled rightly then"
    assert [line for line in again.err.splitlines() if "finding: mlx" in line] == []


def test_a_whole_model_has_no_loader(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", "--delta", "a", "--base-weights", "b", "--fail-on", "loader:peft")
    assert result == Result(2, "", "s3lora: the rule loader:peft needs an adapter; a whole model is none\n")


def test_a_scan_alone_does_not_tell(desk: Path) -> None:
    with pytest.raises(UsageError, match=r"the rule loader:peft needs the adapter, and not its scan alone"):
        audit("good", scan, Terms(choose=select, gates=(Gate.parse("loader:peft"),)))


def test_the_inventory_of_a_scan_is_not_made_again_for_a_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files were read for the scan."""
    taken = []

    def counting(adapter: Adapter, *given: Any) -> Inventory:
        taken.append(adapter.name)
        return inventory_of(adapter, *given)

    monkeypatch.setattr("s3lora.measure.scan.inventory_of", counting)
    monkeypatch.setattr("s3lora.adapter.open.inventory_of", counting)
    folder = make_adapter(tmp_path / "a", {"model.layers.0.self_attn.q_proj": (16, 12, 4)})
    assert call(capsys, "scan", folder, "--fail-on", "loader:vllm", "--fail-on", "loader:peft").status in (0, 1)
    assert taken == ["a"]
