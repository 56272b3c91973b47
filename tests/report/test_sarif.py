"""SARIF: valid by the official schema and GitHub's limits, relative, deterministic, and one with the text."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest

from s3lora._version import __version__
from s3lora.choose.select import select
from s3lora.errors import AdapterFileError
from s3lora.gate.audit import Audit, GateVerdict, Terms, audit
from s3lora.gate.conditions import CONDITIONS
from s3lora.gate.findings import PERCENTILES, RANK, Finding, Gate
from s3lora.gate.places import Place
from s3lora.measure.scan import scan
from s3lora.report.sarif import SCHEMA, sarif
from s3lora.report.sarif_rules import RULES, SUMMARY, TROUBLES
from s3lora.spectrum.indices import INDICES
from tests.command import Result, call
from tests.gated import LAYERS, damaged, good
from tests.hostile import bad_files as bad
from tests.sarif_schema import official
from tests.support import make_adapter, shared

LEVELS = ("none", "note", "warning", "error")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(text: str) -> dict[str, Any]:
    """Return the only run of a SARIF file, having checked the file."""
    content = json.loads(text)
    jsonschema.Draft7Validator(official(), format_checker=jsonschema.FormatChecker()).validate(content)
    assert content["$schema"] == SCHEMA
    assert content["version"] == "2.1.0"
    (run,) = content["runs"]
    check_github(run)
    check_references(run)
    assert isinstance(run, dict)
    return run


def check_github(run: dict[str, Any]) -> None:
    """Check what GitHub documents: what it needs, and how long it may be."""
    for rule in run["tool"]["driver"]["rules"]:
        assert 0 < len(rule["id"]) <= 255
        assert 0 < len(rule["name"]) <= 255
        assert 0 < len(rule["shortDescription"]["text"]) <= 1024
        assert 0 < len(rule["fullDescription"]["text"]) <= 1024
        assert rule["help"]["text"] in rule["help"]["markdown"]
        properties = rule["properties"]
        if "security" in properties["tags"]:
            assert 0 < float(properties["security-severity"]) <= 10
        else:
            assert properties["problem.severity"] in ("error", "warning", "recommendation")
            assert "security-severity" not in properties
        assert rule["defaultConfiguration"]["level"] in LEVELS[1:]
        assert "helpUri" not in rule
    assert run["automationDetails"] == {"id": "s3lora/scan/"}
    assert len(run["results"]) <= 5000
    for result in run["results"]:
        assert result["message"]["text"]
        assert len(result["locations"]) == 1
        physical = result["locations"][0]["physicalLocation"]
        assert physical["region"] == {"startLine": 1}, "GitHub needs a line, and the whole file is meant"
        uri = physical["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=@%/-]+", uri), "no scheme, and all else encoded"
        assert not uri.startswith("/")
        assert ".." not in uri.split("/")
        if result.get("kind") != "informational":
            assert result["partialFingerprints"]["primaryLocationLineHash"]


def check_references(run: dict[str, Any]) -> None:
    """Check that every index and base leads to what it names."""
    rules, notices = run["tool"]["driver"]["rules"], run["tool"]["driver"]["notifications"]
    invocation = run["invocations"][0]
    told = invocation.get("toolExecutionNotifications", [])
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    for notice in told:
        assert notices[notice["descriptor"]["index"]]["id"] == notice["descriptor"]["id"]
    assert invocation["executionSuccessful"] is not bool(told)
    locations = [
        place["physicalLocation"]["artifactLocation"] for one in (*run["results"], *told) for place in one["locations"]
    ]
    for location in locations:
        assert location["uriBaseId"] in run["originalUriBaseIds"]
        if "index" in location:
            artifact = run["artifacts"][location["index"]]["location"]
            assert artifact == {key: location[key] for key in ("uri", "uriBaseId")}


def scanned(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], Result]:
    result = call(capsys, "scan", *arguments, "--format", "sarif")
    return run_of(result.out), result


def test_a_rule_that_holds_is_one_result(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "adapters" / "my adapter")
    run, result = scanned(capsys, "adapters/my adapter", "--fail-on", "ssi > 0.3", "--fail-on", "selected > 9")
    assert result.status == 1
    (found,) = run["results"]
    assert (found["ruleId"], found["level"]) == ("S3L001", "warning")
    location = found["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location == {"uri": "adapters/my%20adapter/adapter_model.safetensors", "uriBaseId": "%SRCROOT%", "index": 0}
    lines = [line for line in result.err.splitlines() if ": finding: " in line]
    modules = found["properties"]["counted"]
    assert len(modules) == len(lines) > 1, "the text and SARIF tell the same"
    assert {module["name"] for module in modules} == {line.split(": ")[3] for line in lines}
    values = [module["value"] for module in modules]
    assert values == sorted(values, reverse=True), "the worst first"
    text = found["message"]["text"]
    assert text.startswith(f"my adapter: {len(modules)} of 8 modules meet the rule ssi > 0.3. {modules[0]['name']} (")
    assert found["properties"]["rule"] == "ssi > 0.3"
    assert "baselineState" not in found


def test_the_run_says_what_it_was(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = good(desk / "a")
    run, _ = scanned(capsys, "a", "--fail-on", "ssi > 0", "--method", "svd", "--seed", "3")
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("s3lora", __version__)
    assert run["properties"]["configuration"]["method"] == "svd"
    assert run["invocations"] == [{"executionSuccessful": True, "exitCode": 1}]
    raw = (folder / "adapter_model.safetensors").read_bytes()
    (artifact,) = run["artifacts"]
    assert artifact["hashes"] == {"sha-256": hashlib.sha256(raw).hexdigest()}
    assert artifact["length"] == len(raw)


def test_every_kind_of_rule(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = LAYERS
    damaged(desk / "a", first)
    make_adapter(desk / "b", LAYERS, zero_b=[second])
    rules = ["ssi > 0.9999", "selected", "outliers >= 0", "nonfinite", "zero-updates", "stable-rank < 99"]
    options = [word for rule in rules for word in ("--fail-on", rule)]
    run, result = scanned(capsys, "a", "b", *options)
    assert result.status == 1
    found = [(one["ruleId"], one["level"]) for one in run["results"]]
    assert found == [
        ("S3L002", "warning"), ("S3L003", "warning"), ("S3L004", "error"), ("S3L001", "warning"),
        ("S3L002", "warning"), ("S3L003", "warning"), ("S3L005", "warning"), ("S3L001", "warning"),
    ]  # fmt: skip
    texts = [one["message"]["text"] for one in run["results"]]
    assert texts[2] == f"a: nonfinite is 1 of 8 modules, rule nonfinite > 0. It is {first}."
    assert texts[6] == f"b: zero-updates is 1 of 8 modules, rule zero-updates > 0. It is {second}."
    assert len({one["partialFingerprints"]["s3lora/v1"] for one in run["results"]}) == len(run["results"])


def test_without_a_rule_there_is_a_summary_and_no_finding(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "a")
    run, result = scanned(capsys, "a")
    (found,) = run["results"]
    assert (result.status, found["kind"], found["level"], found["ruleId"]) == (0, "informational", "none", "S3L000")
    assert found["message"]["text"].startswith("a: 8 modules measured. The sharpest by ssi: model.layers.")
    run, _ = scanned(capsys, "a", "--fail-on", "ssi > 1")
    assert run["results"] == [], "an empty list: it was looked for, and not found"


def test_errors_are_notifications(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "a")
    bad.empty_folder(desk / "empty")
    bad.weights(bad.POINTER)(desk / "pointer")
    run, result = scanned(capsys, "a", "empty", "pointer", "no where", "--fail-on", "selected > 99")
    assert result.status == 2
    invocation = run["invocations"][0]
    assert (invocation["executionSuccessful"], invocation["exitCode"], run["results"]) == (False, 2, [])
    told = invocation["toolExecutionNotifications"]
    assert [(one["descriptor"]["id"], one["level"]) for one in told] == [
        ("S3L901", "warning"), ("S3L900", "error"), ("S3L900", "error"),
    ]  # fmt: skip
    assert told[1]["message"]["text"].startswith("adapter_model.safetensors: is a Git LFS pointer")
    assert [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in told] == [
        "empty", "pointer", "no%20where",
    ]  # fmt: skip


def test_an_incomplete_scan_says_so(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_adapter(desk / "a", {"h.0.q_proj": (8, 12, 2), "h.1.q_proj": (12, 8, 2)})
    run, result = scanned(capsys, "a", "--method", "released", "--fail-on", "ssi > 0")
    assert result.status == 2
    (told,) = run["invocations"][0]["toolExecutionNotifications"]
    assert told["descriptor"]["id"] == "S3L902"
    assert told["message"]["text"] == "the scan is incomplete: 1 of 2 modules have no index"
    assert len(run["results"]) == 1, "what was found is told all the same"


def test_it_is_written_even_where_nothing_could_be_scanned(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", "nowhere", "--fail-on", "selected", "--format", "sarif", "-o", "out.sarif")
    assert (result.status, result.out) == (2, "")
    run = run_of(Path("out.sarif").read_text())
    assert (run["results"], run["artifacts"], run["invocations"][0]["executionSuccessful"]) == ([], [], False)


def test_nothing_tells_where_or_when(desk: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal adapters in two working directories give equal bytes."""
    texts = []
    for name in ("one", "two"):
        good(desk / name / "sub" / "a")
        bad.weights(b"")(desk / name / "sub" / "broken")
        monkeypatch.chdir(desk / name)
        paths = ("sub/a", desk / name / "sub" / "broken", "nowhere")
        texts.append(call(capsys, "scan", *paths, "--fail-on", "ssi > 0.3", "--format", "sarif").out)
        run_of(texts[-1])
    assert texts[0] == texts[1]
    assert str(desk) not in texts[0]
    assert os.uname().nodename not in texts[0]
    monkeypatch.chdir(desk)
    elsewhere = call(capsys, "scan", desk.parent / desk.name / "one" / "sub" / "a", "--format", "sarif").out
    assert json.loads(elsewhere)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "one/sub/a/adapter_model.safetensors", "uriBaseId": "%SRCROOT%", "index": 0,
    }  # fmt: skip


def test_outside_the_working_directory(desk: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good(desk / "secret" / "place" / "a")
    (desk / "repo").mkdir()
    monkeypatch.chdir(desk / "repo")
    run, result = scanned(capsys, "../secret/place/a", desk / "secret" / "nowhere", "--fail-on", "ssi > 0")
    location = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert (location["uri"], location["uriBaseId"]) == ("place/a/adapter_model.safetensors", "ADAPTERS")
    assert list(run["originalUriBaseIds"]) == ["ADAPTERS"]
    assert str(desk) not in result.out
    inside = good(desk / "repo" / "a")
    fingerprint = run["results"][0]["partialFingerprints"]
    assert scanned(capsys, inside, "--fail-on", "ssi > 0")[0]["results"][0]["partialFingerprints"] == fingerprint


def test_two_of_one_name_outside(desk: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = good(desk / "x/deep/a"), damaged(desk / "y/deep/a")
    (desk / "repo").mkdir()
    monkeypatch.chdir(desk / "repo")
    run, _ = scanned(capsys, "../x/deep/a", "../y/deep/a", "--fail-on", "selected >= 0")
    assert [one["location"]["uri"] for one in run["artifacts"]] == [
        f"{name}/deep/a/adapter_model.safetensors" for name in "xy"
    ]
    digests = [hashlib.sha256((one / "adapter_model.safetensors").read_bytes()).hexdigest() for one in (first, second)]
    assert [one["hashes"]["sha-256"] for one in run["artifacts"]] == digests


def test_shards_and_single_files(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sharded = bad.sharded()(desk / "sharded")
    run, _ = scanned(capsys, "sharded", "--fail-on", "ssi > 0")
    uris = {one["location"]["uri"] for one in run["artifacts"]}
    assert uris == {f"sharded/{file.name}" for file in sharded.glob("*.safetensors")}
    good(desk / "a")
    run, _ = scanned(capsys, "a/adapter_model.safetensors", "a", "--fail-on", "ssi > 0")
    assert len(run["artifacts"]) == 1, "one file, however it was named"


def hostile(name: str) -> Audit:
    """Return an audit with a finding in a module of this name; no scan lets all of them pass."""
    gate = Gate.parse("nonfinite")
    finding = Finding(str(gate), gate.id, None, 1, 0, "", (name,))
    measured = scan(good(Path("hostile") / "a"))
    return Audit(
        path="a", given=Place("a"), place=Place("a/w"), scan=measured, verdicts=(GateVerdict(gate, (finding,)),)
    )


@pytest.mark.parametrize(
    "name",
    [
        "{0} and {1}",
        "[click here](http://evil.example)",
        "\x1b[31m\n::error::x",
        "</script>",
        "x" * 5000,
        "\\[a](1)",
    ],
)
def test_hostile_names(name: str, desk: Path) -> None:
    run = run_of(sarif([hostile(name)]))
    text = run["results"][0]["message"]["text"]
    assert text.isprintable()
    assert len(text) < 1000
    assert not re.search(r"(?<!\{)\{\d", text), "no placeholder (§ 3.11.5)"
    assert not re.search(r"(?<!\\)\]\(", text), "no link (§ 3.11.6)"


def test_hostile_files(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a\nb", "q:r", "50%", "é", "[x](y)", "#?&", os.fsdecode(b"\xff"), "-x"]
    for name in names:
        good(desk / name)
    run = run_of(call(capsys, "scan", "--fail-on", "ssi > 0", "--format", "sarif", "--", *names).out)
    uris = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in run["results"]]
    assert [unquote(uri, errors="surrogateescape").split("/")[0] for uri in uris] == names
    assert all(result["message"]["text"].isprintable() for result in run["results"])


def test_errors_name_no_folder() -> None:
    error = AdapterFileError("is odd", file="/home/someone/secret/w.safetensors", module="m", fix="do this")
    place = Place("secret/a", outside=True)
    run = run_of(sarif([Audit(path="/home/someone/secret/a", given=place, place=place, error=error)]))
    text = run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    assert text == "w.safetensors m: is odd; do this"


def test_what_is_said_of_rules() -> None:
    ids = [one.id for one in (*RULES, SUMMARY, *TROUBLES)]
    assert len(set(ids)) == len(ids)
    rules = [f"{metric} > 0" for metric in (*INDICES, RANK, *PERCENTILES, *CONDITIONS)]
    assert {Gate.parse(rule).id for rule in (*rules, "loader:vllm")} == {rule.id for rule in RULES}
    for one in (*RULES, SUMMARY, *TROUBLES):
        assert re.fullmatch(r"[A-Z][A-Za-z]+", one.name)
        assert one.short.endswith(".")
        assert one.short.count(". ") == 0, "a single sentence"
        words = f"{one.short} {one.full} {one.help}".lower()
        assert "http" not in words
        assert not re.search(r"backdoor|malicious|\bsafe\b|unsafe", words), "no verdict on an adapter"


def test_a_finding_survives_training_again(desk: Path) -> None:
    """The same modules by other values are the same finding; a module more is another one."""
    gate = Gate.parse("ssi > 0")
    prints = []
    for name, seed in (("x", 0), ("y", 1)):
        folder = good(desk / name / "a", seed=seed)
        one = audit(str(folder), scan, Terms(choose=select, gates=(gate,)))
        prints.append(run_of(sarif([one]))["results"][0]["partialFingerprints"])
    assert prints[0] == prints[1]
    shutil.rmtree(desk / "y")
    make_adapter(desk / "y" / "a", LAYERS | {"model.layers.9.self_attn.q_proj": (16, 12, 4)})
    one = audit(str(desk / "y" / "a"), scan, Terms(choose=select, gates=(gate,)))
    assert run_of(sarif([one]))["results"][0]["partialFingerprints"] != prints[0]


def test_real_adapters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared() / "adapters"
    monkeypatch.chdir(folder.parent)
    paths = sorted(f"adapters/{path.name}" for path in folder.iterdir() if path.is_dir())
    run, result = scanned(capsys, *paths, "--fail-on", "ssi > 0.6", "--fail-on", "zero-updates")
    assert result.status == 2
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 3
    assert len(run["artifacts"]) == 8
    assert run["results"]
