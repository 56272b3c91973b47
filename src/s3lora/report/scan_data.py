"""What the script of a scan's page reads: every number once, modules by their place in the document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from s3lora.adapter.model import block
from s3lora.choose.ties import rounded
from s3lora.errors import printable
from s3lora.evaluate.results import Sweep
from s3lora.measure.published import LEADING, bands
from s3lora.measure.scan import ModuleScan
from s3lora.report.against_view import mark_of
from s3lora.report.chart import HERE, against_modules, against_utility
from s3lora.report.colours import SCALE
from s3lora.report.html import LONGEST
from s3lora.report.packed import digits, integers, names, numbers
from s3lora.report.scan_view import Series, View, start_of
from s3lora.report.sweep_view import usefulness
from s3lora.report.values import count, metric_text
from s3lora.spectrum.indices import INDICES

_MARKUP = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def data_of(
    view: View, flat: Sequence[bool], words: dict[str, Any], *, done: bool, fixed: bool, sweep: Sweep | None
) -> str:
    """Return the JSON that the script of a page reads, in a form that cannot end the element it stands in.

    `flat` tells of each ranking whether it is too flat to prune by, `words` has those of the commands, `done` tells
    that the page is of a pruning, and `fixed` that it begins with what was chosen. Columns are as `packed.py` writes
    them.
    """
    modules = view.document.modules
    plan = view.document.plan
    forms = {form: i for i, form in enumerate(dict.fromkeys(map(form_of, modules)))}
    parameters = dict.fromkeys(forms, 0) | {form_of(module): module.parameters for module in modules}
    projections = {name: i for i, name in enumerate(dict.fromkeys(module.projection for module in modules))}
    whole = plan is not None and plan.unit == "layer"
    found = _names(modules)
    # What a name tells, as the number of a layer, is not told again.
    told = {str(one): {"number": n} for n, one in enumerate([*found["numbers"], found["text"]]) if one.get("bits")}

    def column(values: Sequence[int | None]) -> dict[str, Any]:
        packed = integers(values)
        return told.get(str(packed), packed)

    content = {
        "count": len(modules),
        "command": words | {"method": view.document.configuration.method},
        "first": view.first,
        "start": start_of(None if fixed else plan, view.shown),
        "focus": view.focus,
        "chosen": integers([int(module.selected) for module in modules]),
        "done": done,
        "series": [_series(one, level, whole) for one, level in zip(view.series, flat, strict=True)],
        "whole": whole,
        # The script ranks single modules by itself: the order is that of the values, ties in the order of the model.
        "allowed": None if whole else _allowed(view),
        "norm": next(i for i, one in enumerate(view.series) if one.index == "frobenius"),
        "linear": integers([int(module.kind == "linear") for module in modules]),
        "kind": column([projections[module.projection] for module in modules]),
        "layer": column([module.layer for module in modules]),
        "expert": column([module.expert for module in modules]),
        "names": found,
        "strip": column(view.strip),
        "strips": [printable(name, LONGEST) for name in view.strips],
        "forms": list(forms),
        "parameters": [parameters[form] for form in forms],
        "form": integers([forms[form_of(module)] for module in modules]),
        "colours": len(SCALE),
        **_spectra(view),
        "curve": _curve(sweep),
        **_standing(view),
        **_bands(view),
    }
    return msgspec.json.encode(content).decode().translate(_MARKUP).replace("##", r"#\u0023")


def form_of(module: ModuleScan) -> tuple[str, ...]:
    """Return what many modules share, as text: shape, rank, type, scaling, parameters."""
    shape = f"{module.shape[0]} × {module.shape[1]}"
    scaling = f"{module.scaling:.6g} ({module.scaling_origin})"
    return shape, str(module.rank), module.dtype, scaling, count(module.parameters)


def charts_of(sweep: Sweep) -> list[Any]:
    """Return the drawings of a sweep that the page of its adapter has."""
    return [chart for chart in (against_modules(sweep), against_utility(sweep)) if chart is not None]


def _series(one: Series, flat: bool, whole: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"label": one.label, "index": one.index, "method": one.method, "inverse": one.inverse}
    made |= {"free": INDICES[one.index].scale_free, "flat": flat, "values": numbers(one.values)}
    if whole:
        unit: list[int | None] = [None] * len(one.values)
        for position, members in enumerate(one.units):
            for i in members:
                unit[i] = position
        made |= {"unit": integers(unit), "worth": one.worth}
    return made


def _spectra(view: View) -> dict[str, Any]:
    """Return the components of all spectra and their sums; the script derives the first and the sum where it can."""
    modules = view.document.modules
    columns = [
        [module.sigma[i] if i < len(module.sigma) else None for module in modules] for i in range(view.components)
    ]
    method = view.document.configuration.method
    first, share = (
        next((i for i, one in enumerate(view.series) if (one.index, one.method) == (name, method)), None)
        for name in ("magnitude", "ssi")
    )
    if first is not None and share is not None:
        pairs = zip(modules, view.series[first].values, view.series[share].values, strict=True)
        if all(
            (not module.sigma and largest is None)
            or (
                largest
                and part
                and module.sigma
                and abs(module.sigma[0] - largest) <= 1e-6 * largest
                and abs(sum(module.sigma) * part - largest) <= 1e-3 * largest
            )
            for module, largest, part in pairs
        ):
            return {"sigma": [digits(column) for column in columns[1:]], "total": None, "spectrum": [first, share]}
    total = digits([sum(module.sigma) for module in modules])
    return {"sigma": [digits(column) for column in columns], "total": total, "spectrum": None}


def _names(modules: Sequence[ModuleScan]) -> dict[str, Any]:
    starts = [None if module.layer is None else block(module.path) for module in modules]
    return names([printable(module.path, LONGEST) for module in modules], starts)


def _allowed(view: View) -> dict[str, Any] | None:
    """Return which modules may be chosen, None where all may that have an index."""
    candidates = {i for one in view.series for unit in one.units for i in unit}
    known = {i for one in view.series for i, value in enumerate(one.values) if value is not None}
    if candidates == known:
        return None
    return integers([int(i in candidates) for i in range(len(view.document.modules))])


def _standing(view: View) -> dict[str, Any]:
    """Return where each module stands in the reference by the index that ranks."""
    document = view.document
    if document.reference is None:
        return {}
    marks = [mark_of(document.reference, module.path, document.ranked_by) for module in document.modules]
    return {
        "percentile": integers([None if mark is None else round(mark.percentile * 1000) for mark in marks]),
        "z": numbers([None if mark is None or mark.z is None else rounded(mark.z, scale_free=False) for mark in marks]),
    }


def _bands(view: View) -> dict[str, Any]:
    """Return the group of each module among published ones, and where most of a group lie in each series."""
    document = view.document
    known = {} if document.published is None else bands(document.published)
    if document.published is None or not known:
        return {}
    standings = document.published.standings
    own = [standings.get(module.path) for module in document.modules]
    method = document.configuration.method
    found: list[list[tuple[float, float] | None] | None] = []
    for one in view.series:
        # Energy is the same by every method, and the marks of others are of the method of the scan.
        if one.index not in known or (one.index != LEADING and one.method != method):
            found.append(None)
            continue
        # Of a group of several ranks the raw SSI of one alone is known, and the band is no module's of the others.
        marked = {standing.group for standing in own if standing is not None and one.index in standing.marks}
        marked -= {standing.group for standing in own if standing is not None and one.index not in standing.marks}
        found.append([band if i in marked else None for i, band in enumerate(known[one.index])])
    return {"group": integers([None if one is None else one.group for one in own]), "bands": found}


def _curve(sweep: Sweep | None) -> dict[str, Any] | None:
    """Return where each measured point lies in the drawings, for the slider's point to be shown there."""
    if sweep is None or not (charts := charts_of(sweep)):
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
