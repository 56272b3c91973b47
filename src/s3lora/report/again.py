"""The page of a result, out of its JSON: of an older version of s3lora as well."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from s3lora.choose.rankings import survey
from s3lora.choose.select import Plan
from s3lora.errors import UsageError, printable
from s3lora.evaluate.results import Evaluation, Sweep, Tuning
from s3lora.files import read_whole
from s3lora.measure.comparison import Comparison
from s3lora.measure.configuration import Configuration
from s3lora.measure.series import TrainingSeries, as_comparison, check_series
from s3lora.repair.results import Repair
from s3lora.report.belonging import belonging
from s3lora.report.documents import ScanDocument
from s3lora.rewrite.provenance import Provenance

#: Bytes of a document: a scan of 100,000 modules has a fifth of it.
LARGEST = 512 * 1024 * 1024
PAGES = "scan, prune, compare, eval, sweep, tune, repair or fleet report, or a series of a training"


def page_of(path: str | os.PathLike[str]) -> str:
    """Return the page of the result in a file, which a command wrote as JSON.

    Raises UsageError where the file cannot be read, is no such result, or of a later version of the schema, and
    AdapterFileError for a series of a training that cannot be one.
    """
    file = Path(path)
    raw = read_whole(file, LARGEST)
    try:
        parts: Any = msgspec.json.decode(raw, type=list[msgspec.Raw] | dict[str, msgspec.Raw])
        several = isinstance(parts, list)
        written: list[bytes | msgspec.Raw] = parts if several else [raw]
        fields = set(msgspec.json.decode(written[0], type=dict[str, msgspec.Raw])) if written else set()
        found = next((kind for kind in _kinds() if kind.telling <= fields), None)
        if found is None or (several and found.type is not ScanDocument):
            raise UsageError("is no result that has a page", file=file, fix=f"give the JSON of {PAGES}")
        for part in written:
            _check_version(part, found.type, file)
        document = msgspec.json.decode(raw, type=list[found.type] if several else found.type)  # type: ignore[name-defined]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"is no result of s3lora: {printable(error)}", file=file) from None
    if isinstance(document, TrainingSeries):
        check_series(document, file)
    with belonging(file):
        return found.render(document)


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of document: its type, fields that only it has, and what makes the page."""

    type: Any
    telling: frozenset[str]
    render: Callable[[Any], str]


def _kinds() -> list[_Kind]:
    from s3lora.fleet.populations.survey import Survey
    from s3lora.report.compare_page import compare_page
    from s3lora.report.page import evaluation_page, sweep_page, tuning_page
    from s3lora.report.population_page import population_page
    from s3lora.report.prune_page import prune_page
    from s3lora.report.repair_page import repair_page

    return [
        _Kind(Provenance, frozenset({"plan", "mode", "written"}), prune_page),
        _Kind(ScanDocument, frozenset({"plan", "modules", "configuration"}), _scans),
        _Kind(Comparison, frozenset({"sources", "steps", "modules"}), compare_page),
        _Kind(TrainingSeries, frozenset({"rule", "refusals"}), lambda series: compare_page(as_comparison(series))),
        _Kind(Repair, frozenset({"trials", "limits"}), repair_page),
        _Kind(Evaluation, frozenset({"variants", "setup"}), evaluation_page),
        _Kind(Sweep, frozenset({"points", "setup"}), sweep_page),
        _Kind(Tuning, frozenset({"tried", "setup"}), tuning_page),
        _Kind(Survey, frozenset({"census", "distributions"}), population_page),
    ]


def _scans(found: ScanDocument | list[ScanDocument]) -> str:
    from s3lora.report.scan_page import Reported, scan_page

    documents = found if isinstance(found, list) else [found]
    return scan_page(
        [
            Reported(
                document=one,
                ranked=survey([one], index=one.ranked_by, **_units(one.plan)),
                path=one.source.name or "ADAPTER",
                own=[] if one.source.adapter is None else ["--adapter", one.source.adapter],
                fixed=one.base is not None or bool(one.plan and one.plan.only) or one.configuration != _usual(one),
            )
            for one in documents
        ]
    )


def _units(plan: Plan | None) -> dict[str, Any]:
    return {} if plan is None else {"unit": plan.unit, "combine": plan.combine}


def _usual(document: ScanDocument) -> Configuration:
    """Return the configuration of a scan by its method with no other option."""
    return Configuration(document.configuration.method, kurtosis=document.configuration.kurtosis)


def _check_version(part: bytes | msgspec.Raw, kind: Any, file: Path) -> None:
    known: int = next(field.default for field in dataclasses.fields(kind) if field.name == "schema_version")  # type: ignore[assignment]
    version = msgspec.json.decode(part, type=dict[str, msgspec.Raw]).get("schema_version", msgspec.Raw(b"0"))
    number = msgspec.json.decode(version, type=int)
    if number > known:
        what = f"is of schema version {number}, and this s3lora knows {known}"
        raise UsageError(what, file=file, fix="update s3lora")
