"""A baseline: what an earlier run found does not count again, and what it did not find always counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from s3lora.choose.select import select
from s3lora.errors import UsageError
from s3lora.gate import baseline as module
from s3lora.gate.audit import Terms, audit
from s3lora.gate.baseline import Baseline, Known, fingerprint_of, read_baseline
from s3lora.gate.findings import Finding, Gate
from s3lora.gate.places import Place
from s3lora.measure.scan import scan
from tests.command import Result, call
from tests.gated import LAYERS, damaged, good

PLACE = Place("adapters/a/w.safetensors")
SSI = Gate.parse("ssi > 0.5")
COUNT = Gate.parse("selected > 1")


def of_module(path: str, value: float = 0.9, gate: Gate = SSI) -> Finding:
    return Finding(str(gate), gate.id, path, value, gate.limit, "")


def of_count(*paths: str, gate: Gate = COUNT) -> Finding:
    return Finding(str(gate), gate.id, None, len(paths), gate.limit, "", paths)


def before(*results: tuple[str, Gate, tuple[str, ...]]) -> Baseline:
    return Baseline(tuple(Known(Place(uri), str(gate), gate.id, paths, "", ()) for uri, gate, paths in results))


def test_modules_are_known_one_by_one() -> None:
    earlier = before((PLACE.uri, SSI, ("p", "q")))
    findings = [of_module("p", 0.6), of_module("r"), of_module("q", 0.99)]
    assert earlier.known(PLACE, SSI, findings) == (findings[0], findings[2]), "whatever their values"


def test_another_rule_or_another_adapter_is_new() -> None:
    earlier = before((PLACE.uri, SSI, ("p",)))
    assert earlier.known(PLACE, Gate.parse("ssi > 0.4"), [of_module("p")]) == ()
    assert earlier.known(PLACE, Gate.parse("ssi >= 0.5"), [of_module("p")]) == ()
    assert earlier.known(Place("adapters/b/w.safetensors"), SSI, [of_module("p")]) == ()
    assert before().known(PLACE, SSI, [of_module("p")]) == ()


@pytest.mark.parametrize(
    ("rule", "then", "now", "known"),
    [
        ("selected > 1", "pqr", "pqr", True),
        ("selected > 1", "pqr", "pq", True),
        ("selected > 1", "pqr", "pqs", False),
        ("selected > 1", "pqr", "pqrs", False),
        ("selected >= 0", "", "", True),
        ("selected < 5", "pqr", "pqr", True),
        ("selected < 5", "pqr", "pq", False),
        ("selected == 2", "pq", "pr", False),
    ],
)
def test_counts(rule: str, then: str, now: str, known: bool) -> None:
    gate = Gate.parse(rule)
    finding = of_count(*now, gate=gate)
    assert bool(before((PLACE.uri, gate, tuple(then))).known(PLACE, gate, [finding])) is known


def test_a_baseline_seen_from_another_folder() -> None:
    earlier = before(("repo/adapters/a/w", SSI, ("p",)))
    assert earlier.known(Place("a/w", outside=True), SSI, [of_module("p")])
    assert not earlier.known(Place("w"), SSI, [of_module("p")]), "a bare file could be any adapter's"
    two = before(("x/a/w", SSI, ("p", "q")), ("y/a/w", SSI, ("q", "r")))
    assert two.known(Place("x/a/w"), SSI, [of_module("p")]), "the very place goes first"
    assert not two.known(Place("z/a/w"), SSI, [of_module("q")])
    assert two.known(Place("a/w"), SSI, [of_module("q"), of_module("p")]) == (of_module("q"),), "what both have"


def test_fingerprints() -> None:
    findings = [of_module("p", 0.9), of_module("q", 0.8)]
    print_ = fingerprint_of(PLACE, SSI, findings)
    assert len(print_) == 32
    assert int(print_, 16)
    noisy = [of_module("q", 0.8 + 1e-13), of_module("p", 0.9 - 1e-13)]
    assert fingerprint_of(PLACE, SSI, noisy) == print_, "neither values nor order"
    assert fingerprint_of(Place("elsewhere/a/w.safetensors", outside=True), SSI, findings) == print_
    assert fingerprint_of(Place("adapters/b/w.safetensors"), SSI, findings) != print_
    assert fingerprint_of(PLACE, Gate.parse("ssi > 0.6"), findings) != print_
    assert fingerprint_of(PLACE, SSI, findings[:1]) != print_
    assert fingerprint_of(PLACE, COUNT, [of_count("p", "q")]) != fingerprint_of(PLACE, COUNT, [of_count("pq")])


def test_fingerprints_are_the_same_in_every_release() -> None:
    """GitHub closes all alerts and opens new ones when they change."""
    assert fingerprint_of(PLACE, SSI, [of_module("p")]) == "678454d0641c35ec1ad871fe7789ee5e"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "x" / "a")
    return tmp_path


def run(capsys: Any, *arguments: str, status: int) -> Result:
    result = call(capsys, "scan", *arguments)
    assert result.status == status, result.err
    return result


def results(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.out)["runs"][0]["results"]
    return found


def test_only_what_is_new_counts(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = ("--fail-on", "ssi > 0.3", "--fail-on", "selected")
    first = run(capsys, "x/a", *rules, "--format", "sarif", "-o", "known.sarif", status=1)
    told = len(first.err.splitlines())
    assert told > 2
    again = run(capsys, "x/a", *rules, "--baseline", "known.sarif", status=0)
    assert again.err == f"s3lora: known.sarif: {told} findings are known and not counted\n"
    more = run(capsys, "x/a", *rules, "--fail-on", "magnitude > 0", "--baseline", "known.sarif", status=1)
    assert sum(": finding: " in line for line in more.err.splitlines()) == len(LAYERS)
    good(desk / "x" / "b", seed=1)
    other = run(capsys, "x/b", *rules, "--baseline", "known.sarif", status=1)
    assert "known" not in other.err


def test_a_rule_in_another_spelling_is_the_same(desk: Path, capsys: Any) -> None:
    run(capsys, "x/a", "--fail-on", "selected", "--fail-on", "stable-rank > 0", "--format", "sarif", "-o", "a.sarif",
        status=1)  # fmt: skip
    known = Path("a.sarif")
    text = known.read_text()
    assert '"stable_rank > 0"' in text
    known.write_text(text.replace('"stable_rank > 0"', '"stable-rank > 0"'))
    told = run(capsys, "x/a", "--fail-on", "stable_rank > 0", "--baseline", "a.sarif", status=0)
    assert "known and not counted" in told.err


def test_the_same_adapter_from_elsewhere(desk: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(capsys, "x/a", "--fail-on", "selected", "--format", "sarif", "-o", "known.sarif", status=1)
    monkeypatch.chdir(desk / "x")
    run(capsys, "a", "--fail-on", "selected", "--baseline", "../known.sarif", status=0)
    (desk / "y").mkdir()
    monkeypatch.chdir(desk / "y")
    run(capsys, str(desk / "x" / "a"), "--fail-on", "selected", "--baseline", "../known.sarif", status=0)
    shutil.copytree(desk / "x" / "a", desk / "y" / "a")
    run(capsys, str(desk / "y" / "a"), "--fail-on", "selected", "--baseline", "../known.sarif", status=0)
    monkeypatch.chdir(desk)
    run(capsys, "y/a", "--fail-on", "selected", "--baseline", "known.sarif", status=1)


def test_an_adapter_below_another_folder_is_not_the_one_that_is_known(desk: Path, capsys: Any) -> None:
    run(capsys, "x/a", "--fail-on", "selected", "--format", "sarif", "-o", "known.sarif", status=1)
    shutil.copytree(desk / "x", desk / "sent" / "x")
    run(capsys, "sent/x/a", "--fail-on", "selected", "--baseline", "known.sarif", status=1)
    (desk / "here").mkdir()
    shutil.copytree(desk / "x/a", desk / "here/a")
    run(capsys, "here/a", "--fail-on", "selected", "--format", "sarif", "-o", "here.sarif", status=1)
    found = results(
        run(capsys, "x/a", "--fail-on", "selected", "--format", "sarif", "--baseline", "here.sarif", status=1)
    )
    assert [one["baselineState"] for one in found] == ["new"], "nor is the known one gone, which was not looked at"


def test_adapters_outside_are_known_by_three_names(desk: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(desk / "x" / "a", desk / "y" / "a")
    (desk / "repo").mkdir()
    monkeypatch.chdir(desk / "repo")
    run(capsys, "../x/a", "--fail-on", "selected", "--format", "sarif", "-o", "known.sarif", status=1)
    run(capsys, "../x/a", "--fail-on", "selected", "--baseline", "known.sarif", status=0)
    run(capsys, "../y/a", "--fail-on", "selected", "--baseline", "known.sarif", status=1)


def test_states_in_sarif(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = LAYERS
    damaged(desk / "x" / "a", first)
    rules = ("--fail-on", "nonfinite", "--fail-on", "selected")
    before_ = run(capsys, "x/a", *rules, "--format", "sarif", "-o", "known.sarif", status=1)
    assert before_.out == ""
    assert not any(
        "baselineState" in result for result in json.loads(Path("known.sarif").read_text())["runs"][0]["results"]
    )
    sarif = (*rules, "--format", "sarif", "--baseline", "known.sarif")
    assert [one["baselineState"] for one in results(run(capsys, "x/a", *sarif, status=0))] == ["unchanged"] * 2
    damaged(desk / "x" / "a", first, second)
    new, *_ = results(run(capsys, "x/a", *sarif, status=1))
    assert new["baselineState"] == "new"
    assert [found["name"] for found in new["properties"]["counted"]] == [first, second], "it is the next baseline"
    good(desk / "x" / "a")
    gone = run(capsys, "x/a", *sarif, "-o", "next.sarif", status=1)
    found = json.loads(Path("next.sarif").read_text())["runs"][0]["results"]
    assert gone.err.startswith("s3lora: x/a: finding: selected is 4")
    assert [(one["ruleId"], one["baselineState"]) for one in found] == [("S3L002", "new"), ("S3L004", "absent")]
    known = json.loads(Path("known.sarif").read_text())["runs"][0]["results"][0]
    for key in ("message", "partialFingerprints", "ruleIndex", "level"):
        assert found[1][key] == known[key]
    damaged(desk / "x" / "a", first)
    run(capsys, "x/a", "--fail-on", "nonfinite", "--baseline", "next.sarif", status=1)


def test_what_was_not_looked_at_is_not_absent(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = LAYERS
    damaged(desk / "x" / "a", first)
    good(desk / "x" / "b")
    run(capsys, "x/a", "--fail-on", "nonfinite", "--format", "sarif", "-o", "known.sarif", status=1)
    good(desk / "x" / "a")
    sarif = ("--format", "sarif", "--baseline", "known.sarif")
    assert results(run(capsys, "x/b", "--fail-on", "nonfinite", *sarif, status=0)) == []
    assert results(run(capsys, "x/a", "--fail-on", "zero-updates", *sarif, status=0)) == []
    assert len(results(run(capsys, "x/a", "--fail-on", "nonfinite", *sarif, status=0))) == 1


def test_it_is_named_from_where_its_policy_lies(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "ci").mkdir()
    run(capsys, "x/a", "--fail-on", "selected", "--format", "sarif", "-o", "ci/known.sarif", status=1)
    (desk / "ci" / "p.toml").write_text('fail-on = ["selected"]\nbaseline = "known.sarif"\n')
    result = run(capsys, "x/a", "--policy", "ci/p.toml", status=0)
    assert result.err.endswith("s3lora: ci/known.sarif: 1 finding is known and not counted\n")


def test_it_needs_a_rule(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "x/a", "--baseline", "known.sarif", status=2)
    assert result.err == "s3lora: --baseline does nothing without --fail-on RULE\n"


def log(*runs: Any, version: str = "2.1.0") -> str:
    return json.dumps({"version": version, "runs": runs})


DRIVER = {"tool": {"driver": {"name": "s3lora"}}}
BAD = {
    "nothing": ("", "is not valid JSON"),
    "no-json": ("{'a': 1}", "is not valid JSON"),
    "no-text": (b"\xff\xfe", "is not valid JSON"),
    "deep": ('{"x":' + "[" * 100_000, "is not valid JSON"),
    "an-array": ("[]", "is no SARIF file of s3lora"),
    "a-scan": (json.dumps({"schema_version": 1, "modules": []}), "is no SARIF file of s3lora"),
    "no-runs": (json.dumps({"version": "2.1.0"}), "is no SARIF file of s3lora"),
    "another-version": (log(DRIVER, version="2.0.0"), "is SARIF 2.0.0, not 2.1.0"),
    "another-tool": (log({"tool": {"driver": {"name": "pylint"}}}), "holds no run of s3lora"),
    "empty": (log(), "holds no run of s3lora"),
    "results-no-array": (log({**DRIVER, "results": 3}), "is no SARIF file of s3lora"),
    "no-message": (log({**DRIVER, "results": [{}]}), "is no SARIF file of s3lora"),
    "modules-no-array": (
        log({**DRIVER, "results": [{"message": {"text": ""}, "properties": {"modules": 1}}]}),
        "is no SARIF file of s3lora",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_baseline(name: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, says = BAD[name]
    (desk / "b.sarif").write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    result = run(capsys, "x/a", "--fail-on", "selected", "--baseline", "b.sarif", status=2)
    assert result.out == ""
    assert result.err.startswith(f"s3lora: b.sarif: {says}")
    assert result.err.count("\n") == 1
    assert result.err[:-1].isprintable()


def test_files_that_cannot_be_read(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk / "folder").mkdir()
    (desk / "large").write_bytes(b" " * 11)
    monkeypatch.setattr(module, "MAX_BASELINE", 10)
    for name, says in (
        ("nowhere", "cannot be read"),
        ("folder", "not a regular file"),
        ("large", "larger than 10 bytes"),
    ):
        with pytest.raises(UsageError, match=says):
            read_baseline(name)


def test_another_tools_runs_are_left_out(desk: Path) -> None:
    other = {"tool": {"driver": {"name": "other"}}, "results": [{"anything": 1}]}
    (desk / "b.sarif").write_text(log(other, {**DRIVER, "results": None}))
    assert read_baseline("b.sarif").results == ()


def test_a_baseline_is_what_was_found(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is read back is what the audit had."""
    run(capsys, "x/a", "--fail-on", "ssi > 0.3", "--format", "sarif", "-o", "known.sarif", status=1)
    (known,) = read_baseline("known.sarif").results
    one = audit("x/a", scan, Terms(choose=select, gates=(Gate.parse("ssi > 0.3"),)))
    assert set(known.modules) == {found.module for found in one.verdicts[0].new}
    assert (known.place, known.rule, known.rule_id) == (one.place, "ssi > 0.3", "S3L001")
