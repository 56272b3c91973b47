"""`s3lora check` on the command line: report, JSON, SARIF, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from s3lora.compat.results import Check
from s3lora.report.schemas import schema
from tests.command import call
from tests.compat.test_check import ATTENTION, LLAMA, adapter
from tests.sarif_schema import official


def model(folder: Path, **change: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA, **change}))
    return folder


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = adapter(tmp_path, use_rslora=True)
    result = call(capsys, "check", folder, "--base", model(tmp_path / "m", num_key_value_heads=1))
    assert (result.status, result.err) == (0, "")
    for word in (
        "sglang 0.5.23",
        "fails",
        "grouped-query",
        "6 found; 4 with another shape",
        "--bake-scaling",
        "vllm 0.33.0",
    ):
        assert word in " ".join(result.out.split()), word
    fine = call(capsys, "check", adapter(tmp_path))
    assert "loads, and means the same" in fine.out
    assert "fails" not in fine.out


def test_the_json_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = adapter(tmp_path, use_rslora=True)
    result = call(
        capsys, "check", folder, "--base", model(tmp_path / "m"), "--format", "json", "--fail-on", "loader:sglang"
    )
    assert result.status == 1
    jsonschema.Draft202012Validator(json.loads(schema("check"))).validate(json.loads(result.out))
    made = msgspec.json.decode(result.out, type=Check)
    assert made["sglang"].verdict == "other"
    assert made.findings[0].rule_id == "S3L030"
    again = call(
        capsys, "check", folder, "--base", model(tmp_path / "m"), "--format", "json", "--fail-on", "loader:sglang"
    )
    assert again.out == result.out


@pytest.mark.parametrize("rules", [(), ("--fail-on", "loaders"), ("--fail-on", "modules")])
def test_the_sarif_is_valid(rules: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = adapter(tmp_path, use_dora=True)
    base = model(tmp_path / "m", num_hidden_layers=1)
    result = call(capsys, "check", folder, "--base", base, "--format", "sarif", *rules)
    log = json.loads(result.out)
    jsonschema.Draft7Validator(official(), format_checker=jsonschema.FormatChecker()).validate(log)
    assert result.status == int(bool(rules))
    run = log["runs"][0]
    assert run["invocations"][0]["exitCode"] == result.status
    assert run["results"]
    if not rules:
        assert {one["properties"]["loader"]: one["level"] for one in run["results"]}["vllm"] == "error"


def test_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = adapter(tmp_path, use_rslora=True)
    assert call(capsys, "check", folder).status == 0
    assert call(capsys, "check", folder, "--fail-on", "loader:vllm").status == 0
    failed = call(capsys, "check", folder, "--fail-on", "loader:sglang")
    assert (failed.status, failed.err.count("finding")) == (1, 1)
    for words in (("--loader", "nothing"), ("--base", "nowhere/at-all/here"), ("--fail-on", "ssi > 1")):
        result = call(capsys, "check", folder, *words)
        assert (result.status, result.err.count("\n")) == (2, 1)
    (tmp_path / "empty").mkdir()
    assert call(capsys, "check", tmp_path / "empty").status == 3
    out = tmp_path / "check.json"
    assert call(capsys, "check", folder, "--format", "json", "-o", out).status == 0
    assert len(json.loads(out.read_text())["modules"]) == len(ATTENTION)
