"""A comparison as one HTML page that stands alone: nothing from elsewhere, fit to be printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from s3lora.errors import printable
from s3lora.measure.comparison import Comparison
from s3lora.measure.others import TensorComparison
from s3lora.report.compare_charts import DUMBBELL, dumbbells, maps, multiples
from s3lora.report.compare_others import ends, others, outcome
from s3lora.report.compare_view import (
    ComparedModule,
    ComparisonView,
    cosine,
    distance_text,
    middle,
    number,
    signed,
    view_of,
)
from s3lora.report.html import render
from s3lora.report.values import count

#: Modules in the table of those that changed most.
MOST = 12
#: Modules in the table of all: those that moved farthest.
LISTED = 1000
#: Warnings above the numbers, and paths of a list that are not folded.
NOTES, PATHS = 12, 12


def compare_page(comparison: Comparison) -> str:
    """Return the page of two adapters side by side, or of a run of more."""
    view = view_of(comparison)
    most = view.moved[:MOST]
    listed: Sequence[ComparedModule] = view.rows
    if len(listed) > LISTED:  # those that moved farthest, in the order of the model
        kept = {row.module.path for row in view.moved[:LISTED]}
        listed = [row for row in view.rows if row.module.path in kept]
    return render(
        "compare.html.jinja",
        styles=("scan.css.jinja", "compare.css.jinja"),
        tool=comparison.tool,
        view=view,
        lead=_lead(view),
        facts=list(_facts(view)),
        notes=(comparison.warnings[:NOTES], comparison.warnings[NOTES:]),
        beside=[_beside(view, tensor) for tensor in comparison.tensors],
        lines=others(comparison.tensors, view.labels),
        multiples=multiples(view),
        stages=view.stages(),
        maps=maps(view),
        unplaced=sum(row.module.layer is None for row in view.rows),
        most=list(zip(most, dumbbells(most), strict=True)),
        dumbbell=DUMBBELL,
        absent=[(about, paths[:PATHS], paths[PATHS:], len(paths)) for about, paths in view.absent(view.labels)],
        rows=[_cells(view, row) for row in listed],
        total=len(view.rows),
        made=list(_made(view)),
        cosine=cosine,
        distance=distance_text,
        number=number,
        signed=signed,
    )


def _method(view: ComparisonView) -> str:
    return view.comparison.configuration.method


def _lead(view: ComparisonView) -> str:
    if view.watched:
        return f"One adapter, looked at {len(view.labels)} times in training, scored by {_method(view)}."
    adapters = "Two adapters" if view.pair else f"{len(view.labels)} adapters, each compared with the one before it"
    return f"{adapters}, scored by {_method(view)} from their files, without data."


def _facts(view: ComparisonView) -> Iterable[tuple[str, str]]:
    yield "modules in both" if view.pair else "modules in the first and last", count(view.common)
    yield "changed", count(len(view.moved))
    if alone := sum(None in row.module.shape for row in view.rows):
        yield "not in both" if view.pair else "not in all", count(alone)
    ranks = {rank for row in view.rows for rank in row.module.rank if rank is not None}
    yield "rank", f"{min(ranks)}" if len(ranks) == 1 else f"{min(ranks)}–{max(ranks)}"
    yield "median distance", number(middle([row.module.net_distance for row in view.rows]))
    yield "median cosine", cosine(middle([row.module.net_cosine for row in view.rows]))


def _cells(view: ComparisonView, row: ComparedModule) -> tuple[str, list[str]]:
    """Return the path of a module and its cells in the table of all."""
    sharp = [number(row.sharp[i]) for i in view.shown]
    cells = [*sharp, signed(row.change), distance_text(row), cosine(row.module.net_cosine)]
    return row.module.path, [*cells, *(number(norm) for norm in row.norms)]


def _beside(view: ComparisonView, tensor: TensorComparison) -> tuple[str, list[str]]:
    """Return the name of a tensor that is not LoRA, and its cells."""
    sizes, largest = ends(tensor)
    return tensor.name, [tensor.role, sizes, *map(number, largest), outcome(tensor, view.labels)]


def _made(view: ComparisonView) -> Iterable[tuple[str, str, str]]:
    """Yield (term, text, digest) of the adapters and of how they were measured."""
    for label, source in zip(view.labels, view.comparison.sources, strict=True):
        base = f", base {printable(source.base_model, 80)}" if source.base_model else ""
        yield label, f"{source.name} ({source.format}{base})", source.sha256 or ""
    yield "method", f"{view.comparison.configuration.method}, all components", ""
