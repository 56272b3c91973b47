"""What `s3lora scan --format` writes besides text: a table, to which a format is added by a function and a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from s3lora.choose.rankings import Ranked
from s3lora.errors import UsageError
from s3lora.gate.audit import Audit, Terms
from s3lora.measure.scan import Scan
from s3lora.report.documents import ScanDocument, scan_csv, scan_document, tensors_csv, to_json


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """How it went with every adapter, in the order they were given, and what they were held against.

    `scans` are those of each path, the first by the method asked for, others by every method that the format shows.
    """

    audits: Sequence[Audit]
    terms: Terms
    options: dict[str, Any]
    scans: dict[str, tuple[Scan, ...]]

    @property
    def documents(self) -> list[ScanDocument]:
        """Return a document for every adapter that was measured."""
        return [document_of(one, one.scan) for one in self.audits if one.scan is not None]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """One format.

    `of_failures` tells that it is written even where no adapter could be measured, `compares` that it shows where one
    stands in a reference, `publishes` that it does so among published adapters, and `methods` that it shows every
    method beside the one asked for.
    """

    render: Callable[[ScanOutcome], str | bytes]
    of_failures: bool = False
    compares: bool = False
    publishes: bool = False
    methods: bool = False


def document_of(one: Audit, scan: Scan) -> ScanDocument:
    """Return the document of an adapter that was measured."""
    return scan_document(scan, one.plan, one.against, one.gate, one.published)


def _json(outcome: ScanOutcome) -> str:
    return to_json(outcome.documents[0] if len(outcome.audits) == 1 else outcome.documents)


def _csv(outcome: ScanOutcome) -> str:
    return scan_csv(outcome.documents)


def _tensors(outcome: ScanOutcome) -> str:
    return tensors_csv(outcome.documents)


def _sarif(outcome: ScanOutcome) -> str:
    from s3lora.report.sarif import sarif

    return sarif(outcome.audits, outcome.terms.baseline)


def _junit(outcome: ScanOutcome) -> str:
    from s3lora.report.junit import junit

    return junit(outcome.audits, outcome.terms.gates)


def _html(outcome: ScanOutcome) -> str:
    from s3lora.cli.pages import read_sweep, reported
    from s3lora.report.belonging import belonging
    from s3lora.report.scan_page import scan_page

    sweep = read_sweep(outcome.options["evaluation"])
    found = [(one, document_of(one, one.scan)) for one in outcome.audits if one.scan is not None]
    entries = [reported(made, outcome.scans[one.path], one.path, outcome.options, sweep=sweep) for one, made in found]
    with belonging(outcome.options["evaluation"]) if sweep is not None else nullcontext():
        return scan_page(entries)


def _svg(outcome: ScanOutcome) -> str:
    from s3lora.report.heatmap_file import heat_map_svg

    return heat_map_svg(*_only(outcome))


def _png(outcome: ScanOutcome) -> bytes:
    from s3lora.report.heatmap_file import heat_map_png

    return heat_map_png(*_only(outcome))


def _only(outcome: ScanOutcome) -> tuple[ScanDocument, tuple[Ranked, ...]]:
    """Return the one adapter that a picture shows."""
    from s3lora.cli.pages import rankings_of

    if len(outcome.audits) > 1:
        raise UsageError("a picture shows one adapter", fix="give one PATH, or --format html for several")
    one = next(one for one in outcome.audits if one.scan is not None)
    assert one.scan is not None
    ranked = rankings_of([one.scan], outcome.options)
    return scan_document(one.scan, one.plan), ranked


#: Name → format; `text` is printed as the scan goes on and stands in `scan` itself.
FORMATS = {
    "json": OutputFormat(_json, compares=True, publishes=True),
    "csv": OutputFormat(_csv, compares=True),
    "tensors": OutputFormat(_tensors),
    "html": OutputFormat(_html, compares=True, publishes=True, methods=True),
    "svg": OutputFormat(_svg),
    "png": OutputFormat(_png),
    "sarif": OutputFormat(_sarif, of_failures=True),
    "junit": OutputFormat(_junit, of_failures=True),
}
