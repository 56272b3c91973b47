"""Scans held against rules as JUnit XML, which most CI systems show.

One suite an adapter, with a case `scan` and one for each rule, also for those that stand whenever there is one. What is
allowed is told in the output of `scan`. A rule that holds is a failure, an adapter that cannot
be scanned an error, one with nothing to audit is skipped. There are no times in it, so that equal inputs give equal
bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from s3lora.errors import printable
from s3lora.gate.audit import Audit, GateVerdict
from s3lora.gate.findings import Gate
from s3lora.report.sarif import placeless

#: The results of a case that suites count, in the order of their attributes.
COUNTED = ("failure", "error", "skipped")


@dataclass(frozen=True, slots=True)
class _Case:
    """`result` is one of `COUNTED`, or None for a case that passed; `note` is what it passed with."""

    name: str
    result: str | None = None
    kind: str = ""
    message: str = ""
    text: str = ""
    note: str = ""


def junit(audits: Sequence[Audit], gates: Sequence[Gate] = ()) -> str:
    """Return a `testsuites` document; `gates` are the rules, also for adapters that could not be scanned."""
    root = ET.Element("testsuites", name="s3lora scan")
    all_cases: list[_Case] = []
    for one in audits:
        cases = [_scan_case(one), *_rule_cases(one, gates)]
        suite = ET.SubElement(root, "testsuite", {"name": one.given.shown, **_counts(cases)})
        for case in cases:
            _append(suite, case, one.given.shown)
        all_cases += cases
    for name, value in _counts(all_cases).items():
        root.set(name, value)
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _counts(cases: Sequence[_Case]) -> dict[str, str]:
    found = Counter(case.result for case in cases)
    counts = {"tests": len(cases), "failures": found["failure"], "errors": found["error"], "skipped": found["skipped"]}
    return {name: str(value) for name, value in counts.items()}


def _append(suite: ET.Element, case: _Case, place: str) -> None:
    element = ET.SubElement(suite, "testcase", classname=place, name=case.name)
    if case.result == "skipped":
        ET.SubElement(element, "skipped", message=case.message)
    elif case.result is not None:
        ET.SubElement(element, case.result, type=case.kind, message=case.message).text = case.text or case.message
    if case.note:
        ET.SubElement(element, "system-out").text = case.note


def _scan_case(one: Audit) -> _Case:
    if one.error is not None:
        result = "skipped" if one.error.exit_status == 3 else "error"
        return _Case("scan", result, type(one.error).__name__, placeless(one.error))
    note = "\n".join(map(str, one.allowed))
    if one.incomplete:
        return _Case("scan", "error", "IncompleteScan", one.incomplete, note=note)
    return _Case("scan", note=note)


def _rule_cases(one: Audit, gates: Sequence[Gate]) -> list[_Case]:
    if one.error is not None:
        return [_Case(_name(gate), "skipped", message="the adapter was not scanned") for gate in gates]
    return [_rule_case(verdict) for verdict in one.verdicts]


def _name(gate: Gate) -> str:
    return f"{gate.id} {gate}"


def _rule_case(verdict: GateVerdict) -> _Case:
    name = _name(verdict.gate)
    known = "\n".join(f"known: {found.message}" for found in verdict.known)
    if not verdict.new:
        unknown = "some modules have no value for the rule" if verdict.unseen else ""
        return _Case(name, "skipped" if unknown else None, message=unknown, note=known)
    first = verdict.new[0].message
    message = first if len(verdict.new) == 1 else f"{len(verdict.new)} modules meet the rule {verdict.gate}; {first}"
    text = "\n".join(found.message for found in verdict.new)
    return _Case(name, "failure", verdict.gate.id, printable(message, 400), text, known)
