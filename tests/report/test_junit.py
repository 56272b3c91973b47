"""JUnit XML: well-formed whatever the names, counted right, read by a library of others, and one with the text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import junitparser
import pytest

from s3lora.errors import AdapterFileError, printable
from s3lora.gate.audit import Audit, GateVerdict
from s3lora.gate.conditions import CONDITIONS
from s3lora.gate.findings import Finding, Gate
from s3lora.gate.places import Place
from s3lora.measure.scan import scan
from s3lora.report.junit import junit
from tests.command import call
from tests.gated import LAYERS, damaged, good
from tests.hostile import bad_files as bad
from tests.support import make_adapter, shared

#: Conditions that are asked with any rule.
STANDING = [name for name, condition in CONDITIONS.items() if condition.standing]
#: Element → (attributes, children), as most readers take them; times are left out.
FORM = {
    "testsuites": ({"name", "tests", "failures", "errors", "skipped"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped"}, {"testcase"}),
    "testcase": ({"classname", "name"}, {"skipped", "failure", "error", "system-out"}),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"message"}, set()),
    "system-out": (set(), set()),
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cases(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (suite, case) → (result, message), having checked the document."""
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ')
    assert text.endswith(("</testsuites>\n", "/>\n"))
    root = ET.fromstring(text.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = FORM[element.tag]
        assert set(element.keys()) == attributes
        assert {child.tag for child in element} <= children
    for level in (root, *root):
        found = list(level.iter("testcase"))
        assert int(level.get("tests", "")) == len(found)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(level.get(name, "")) == sum(case.find(tag) is not None for case in found)
    seen = {}
    for suite in junitparser.JUnitXml.fromroot(root):
        for case in suite:
            assert len(case.result) <= 1
            result = case.result[0] if case.result else None
            seen[suite.name, case.name] = ("passed", "") if result is None else (type(result).__name__, result.message)
    assert len(seen) == int(root.get("tests", ""))
    return seen


def test_a_case_for_each_adapter_and_rule(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = LAYERS
    good(desk / "x" / "a")
    damaged(desk / "b", first)
    bad.empty_folder(desk / "empty")
    bad.weights(bad.POINTER)(desk / "pointer")
    rules = ("--fail-on", "ssi > 0.3", "--fail-on", "nonfinite")
    result = call(capsys, "scan", "x/a", "b", "empty", "pointer", *rules, "--format", "junit")
    assert result.status == 2
    found = cases(result.out)
    a, b = "x/a", "b"
    assert {key: value[0] for key, value in found.items()} == {
        (a, "scan"): "passed",
        (a, "S3L001 ssi > 0.3"): "Failure",
        (a, "S3L004 nonfinite > 0"): "passed",
        (b, "scan"): "passed",
        (b, "S3L001 ssi > 0.3"): "Failure",
        (b, "S3L004 nonfinite > 0"): "Failure",
        ("empty", "scan"): "Skipped",
        ("empty", "S3L001 ssi > 0.3"): "Skipped",
        ("empty", "S3L004 nonfinite > 0"): "Skipped",
        ("pointer", "scan"): "Error",
        ("pointer", "S3L001 ssi > 0.3"): "Skipped",
        ("pointer", "S3L004 nonfinite > 0"): "Skipped",
    } | {
        (adapter, f"{CONDITIONS[name].id} {name} > 0"): "passed" if adapter in (a, b) else "Skipped"
        for adapter in (a, b, "empty", "pointer")
        for name in STANDING
    }
    assert found[b, "S3L004 nonfinite > 0"][1] == f"nonfinite is 1 ({first}), rule nonfinite > 0"
    assert "is a Git LFS pointer" in found["pointer", "scan"][1]
    told = [line.partition("x/a: finding: ")[2] for line in result.err.splitlines() if "x/a: finding" in line]
    text = next(element.text for element in ET.fromstring(result.out.encode()).iter("failure"))
    assert text is not None
    assert text.splitlines() == told, "the text and JUnit tell the same"


def test_without_a_rule(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "a")
    assert list(cases(call(capsys, "scan", "a", "--format", "junit").out).values()) == [("passed", "")]


def test_an_incomplete_scan_is_an_error(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_adapter(desk / "a", {"h.0.q_proj": (8, 12, 2), "h.1.q_proj": (12, 8, 2)})
    found = cases(call(capsys, "scan", "a", "--method", "released", "--format", "junit").out)
    assert list(found.values()) == [("Error", "the scan is incomplete: 1 of 2 modules have no index")]


def test_what_is_known_passes_and_is_noted(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "a")
    call(capsys, "scan", "a", "--fail-on", "selected", "--format", "sarif", "-o", "known.sarif")
    result = call(capsys, "scan", "a", "--fail-on", "selected", "--baseline", "known.sarif", "--format", "junit")
    assert result.status == 0
    assert {value[0] for value in cases(result.out).values()} == {"passed"}
    assert "known: selected is 4, rule selected &gt; 0" in result.out


@pytest.mark.parametrize(
    "name", ["<&>\"'", "]]>", "\x00\x1b[31m\n\x85", "\ud800\ufffe\uffff", "\u202eabc", "{0}", "é×", "x" * 100_000]
)
def test_hostile_names(name: str, desk: Path) -> None:
    gate = Gate.parse("ssi > 0")
    finding = Finding(str(gate), gate.id, name, 1.0, 0.0, f"{printable(name)}: ssi is 1, rule ssi > 0")
    one = Audit(
        path=name,
        given=Place("a"),
        place=Place("a/w"),
        scan=scan(good(desk / "a")),
        verdicts=(GateVerdict(gate, (finding,)),),
    )
    error = AdapterFileError(f"is {printable(name)}", file=name, module=name)
    found = cases(junit([one, Audit(path=name, given=Place("b"), place=Place("b"), error=error)], [gate]))
    assert len(found) == 4


def test_hostile_files(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a\nb", "<b>&", os.fsdecode(b"\xff"), "z\x01"]
    for name in names:
        good(desk / name)
    result = call(capsys, "scan", *names, "nowhere\x02", "--fail-on", "ssi > 0", "--format", "junit")
    assert len(cases(result.out)) == (2 + len(STANDING)) * 5


def test_it_tells_nothing_of_where_or_when(desk: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    for name in ("one", "two"):
        good(desk / name / "a")
        monkeypatch.chdir(desk / name)
        texts.append(call(capsys, "scan", "a", "nowhere", "--fail-on", "ssi > 0", "--format", "junit").out)
    assert texts[0] == texts[1]
    assert str(desk) not in texts[0]


@pytest.mark.thorough
def test_real_adapters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared() / "adapters"
    monkeypatch.chdir(folder)
    paths = sorted(path.name for path in folder.iterdir() if path.is_dir())
    found = cases(call(capsys, "scan", *paths, "--fail-on", "ssi > 0.6", "--format", "junit").out)
    assert len(found) == (2 + len(STANDING)) * len(paths)
    assert [value[0] for (_, case), value in found.items() if case == "scan"].count("Error") == 3
