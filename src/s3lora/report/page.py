"""A sweep, a tuning or an evaluation as one HTML page that stands alone and is fit to be printed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from s3lora.evaluate.results import Evaluation, Key, PairedComparison, Sweep, SweepPoint, Tuning, Variant
from s3lora.report import tuning_chart
from s3lora.report.chart import against_modules, against_utility, forest, legend
from s3lora.report.evaluation_text import items, ratio
from s3lora.report.html import environment_of_pages, render
from s3lora.report.notes import names_in, once
from s3lora.report.sweep_text import floor_text, nothing_text, shown_keys
from s3lora.report.sweep_verdict import sweep_verdict
from s3lora.report.sweep_view import SweepRow, amount, collapses, comparison, front, rows, sentences
from s3lora.report.values import (
    few,
    measure_of,
    over_refusal_key,
    sources_of,
)

#: Warnings that are shown above the numbers; every point of a sweep can have some.
NOTES = 12


def sweep_page(sweep: Sweep, command: str | None = None) -> str:
    """Return the page of a sweep; `command`, as one types it and without private paths, is shown to run it again."""
    keys = shown_keys(sweep.suites, sweep.safety, sweep.utility)
    unpruned = sweep.unpruned.metric(*sweep.safety)
    names = {point.ranking: point.control for point in sweep.points}
    return _render(
        "sweep.html.jinja",
        sweep=sweep,
        tool=sweep.tool,
        command=command,
        n=None if unpruned is None else unpruned.n,
        rankings=sum(not control for control in names.values()),
        controls=sum(names.values()),
        notes=_notes(sweep, *collapses(sweep)),
        found=[(point, [comparison(point, key) for key in keys]) for point in front(sweep) if point.comparisons],
        label=_label,
        amount=amount,
        charts=[chart for chart in (against_modules(sweep), against_utility(sweep)) if chart is not None],
        legend=legend(sweep),
        keys=[(key, measure_of(sweep.suites, key)) for key in keys],
        counts={key: _counted(sweep, key) for key in keys},
        verdict=sweep_verdict(sweep),
        groups=[(name, _members(list(group))) for name, group in groupby(rows(sweep), key=lambda row: row.amount)],
        matrix=_matrix(sweep),
    )


def evaluation_page(evaluation: Evaluation, command: str | None = None) -> str:
    """Return the page of an evaluation; `command` is as in `sweep_page`."""
    variants = evaluation.variants
    suites = []
    for suite in evaluation.suites:
        over = over_refusal_key([suite], (suite.name, ""))
        drawn = [measure for measure in suite.measures if measure.role != "other" or (suite.name, measure.name) == over]
        suites.append((suite, [chart for one in drawn if (chart := forest(evaluation, suite, one)) is not None]))
    return _render(
        "evaluation.html.jinja",
        evaluation=evaluation,
        tool=evaluation.tool,
        command=command,
        adapters=sources_of(variants),
        notes=_notes(evaluation),
        lost=[share for variant in variants for share in variant.shares if share.value is not None],
        listed=[(variant, metric) for variant in variants for metric in variant.metrics if metric.values],
        found=[comparison for comparison in evaluation.comparisons if _central(evaluation, comparison)],
        measure_of=lambda comparison: measure_of(evaluation.suites, (comparison.suite, comparison.measure)),
        suites=suites,
        costs=[(variant, cost) for variant in variants for cost in variant.costs],
        loaded=[variant for variant in variants if variant.loaded is not None or variant.share is not None],
        counted=[variant for variant in variants if variant.counts],
    )


def tuning_page(tuning: Tuning, command: str | None = None) -> str:
    """Return the page of a tuning; `command` is as in `sweep_page`."""
    keys = shown_keys(tuning.suites, tuning.safety, tuning.utility)
    confirmed = () if tuning.confirmed is None else (tuning.confirmed,)
    return _render(
        "tuning.html.jinja",
        tuning=tuning,
        tool=tuning.tool,
        command=command,
        floor=floor_text(tuning),
        nothing=nothing_text(tuning),
        prune=_pruning(tuning),
        notes=_notes(tuning),
        charts=[chart for key in keys if (chart := tuning_chart.tried(tuning, key)) is not None],
        legend=tuning_chart.legend(tuning),
        keys=[(key, measure_of(tuning.suites, key)) for key in keys],
        halves=_halves(tuning),
        comparison=comparison,
        held_out=[sentence for point in confirmed for sentence in sentences(point, keys)],
    )


def _members(group: Sequence[SweepRow]) -> list[tuple[str, SweepRow]]:
    """Return the rows of one number of modules by their names: one for all where every module is pruned."""
    first = group[0]
    if first.strength is None and first.top == first.points[0].modules_total and len(group) > 1:
        shown = next((row for row in group if row.pareto), next((row for row in group if not row.control), first))
        return [("by any ranking", shown)]
    return [(row.label, row) for row in group]


def _halves(tuning: Tuning) -> list[dict[str, Any]]:
    """Return both halves of the data as the table has them: what was not pruned, by its name, then the points."""
    confirmed = () if tuning.confirmed is None else (tuning.confirmed,)
    halves: list[tuple[str, Variant | None, Variant | None, Sequence[SweepPoint]]] = [
        ("tuning half", tuning.tuning_base, tuning.tuning_unpruned, tuning.tried),
        ("held-out half", tuning.held_out_base, tuning.held_out_unpruned, confirmed),
    ]
    made = []
    for name, base, unpruned, points in halves:
        variants = [(label, one) for label, one in (("no adapter", base), ("nothing", unpruned)) if one is not None]
        ordered = sorted(points, key=lambda point: point.top)
        if variants:
            made.append({"name": name, "variants": variants, "points": ordered})
    return made


def _pruning(tuning: Tuning) -> str | None:
    """Return the command that writes what was chosen, None where that is nothing."""
    chosen = next((point for point in tuning.tried if point.top == tuning.top), None)
    if chosen is None or not tuning.top:
        return None
    ranking = ["--method", chosen.method or "mas-svd", "--index", chosen.index.replace("_", "-")]
    return shlex.join(["s3lora", "prune", tuning.adapter.name, *ranking, "--top", str(tuning.top), "-o", "PRUNED"])


def _notes(result: Evaluation | Sweep | Tuning, *more: str) -> tuple[list[str], list[str]]:
    """Return the notes that are shown, and those that are folded."""
    found = once([*more, *few(result.suites), *result.warnings], names_in(result))
    found.sort(key=lambda note: not note.startswith("utility collapse"))
    return found[:NOTES], found[NOTES:]


def _label(point: SweepPoint) -> str:
    return point.ranking if point.seed is None else f"{point.ranking}, seed {point.seed}"


def _central(evaluation: Evaluation, comparison: PairedComparison) -> bool:
    measure = measure_of(evaluation.suites, (comparison.suite, comparison.measure))
    return measure is not None and measure.role != "other"


def _counted(sweep: Sweep, key: Key) -> str:
    metrics = [variant.metric(*key) for variant in (sweep.base, sweep.unpruned)]
    numbers = sorted({metric.n for metric in metrics if metric is not None})
    return "" if not numbers else f"n = {numbers[0]}" + (f" to {numbers[-1]}" if len(numbers) > 1 else "")


def _matrix(sweep: Sweep) -> dict[str, Any]:
    """Return the correlations as a square table, empty where a pair was not compared."""
    pairs: dict[tuple[str, str], float] = {}
    for name, value in sweep.correlations.items():
        a, _, b = name.partition(" | ")
        pairs[a, b] = pairs[b, a] = value
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    cells = [
        (a, ["1" if a == b else f"{pairs[a, b]:.2f}".replace("-", "−") if (a, b) in pairs else "" for b in names])
        for a in names
    ]
    return {"names": names, "rows": cells}


def _render(template: str, **values: Any) -> str:
    environment_of_pages().filters.update(items=items, ratio=ratio)
    return render(template, **values)
