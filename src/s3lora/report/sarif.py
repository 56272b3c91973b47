"""Scans held against rules as SARIF 2.1.0 (OASIS Standard, with Errata 01).

One result for each rule that holds for an adapter, with the worst of what was found in the message and all of it among
the properties. A result is about a whole file: the weights, or files of their folder,
and then `analysisTarget` is the weights (§ 3.27.13). What is allowed is a result that is suppressed (§ 3.27.23). Paths
are relative, and nothing tells when or where the scan ran: equal inputs give equal bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from s3lora.choose.ranking import usual_index
from s3lora.choose.ties import sharpest
from s3lora.errors import S3LoRAError, printable
from s3lora.gate.audit import Audit, GateVerdict, absent, gravest
from s3lora.gate.baseline import INSIDE, OUTSIDE, VERSION, Baseline, Known, fingerprint_of, fingerprint_of_allowed
from s3lora.gate.findings import Allowed, Finding, some
from s3lora.gate.places import Place
from s3lora.measure.scan import Scan, Tool
from s3lora.report.documents import to_json
from s3lora.report.sarif_rules import INCOMPLETE, NOT_SCANNED, NOTHING_TO_AUDIT, RULES, SUMMARY, TROUBLES, Descriptor

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: What GitHub keeps apart from other results of a commit; a run of its own would have a name after the stroke.
CATEGORY = "s3lora/scan/"
#: Modules, tensors or files named in a message.
WORST = 5
#: Locations of one result; GitHub reads no more.
MAX_LOCATIONS = 100
_ALL_RULES = (*RULES, SUMMARY)
_BASES = {
    INSIDE: "The working directory of the scan.",
    OUTSIDE: "Wherever an adapter lies that is not in the working directory; only the last names of its path are kept.",
}


def sarif(audits: Sequence[Audit], baseline: Baseline | None = None) -> str:
    """Return one run over all adapters as SARIF.

    With a baseline every result says whether it is `new`, `unchanged`, or `absent` now.
    """
    gone = () if baseline is None else absent(baseline, audits)
    artifacts = _artifacts(audits)
    indices = {place: i for i, place in enumerate(artifacts)}
    results = [result for one in audits for result in _results(one, indices, baseline)]
    run: dict[str, Any] = {
        "tool": {"driver": _driver()},
        "automationDetails": {"id": CATEGORY},
        "invocations": [_invocation(audits)],
        "originalUriBaseIds": bases_of([*artifacts, *(one.place for one in audits), *(known.place for known in gone)]),
        "artifacts": list(artifacts.values()),
        "results": [*results, *map(_absent, gone)],
    }
    configurations = [one.scan.configuration for one in audits if one.scan is not None]
    if configurations:
        run["properties"] = {"configuration": configurations[0]}
    return to_json({"$schema": SCHEMA, "version": VERSION, "runs": [run]})


def text_of(text: str) -> dict[str, str]:
    """Return a message of which no part is taken for a placeholder or a link (§ 3.11.5, 3.11.6)."""
    text = text.replace("{", "{{").replace("}", "}}")
    if "](" in text:
        text = re.sub(r"([\\\[\]])", r"\\\1", text)
    return {"text": text}


def _driver() -> dict[str, Any]:
    tool = Tool()
    return {
        "name": tool.name,
        "version": tool.version,
        "rules": [rule.to_sarif() for rule in _ALL_RULES],
        "notifications": [trouble.to_sarif() for trouble in TROUBLES],
    }


def bases_of(places: Sequence[Place]) -> dict[str, Any]:
    """Return what the beginnings of the URIs of these places stand for (§ 3.14.14)."""
    used = {_base(place) for place in places}
    return {name: {"description": {"text": text}} for name, text in _BASES.items() if name in used}


def _base(place: Place) -> str:
    return OUTSIDE if place.outside else INSIDE


def location_of(place: Place, index: int | None = None) -> dict[str, Any]:
    """Return a location: a file, by its number among the artifacts where it has one.

    A whole file is meant, and would have no region (§ 3.29.4), but GitHub shows no result without a line.
    """
    artifact: dict[str, Any] = {"uri": place.uri, "uriBaseId": _base(place)}
    if index is not None:
        artifact["index"] = index
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": 1}}}


def _artifacts(audits: Sequence[Audit]) -> dict[Place, dict[str, Any]]:
    """Return each weights file that was scanned, once, with its digest."""
    found: dict[Place, dict[str, Any]] = {}
    for one in audits:
        if one.scan is None:
            continue
        weights = [file for file in one.scan.source.files if not file.name.endswith(".json")]
        for i, file in enumerate(weights):
            place = one.place if i == 0 else one.place.beside(file.name)
            found[place] = {
                "location": {"uri": place.uri, "uriBaseId": _base(place)},
                "length": file.bytes,
                "roles": ["analysisTarget"],
                "hashes": {"sha-256": file.sha256},
            }
    return found


def _invocation(audits: Sequence[Audit]) -> dict[str, Any]:
    notices = [notice for one in audits for notice in _notifications(one)]
    content: dict[str, Any] = {"executionSuccessful": not notices, "exitCode": gravest(audits)}
    if notices:
        content["toolExecutionNotifications"] = notices
    return content


def _notifications(one: Audit) -> list[dict[str, Any]]:
    if one.error is not None:
        kind = NOTHING_TO_AUDIT if one.error.exit_status == 3 else NOT_SCANNED
        return [_notification(kind, placeless(one.error), one.place)]
    return [_notification(INCOMPLETE, one.incomplete, one.place)] if one.incomplete else []


def placeless(error: S3LoRAError) -> str:
    """Return the sentence of an error with the name of its file alone."""
    file = PurePath(error.file).name if error.file else None
    return error.for_command(file)


def _notification(kind: Descriptor, text: str, place: Place) -> dict[str, Any]:
    return {
        "descriptor": {"id": kind.id, "index": TROUBLES.index(kind)},
        "level": kind.level,
        "message": text_of(text),
        "locations": [location_of(place)],
    }


def _results(one: Audit, indices: dict[Place, int], baseline: Baseline | None) -> list[dict[str, Any]]:
    if one.scan is None:
        return []
    if one.gate is None:
        return [_summary(one.scan, location_of(one.place, indices.get(one.place)))]
    found = [_result(one, one.scan, verdict, indices) for verdict in one.verdicts if verdict.findings]
    found += [_suppressed(one, one.scan, allowed, indices) for allowed in one.allowed]
    if baseline is not None:
        states = [bool(verdict.new) for verdict in one.verdicts if verdict.findings]
        states += [not baseline.allowed(result["partialFingerprints"]) for result in found[len(states) :]]
        for result, new in zip(found, states, strict=True):
            result["baselineState"] = "new" if new else "unchanged"
    return found


def _result(one: Audit, scan: Scan, verdict: GateVerdict, indices: dict[Place, int]) -> dict[str, Any]:
    rule = next(rule for rule in RULES if rule.id == verdict.gate.id)
    findings = sorted(verdict.findings, key=Finding.excess, reverse=True)
    files = _files(one, findings[0].modules) if findings[0].module is None else ()
    return {
        "ruleId": rule.id,
        "ruleIndex": _ALL_RULES.index(rule),
        "level": rule.level,
        "message": text_of(_message(scan, verdict, findings)),
        **_located(one.place, files, indices),
        "partialFingerprints": _fingerprints(fingerprint_of(one.place, verdict.gate, findings)),
        "properties": {"rule": str(verdict.gate), "counted": _counted(findings)},
    }


def _suppressed(one: Audit, scan: Scan, allowed: Allowed, indices: dict[Place, int]) -> dict[str, Any]:
    """Return what is allowed, which counts as no finding."""
    rule = next(rule for rule in RULES if rule.id == allowed.rule_id)
    justification = {"justification": printable(allowed.reason, 1000)} if allowed.reason else {}
    fingerprint = fingerprint_of_allowed(one.place, allowed)
    return {
        "ruleId": rule.id,
        "ruleIndex": _ALL_RULES.index(rule),
        # GitHub does not look at suppressions: there it is a note, whatever the level of the rule.
        "level": "note",
        "message": text_of(f"{printable(scan.source.name, 80)}: {allowed}."),
        **_located(one.place, _files(one, allowed.counted), indices),
        "partialFingerprints": _fingerprints(fingerprint),
        "suppressions": [{"kind": "external", **justification}],
        "properties": {"allowed": allowed.name, "counted": [{"name": name} for name in allowed.counted]},
    }


def _fingerprints(fingerprint: str) -> dict[str, str]:
    # GitHub compares nothing but the second, whose name is not ours: there is no line here.
    return {"s3lora/v1": fingerprint, "primaryLocationLineHash": f"{fingerprint}:1"}


def _files(one: Audit, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the names that are files of the adapter's folder."""
    known = {file.path for file in one.scan.inventory.files} if one.scan is not None else set()
    return tuple(name for name in names if name in known)


def _located(weights: Place, files: Sequence[str], indices: dict[Place, int]) -> dict[str, Any]:
    """Return where a result is: in the weights, or in files of their folder."""
    if not files:
        return {"locations": [location_of(weights, indices.get(weights))]}
    places = [weights.beside(name) for name in files[:MAX_LOCATIONS]]
    found: dict[str, Any] = {
        "analysisTarget": location_of(weights, indices.get(weights))["physicalLocation"]["artifactLocation"],
        "locations": [location_of(places[0], indices.get(places[0]))],
    }
    if places[1:]:
        found["relatedLocations"] = [
            {"id": i, **location_of(place, indices.get(place)), "message": text_of(printable(name, 200))}
            for i, (place, name) in enumerate(zip(places[1:], files[1:], strict=False), 1)
        ]
    return found


def _counted(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
        {"name": name} if found.module is None else {"name": name, "value": found.value}
        for found in findings
        for name in found.modules
    ]


def _message(scan: Scan, verdict: GateVerdict, findings: Sequence[Finding]) -> str:
    """Return a first sentence that stands alone, the worst of what was found, and why."""
    name, total, gate = printable(scan.source.name, 80), len(scan.modules), verdict.gate
    if gate.loader is not None:
        return f"{name}: {findings[0].message}, rule {gate}."
    if findings[0].module is None:
        counted, why = findings[0].counted, findings[0].why
        among = f" of {total} modules" if {module.path for module in scan.modules}.issuperset(counted) else ""
        head = f"{name}: {gate.metric} is {len(counted)}{among}, rule {gate}."
        named = f" {'They are' if len(counted) > 1 else 'It is'} {some(counted, WORST)}." if counted else ""
        return f"{head}{named}{f' {why[0].upper()}{why[1:]}.' if why else ''}"
    meet = "meets" if len(findings) == 1 else "meet"
    worst = [f"{printable(found.module, 120)} ({found.value:.4g})" for found in findings[:WORST]]
    more = f", and {len(findings) - WORST} more" if len(findings) > WORST else ""
    known = f" Known before: {len(verdict.known)}." if verdict.known else ""
    return f"{name}: {len(findings)} of {total} modules {meet} the rule {gate}. {', '.join(worst)}{more}.{known}"


def _summary(scan: Scan, location: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured, where no rule was given."""
    index = usual_index(scan.modules)
    ranked = sharpest(scan.modules, index)
    named = ", ".join(f"{printable(m.path, 120)} ({m.indices[index]:.4g})" for m in ranked[:WORST])
    most = f" The sharpest by {index}: {named}." if named else ""
    return {
        "ruleId": SUMMARY.id,
        "ruleIndex": _ALL_RULES.index(SUMMARY),
        "kind": "informational",
        "level": "none",
        "message": text_of(f"{printable(scan.source.name, 80)}: {len(scan.modules)} modules measured.{most}"),
        "locations": [location],
    }


def _absent(known: Known) -> dict[str, Any]:
    """Return a result of the baseline that is no longer found."""
    rule = next((rule for rule in RULES if rule.id == known.rule_id), None)
    result: dict[str, Any] = {"ruleId": known.rule_id}
    if rule is not None:
        result |= {"ruleIndex": _ALL_RULES.index(rule), "level": rule.level}
    return result | {
        "message": {"text": printable(known.message, 2000)},
        "locations": [location_of(known.place)],
        "partialFingerprints": dict(known.fingerprints),
        "properties": {"rule": known.rule, "counted": [{"name": name} for name in known.modules]},
        "baselineState": "absent",
    }
