"""Scans, and prunings, as one HTML page that stands alone; with a script, rules can be tried in it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from s3lora.choose.ranking import usual_index
from s3lora.choose.rankings import Ranked
from s3lora.choose.rules import RULES
from s3lora.choose.select import Share
from s3lora.errors import UsageError, printable
from s3lora.evaluate.results import Sweep
from s3lora.measure.scan import ModuleScan, Tool
from s3lora.report.against_view import interval, mark_of, percentile, remarks, robust_z, rows_of, verdict
from s3lora.report.chart import HERE, against_modules, against_utility, legend
from s3lora.report.colours import SCALE
from s3lora.report.documents import ScanDocument
from s3lora.report.glance import glance_of
from s3lora.report.html import environment_of_pages, render
from s3lora.report.published_view import CAVEAT, published_lines
from s3lora.report.scan_charts import (
    MEDIAN,
    dot_heights,
    heat_map,
    scale_ends,
    spectrum,
    spectrum_axes,
    strip_axis,
    strip_middles,
    strips,
)
from s3lora.report.scan_view import View, start_of, view_of
from s3lora.report.smaller import smaller
from s3lora.report.sweep_text import shown_keys
from s3lora.report.sweep_view import rows as sweep_rows
from s3lora.report.sweep_view import usefulness
from s3lora.report.values import count, decimal, heading, measure_of, metric_text, percent
from s3lora.rewrite.provenance import Provenance
from s3lora.spectrum.indices import INDICES

_MARKUP = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One adapter of a page.

    `ranked` are the rankings that the reader may choose from. `command` prunes what the plan chose; the words from
    which the page makes other commands are `path`, `shared`, and `own` for the scan's own method. `repair` is the
    command that is offered as the next step. A `sweep` of the same adapter adds what was measured, and `provenance`
    makes it the page of a pruning.
    """

    document: ScanDocument
    ranked: Sequence[Ranked]
    path: str
    command: str | None = None
    repair: str | None = None
    shared: Sequence[str] = ()
    own: Sequence[str] = ()
    provenance: Provenance | None = None
    sweep: Sweep | None = None


def scan_page(adapters: Sequence[Reported]) -> str:
    """Return the page of one or more scanned adapters.

    Raises UsageError where a sweep is of another adapter than the scan beside it.
    """
    environment_of_pages().filters.update(interval=interval, robust_z=robust_z)
    return render(
        "scan.html.jinja",
        styles=("scan.css.jinja",),
        scripts=("rules.js", "scan.js"),
        tool=Tool(),
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
        "smaller": [] if adapter.provenance is not None else smaller(document.modules),
        "made": list(_made(adapter)),
        "command": adapter.command,
        "repair": adapter.repair if adapter.provenance is None else None,
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
    return entry | {
        "tiles": _tiles(None if document.plan is None else document.plan.share, view),
        "map": heat_map(view, series),
        "ends": scale_ends(series),
        "strips": strips(view, series),
        "spectrum": spectrum(view, view.focus),
        "near": [document.modules[n].layer for n in view.near[view.focus]],
        "numbers": list(_numbers(view, view.focus)),
        "sigmas": f"σ̃: {', '.join(decimal(_short(value)) for value in view.sigma(view.focus))}",  # as the script has it
        "data": _json(_data(adapter, view)),
        **_measured(adapter),
    }


def _lead(adapter: Reported) -> str:
    modules = adapter.document.modules
    method = adapter.document.configuration.method
    number = f"{count(len(modules))} LoRA module{'' if len(modules) == 1 else 's'}"
    what = f"{number}, scored by {method} from the adapter’s file"
    if adapter.provenance is None:
        return f"{what} alone: no base model and no data."
    return f"{what}, and pruned: {adapter.provenance.done}."


def _facts(document: ScanDocument) -> Iterable[tuple[str, str]]:
    modules = document.modules
    ranks = sorted({module.rank for module in modules})
    layers = {module.layer for module in modules if module.layer is not None}
    yield "modules", count(len(modules))
    if layers:
        yield "layers", count(len(layers))
    yield "rank", f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}–{ranks[-1]}"
    yield "LoRA parameters", count(sum(module.parameters for module in modules))
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
    method = view.document.configuration.method
    own = [one for one in view.series if one.method == method]
    return [
        (
            module.path,
            "×" if module.selected else "",
            [
                f"{module.shape[0]} × {module.shape[1]}",
                str(module.rank),
                *_standing(view.document, module.path),
                *(decimal(one.values[i]) for one in own),
            ],
        )
        for i, module in enumerate(view.document.modules)
    ]


def _numbers(view: View, place: int) -> Iterable[tuple[str, str]]:
    module = view.document.modules[place]
    for one in view.series:
        yield one.label, decimal(one.values[place])
    yield from zip(("shape", "rank", "type", "scaling", "parameters"), _form(module), strict=True)


def _form(module: ModuleScan) -> tuple[str, ...]:
    shape = f"{module.shape[0]} × {module.shape[1]}"
    scaling = f"{module.scaling:.6g} ({module.scaling_origin})"
    return shape, str(module.rank), module.dtype, scaling, count(module.parameters)


def _data(adapter: Reported, view: View) -> dict[str, Any]:
    """Return what the script reads: numbers with all their digits, modules by their place in the table."""
    modules = view.document.modules
    forms = list(dict.fromkeys(map(_form, modules)))
    plan = view.document.plan
    series = view.shown
    axes = [strip_axis(view, one) for one in view.series]
    projections = list(dict.fromkeys(module.projection for module in modules))
    whole = plan is not None and plan.unit == "layer"
    return {
        "command": {
            "path": shlex.quote(adapter.path),
            "shared": [shlex.quote(word) for word in adapter.shared],
            "own": [shlex.quote(word) for word in adapter.own],
            "method": view.document.configuration.method,
            "given": adapter.command or "",
            "usual": usual_index(modules),
        },
        "first": view.first,
        "start": start_of(plan, series),
        "focus": view.focus,
        "chosen": view.chosen,
        "done": adapter.provenance is not None,
        "series": [
            {
                "label": one.label,
                "index": one.index,
                "method": one.method,
                "free": INDICES[one.index].scale_free,
                "inverse": one.inverse,
                "flat": ranked.plan.flat,
                "values": one.values,
                "units": one.units if whole else None,
                "worth": one.worth if whole else None,
                "axis": [across.low, across.high, across.start, across.end],
                "ticks": across.ticks,
            }
            for one, ranked, across in zip(view.series, adapter.ranked, axes, strict=True)
        ],
        "whole": whole,
        # The script ranks single modules by itself: the order is that of the values, ties in the order of the model.
        "allowed": None if whole else _allowed(view),
        "norm": next(i for i, one in enumerate(view.series) if one.index == "frobenius"),
        "odd": [i for i, module in enumerate(modules) if module.kind != "linear"],
        "kind": [projections.index(module.projection) for module in modules],
        "layer": [module.layer for module in modules],
        "near": view.near,
        "forms": forms,
        "parameters": [next(m.parameters for m in modules if _form(m) == form) for form in forms],
        "form": [forms.index(_form(module)) for module in modules],
        "squares": [square.members for square in view.squares],
        "strip": view.strip,
        "heights": dot_heights(view),
        "strips": {"middle": strip_middles(view), "median": MEDIAN},
        "spectrum": spectrum_axes(view),
        "colours": len(SCALE),
        "sigma": [[_short(value) for value in view.sigma(i)] for i in range(len(modules))],
        "total": [_short(sum(module.sigma)) for module in modules],
        "curve": _curve_data(adapter),
        **_standing_data(view.document),
    }


def _standing_data(document: ScanDocument) -> dict[str, Any]:
    """Return the numbers by which the table can be sorted."""
    if document.reference is None:
        return {}
    marks = [mark_of(document.reference, module.path, document.ranked_by) for module in document.modules]
    return {
        "percentile": [None if mark is None else float(f"{mark.percentile:.5g}") for mark in marks],
        "z": [None if mark is None or mark.z is None else _short(mark.z) for mark in marks],
    }


def _allowed(view: View) -> list[int] | None:
    """Return the modules that may be chosen, None where all may that have an index."""
    candidates = {i for one in view.series for unit in one.units for i in unit}
    known = {i for one in view.series for i, value in enumerate(one.values) if value is not None}
    return None if candidates == known else sorted(candidates)


def _short(value: float) -> float:
    """Return a number with the digits that a drawing shows."""
    return float(f"{value:.3g}")


def _json(data: dict[str, Any]) -> str:
    """Return JSON that cannot end the element that it stands in."""
    return msgspec.json.encode(data).decode().translate(_MARKUP).replace("##", r"#\u0023")


def _charts(sweep: Sweep) -> list[Any]:
    return [chart for chart in (against_modules(sweep), against_utility(sweep)) if chart is not None]


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
        "curves": _charts(sweep),
        "legend": legend(sweep),
        "heads": [heading(m) if m is not None else key[1] for key, m in zip(keys, measures, strict=True)],
        "measured": measured,
    }


def _curve_data(adapter: Reported) -> dict[str, Any] | None:
    """Return where each measured point lies in the drawings, for the slider's point to be shown there."""
    sweep = adapter.sweep
    if sweep is None or not (charts := _charts(sweep)):
        return None
    keys = [key for key in (sweep.safety, sweep.utility) if key is not None]
    points = []
    for point in sweep.points:
        metrics = [point.metric(*key) for key in keys]
        if point.control or point.strength is not None or metrics[0] is None or metrics[0].value is None:
            continue
        text = ", ".join(f"{key[1]} {metric_text(m)}" for key, m in zip(keys, metrics, strict=True))
        place: list[float] = []
        useful = usefulness(sweep, point)
        if len(charts) > 1 and useful is not None:
            place = [charts[1].x.at(useful), charts[1].y.at(metrics[0].value)]
        points.append({"index": point.index, "method": point.method, "top": point.top, "text": text, "at": place})
    across = charts[0].x
    return {
        "points": points,
        "across": [across.at(0), across.at(1) - across.at(0), charts[0].top, charts[0].bottom],
        "most": across.high,
        "ring": HERE,
    }
