"""A check as SARIF 2.1.0: a result for each loader that does not load the adapter as it was trained, and for each rule.

Without rules there is one result a loader, of the level that its verdict has. Nothing tells when or where it ran.
"""

from __future__ import annotations

from typing import Any

from s3lora.compat.results import WORDS, Check, CheckFinding, LoaderVerdict, Verdict
from s3lora.compat.rules import LOADER_ID, MODULES_ID, SHAPES_ID
from s3lora.errors import printable
from s3lora.gate.baseline import VERSION
from s3lora.gate.places import Place
from s3lora.measure.scan import Tool
from s3lora.report.documents import to_json
from s3lora.report.sarif import SCHEMA, bases_of, location_of, text_of
from s3lora.report.sarif_rules import LOADER_RULE, Descriptor

CATEGORY = "s3lora/check/"
_LEVELS: dict[Verdict, str] = {"same": "none", "unknown": "note", "other": "warning", "fails": "error"}
RULES = (
    LOADER_RULE,
    Descriptor(
        MODULES_ID,
        "ModulesNotInBase",
        "Modules of the adapter are not in the base under their names.",
        "The base model has no such module, or calls it otherwise, so that loaders leave its update out or stop.",
        "Give the base that the adapter was trained on, or rename the keys as the check tells.",
        "error",
    ),
    Descriptor(
        SHAPES_ID,
        "ShapesDoNotFit",
        "Modules of the adapter have another shape than in the base.",
        "The factors give an update of another shape than the weight has: another size of the model, another number of "
        "key and value heads, or another vocabulary. Loaders stop at it.",
        "Give the base that the adapter was trained on.",
        "error",
    ),
)


def check_sarif(check: Check, place: Place) -> str:
    """Return one run with the results of a check; `place` is where the adapter's weights lie."""
    results = [_finding(found, place) for found in check.findings]
    if not check.findings:
        results = [_verdict(one, check, place) for one in check.loaders]
    run = {
        "tool": {"driver": {"name": Tool().name, "version": Tool().version,
                            "rules": [rule.to_sarif() for rule in RULES]}},
        "automationDetails": {"id": CATEGORY},
        "invocations": [{"executionSuccessful": True, "exitCode": int(bool(check.findings))}],
        "originalUriBaseIds": bases_of([place]),
        "results": results,
    }  # fmt: skip
    return to_json({"$schema": SCHEMA, "version": VERSION, "runs": [run]})


def _finding(found: CheckFinding, place: Place) -> dict[str, Any]:
    index = next(i for i, rule in enumerate(RULES) if rule.id == found.rule_id)
    return {
        "ruleId": found.rule_id,
        "ruleIndex": index,
        "level": RULES[index].level,
        "message": text_of(f"{found.message}."),
        "locations": [location_of(place)],
        "properties": {"rule": found.rule, "counted": [{"name": printable(name, 512)} for name in found.counted]},
    }


def _verdict(verdict: LoaderVerdict, check: Check, place: Place) -> dict[str, Any]:
    why = "; ".join(printable(reason.what, 400) for reason in verdict.reasons)
    told = f"{printable(check.source.name, 80)}: {verdict.shown} – {WORDS[verdict.verdict]}"
    result: dict[str, Any] = {
        "ruleId": LOADER_ID,
        "ruleIndex": 0,
        "level": _LEVELS[verdict.verdict],
        "message": text_of(f"{told}: the adapter {why}." if why else f"{told}."),
        "locations": [location_of(place)],
        "properties": {"loader": verdict.loader, "verdict": verdict.verdict},
    }
    return result if verdict.verdict != "same" else {**result, "kind": "pass"}
