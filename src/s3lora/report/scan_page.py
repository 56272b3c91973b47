"""Scans, and prunings, as one HTML page that stands alone; with a script, rules can be tried in it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from s3lora.choose.rankings import Ranked
from s3lora.choose.rules import RULES
from s3lora.choose.select import Share
from s3lora.errors import UsageError, printable
from s3lora.evaluate.results import Sweep
from s3lora.measure.delta import CHECKPOINT
from s3lora.measure.scan import Tool
from s3lora.report.against_view import interval, mark_of, percentile, remarks, robust_z, rows_of, verdict
from s3lora.report.chart import legend
from s3lora.report.documents import ScanDocument
from s3lora.report.glance import glance_of
from s3lora.report.html import environment_of_pages, render
from s3lora.report.published_view import CAVEAT, published_lines
from s3lora.report.scan_charts import heat_map, scale_ends
from s3lora.report.scan_data import charts_of, data_of
from s3lora.report.scan_view import View, view_of
from s3lora.report.smaller import smaller
from s3lora.report.summary import summary_of
from s3lora.report.sweep_text import shown_keys
from s3lora.report.sweep_view import rows as sweep_rows
from s3lora.report.values import count, decimal, heading, measure_of, percent
from s3lora.report.words import WORDS
from s3lora.rewrite.provenance import Provenance
from s3lora.spectrum.indices import INDICES

#: Modules in the table of a page before a script has made it: the sharpest.
LISTED = 256
#: A map of more cells is not drawn: nobody would see one.
MOST_CELLS = 2500
SCRIPTS = ("packed.js", "rules.js", "scan_charts.js", "scan_map.js", "scan_table.js", "scan.js")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One adapter of a page.

    `ranked` are the rankings that the reader may choose from. `command` prunes what the plan chose; the words from
    which the page makes other commands are `path`, `shared`, and `own` for the scan's own method. `steps` are
    commands that go on from there, each with what it answers. `fixed` is for a page that begins with what the plan
    chose and offers no command, since it does not know all the options of the scan. A `sweep` of the same adapter adds
    what was measured, and `provenance` makes it the page of a pruning.
    """

    document: ScanDocument
    ranked: Sequence[Ranked]
    path: str
    command: str | None = None
    steps: Sequence[tuple[str, str]] = ()
    shared: Sequence[str] = ()
    own: Sequence[str] = ()
    provenance: Provenance | None = None
    sweep: Sweep | None = None
    fixed: bool = False


def scan_page(adapters: Sequence[Reported]) -> str:
    """Return the page of one or more scanned adapters.

    Raises UsageError where a sweep is of another adapter than the scan beside it.
    """
    environment_of_pages().filters.update(interval=interval, robust_z=robust_z)
    return render(
        "scan.html.jinja",
        styles=("scan.css.jinja",),
        scripts=SCRIPTS,
        tool=Tool(),
        words=WORDS,
        rules=[(name, kind.page) for name, kind in RULES.items() if kind.page is not None],
        entries=[_entry(adapter) for adapter in adapters],
    )


def _entry(adapter: Reported) -> dict[str, Any]:
    document = adapter.document
    view = view_of(document, adapter.ranked)
    series = view.shown
    entry: dict[str, Any] = {
        "view": view,
        "verb": "scan" if adapter.provenance is None else "prune",
        "provenance": adapter.provenance,
        "lead": _lead(adapter),
        "facts": list(_facts(document)),
        "glance": glance_of(document),
        "summary": [row for row in summary_of(document) if row[0] != "published"],
        "smaller": [] if adapter.provenance is not None else smaller(document.modules),
        "made": list(_made(adapter)),
        "command": adapter.command,
        "steps": adapter.steps if adapter.provenance is None else (),
        "curves": [],
        "sweep": adapter.sweep,
        "caveat": CAVEAT,
        "against": _against(view),
        "published": _published(document),
        "columns": _columns(view),
        "rows": _rows(view),
    }
    if series is None:
        return entry
    shown = document.modules[view.focus]
    return entry | {
        "tiles": _tiles(None if document.plan is None else document.plan.share, view),
        "cells": len(view.squares),
        "map": heat_map(view, series) if len(view.squares) <= MOST_CELLS else None,
        "ends": scale_ends(series),
        "experts": any(module.expert is not None and module.layer is not None for module in document.modules),
        "terms": [*(one.label for one in view.series), "shape", "rank", "type", "scaling", "parameters"],
        "sharpest": (shown.path, decimal(series.values[view.focus])),
        "data": data_of(
            view,
            [one.flat for one in adapter.ranked],
            _words(adapter),
            done=adapter.provenance is not None,
            fixed=adapter.fixed,
            sweep=adapter.sweep,
        ),
        **_measured(adapter),
    }


def _words(adapter: Reported) -> dict[str, Any]:
    """Return what commands of the page are made of."""
    return {
        "path": "" if adapter.fixed else shlex.quote(adapter.path),
        "shared": [shlex.quote(word) for word in adapter.shared],
        "own": [shlex.quote(word) for word in adapter.own],
        "given": adapter.command or "",
    }


def _lead(adapter: Reported) -> str:
    modules = adapter.document.modules
    method = adapter.document.configuration.method
    number = f"{count(len(modules))} LoRA module{'' if len(modules) == 1 else 's'}"
    if adapter.document.source.format == CHECKPOINT:
        changed = f"{count(len(modules))} changed weight{'' if len(modules) == 1 else 's'}"
        return f"{changed} of a model, scored by {method} from its files and those of its base, without data."
    what = f"{number}, scored by {method} from the adapter’s file"
    if adapter.provenance is None:
        base = adapter.document.base
        return f"{what} alone: no base model and no data." if base is None else f"{what} and the base weights: no data."
    return f"{what}, and pruned: {adapter.provenance.done}."


def _facts(document: ScanDocument) -> Iterable[tuple[str, str]]:
    modules = document.modules
    ranks = sorted({module.rank for module in modules})
    layers = {module.layer for module in modules if module.layer is not None}
    yield "modules", count(len(modules))
    if layers:
        yield "layers", count(len(layers))
    yield "rank", f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}–{ranks[-1]}"
    of = "parameters" if document.source.format == CHECKPOINT else "LoRA parameters"
    yield of, count(sum(module.parameters for module in modules))
    yield "type", ", ".join(sorted({module.dtype for module in modules}))
    if document.source.base_model:
        yield "base model", printable(document.source.base_model, 60)


def _made(adapter: Reported) -> Iterable[tuple[str, str]]:
    document = adapter.document
    how = document.configuration
    yield "adapter", f"{document.source.name or 'in memory'} ({document.source.format})"
    if document.source.sha256:
        yield "SHA-256 of the weights", document.source.sha256
    kept = "all components" if how.rank is None else f"{how.rank} components"
    more = f", fit {how.fit}, {how.sample or 'all'} rows and columns, seed {how.seed}" if how.fit == "l1" else ""
    yield "method", f"{how.method}, {kept}{more}"
    if document.plan is not None:
        plan = document.plan
        yield "rule", "; ".join(filter(None, (f"{plan.rule} of {plan.candidates} by {plan.index}", plan.only)))
    if document.reference is not None:
        reference = document.reference
        yield "reference", f"{reference.reference}, {reference.adapters:,} adapters, {reference.modules:,} modules"
    if adapter.provenance is not None:
        yield "mode", f"{adapter.provenance.mode}, for {adapter.provenance.loader}"
        for file in adapter.provenance.written:
            yield f"SHA-256 of {printable(file.name, 60)}", file.sha256


def _tiles(share: Share | None, view: View) -> list[tuple[str, str, str, str]]:
    total = len(view.document.modules)
    if share is None:
        share = Share(0, total, 0, sum(module.parameters for module in view.document.modules), 0.0, 0.0)
    return [
        ("modules", "modules", count(share.modules), f"of {count(total)}"),
        ("parameters", "LoRA parameters", percent(share.parameters / max(share.parameters_total, 1)), ""),
        ("compute", "LoRA FLOPs", percent(share.compute), ""),
        ("energy", "Frobenius energy", percent(share.frobenius_energy), ""),
    ]


def _against(view: View) -> dict[str, Any] | None:
    """Return where the adapter stands in its reference; first by the index that ranks, and then by all others."""
    document = view.document
    if document.reference is None:
        return None
    ranked_by = document.ranked_by
    named = [(index.title, row) for name, index in INDICES.items() for row in rows_of(document.reference, name)]
    return {
        "index": INDICES[ranked_by].title,
        "rows": [(name, row) for name, row in named if row.index == ranked_by],
        "others": [(name, row) for name, row in named if row.index != ranked_by],
        "verdict": verdict(document.reference, ranked_by),
        "remarks": list(remarks(document.reference, ranked_by)),
    }


def _published(document: ScanDocument) -> list[str]:
    """Return the sentences on where the adapter stands among published ones; none where nobody asked."""
    return [] if document.published is None else list(published_lines(document.published))


def _columns(view: View) -> list[tuple[str, str]]:
    method = view.document.configuration.method
    standing = [] if view.document.reference is None else [("s-percentile", "percentile"), ("s-z", "robust z")]
    own = [(f"s{i}", one.label.partition(" (")[0]) for i, one in enumerate(view.series) if one.method == method]
    return [*standing, *own]


def _standing(document: ScanDocument, path: str) -> list[str]:
    """Return the cells of a module below `percentile` and `robust z`, none without a reference."""
    if document.reference is None:
        return []
    mark = mark_of(document.reference, path, document.ranked_by)
    return [percentile(mark), robust_z(mark)]


def _rows(view: View) -> list[tuple[str, str, list[str]]]:
    """Return the path, mark and cells of the sharpest modules."""
    method = view.document.configuration.method
    own = [one for one in view.series if one.method == method]
    modules = view.document.modules
    return [
        (
            module.path,
            "×" if module.selected else "",
            [
                *_standing(view.document, module.path),
                *(decimal(one.values[i]) for one in own),
                f"{module.shape[0]} × {module.shape[1]}",
                str(module.rank),
            ],
        )
        for i, module in ((i, modules[i]) for i in view.order[:LISTED])
    ]


def _measured(adapter: Reported) -> dict[str, Any]:
    """Return what the page shows of a sweep of the same adapter."""
    sweep = adapter.sweep
    if sweep is None:
        return {}
    own = adapter.document.source
    if not sweep.adapter.sha256 or (sweep.adapter.sha256, sweep.adapter.adapter) != (own.sha256, own.adapter):
        raise UsageError(
            f"the evaluation is of {printable(sweep.adapter.name, 60)}, whose weights have another SHA-256",
            fix="give the sweep of this very adapter",
        )
    keys = shown_keys(sweep.suites, sweep.safety, sweep.utility)
    measures = [measure_of(sweep.suites, key) for key in keys]
    measured = [
        (row.label, row.number, [row.text(key, measure) for key, measure in zip(keys, measures, strict=True)])
        for row in sweep_rows(sweep)
    ]
    return {
        "curves": charts_of(sweep),
        "legend": legend(sweep),
        "heads": [heading(m) if m is not None else key[1] for key, m in zip(keys, measures, strict=True)],
        "measured": measured,
    }
