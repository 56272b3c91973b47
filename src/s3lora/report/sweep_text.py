"""A sweep and a tuning for people: one table, and the sentences that go with its best points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.evaluate.results import Key, Metric, SuiteInfo, Sweep, SweepPoint, Tuning, Variant
from s3lora.report.blocks import BULLET, Fitted, labelled, noted, section, title
from s3lora.report.evaluation_text import LEGEND
from s3lora.report.names import NameCell, head, tail
from s3lora.report.sweep_view import SweepRow, amount, collapses, front, rows, sentences, telling
from s3lora.report.values import (
    BAND,
    Evaluated,
    band_rows,
    heading,
    learned_text,
    measure_of,
    metric_text,
    over_refusal_key,
    percent,
)

#: Best on one of the two axes among all points that are as good on the other.
PARETO = "◆"
COLLAPSE = "!"
CHOSEN = "→"
COLLAPSED = f"{COLLAPSE} utility collapse: more than a tenth of what the adapter learned is lost"
LOST = "learned, lost: how much of what the adapter learned is lost; nothing pruned is 0 %, no adapter 100 %"
#: From so many columns on, numbers are written with the zero before their point.
WIDE = 100
#: Points of the Pareto front whose sentences are shown; all are in the JSON.
SHOWN = 5
#: The longest outcome that is shown whole: it has intervals of several measures.
OUTCOME = 1200
#: The longest name of a ranking; it may take several lines.
LABEL = 60
CORRELATIONS = 10


def sweep_text(sweep: Sweep) -> RenderableType:
    """Return the report of `s3lora sweep`; it fits the width it is printed at, from 80 columns on."""
    parts: list[RenderableType] = [title(sweep.adapter.name, _about(sweep), sweep.setup, [sweep.adapter]), Text()]
    keys = shown_keys(sweep.suites, sweep.safety, sweep.utility)
    parts.append(Fitted(lambda width: _sweep_table(sweep, keys, short=width < WIDE)))
    made = rows(sweep)
    parts.append(Text(_legend(sweep, made, _shared(sweep)), "dim"))
    unpruned = [("no adapter", sweep.base), ("nothing pruned", sweep.unpruned)]
    parts += section(BAND, *labelled(band_rows(unpruned, keys)))
    parts += section("what was found", *_reading(sweep))
    parts += section("rankings that agree (Spearman's rank correlation)", *_correlations(sweep))
    return Group(*parts, *noted(sweep, *collapses(sweep)))


def _about(sweep: Sweep) -> str:
    repairs = sum(point.strength is not None for point in sweep.points)
    counts = ((len(sweep.points) - repairs, "pruning"), (repairs, "repair"))
    told = [f"{number} {what}{'' if number == 1 else 's'}" for number, what in counts if number]
    return f"{' and '.join(told) or '0 prunings'} on one model"


def shown_keys(suites: Sequence[SuiteInfo], safety: Key, utility: Key | None) -> list[Key]:
    """Return the measures of the table: safety, over-refusal beside it, usefulness."""
    keys = (safety, over_refusal_key(suites, safety), utility)
    return list(dict.fromkeys(key for key in keys if key is not None))


def _sweep_table(sweep: Sweep, keys: Sequence[Key], *, short: bool) -> Table:
    made = rows(sweep)
    table = _empty_table(
        sweep.suites, keys, [sweep.base, sweep.unpruned], max((len(_mark(row)) for row in made), default=1)
    )
    learned = _learned(sweep.points)
    if learned:
        table.add_column("learned,\nlost", justify="right", no_wrap=True)
    for name, variant, kind in (("no adapter", sweep.base, "base"), ("nothing pruned", sweep.unpruned, "unpruned")):
        mark = PARETO * (kind in sweep.pareto_variants)
        table.add_row(mark, NameCell(name), *_cells(variant.metric, keys, short), "", style="bold" if mark else "")
    shared = _shared(sweep)
    last = None
    for row in made:
        if row.amount != last:
            table.add_row("", "", *[""] * len(keys), "")
            table.add_row("", Text(row.amount, "bold"), *[""] * len(keys), "")
            last = row.amount
        cells = [Text(row.text(key, measure_of(sweep.suites, key), short=short)) for key in keys]
        label = Text(tail(row.label.replace(shared, "") if short and shared else row.label, LABEL))
        style = "bold" if row.pareto else "dim" if row.control else ""
        lost = [row.learned(sweep.utility, short=short)] if learned else []
        table.add_row(_mark(row), label, *cells, row.energy, *lost, style=style)
    return table


def _learned(points: Sequence[SweepPoint]) -> bool:
    """Return whether any point tells how much of what was learned is lost; documents of older versions do not."""
    return any(point.shares for point in points)


def _shared(sweep: Sweep) -> str:
    """Return how names tell the method where all rankings share one, which then need not stand in every row."""
    methods = {point.method for point in sweep.points if point.method is not None}
    return f" ({methods.pop()})" if len(methods) == 1 else ""


def _mark(row: SweepRow) -> str:
    return PARETO * row.pareto + COLLAPSE * row.collapse


def _empty_table(suites: Sequence[SuiteInfo], keys: Sequence[Key], variants: Sequence[Variant], marks: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", width=max(marks, 1))
    table.add_column("")
    for key in keys:
        measure = measure_of(suites, key)
        unit = head(measure.unit, 16) if measure is not None else ""
        name = key[1] if measure is None else heading(replace(measure, unit=""))
        table.add_column(Text("\n".join([tail(name, 22), *[unit] * bool(unit), _items(variants, key)])), no_wrap=True)
    table.add_column("energy\npruned", justify="right", no_wrap=True)
    return table


def _items(variants: Sequence[Variant], key: Key) -> str:
    counts = sorted({metric.n for variant in variants if (metric := variant.metric(*key)) is not None})
    return "" if not counts else f"n {counts[0]}" if len(counts) == 1 else f"n {counts[0]}–{counts[-1]}"


def _cells(metric: Callable[[str, str], Metric | None], keys: Sequence[Key], short: bool) -> list[Text]:
    return [Text(metric_text(metric(*key), short=short)) for key in keys]


def _legend(sweep: Sweep, made: Sequence[SweepRow], shared: str) -> str:
    lines = [LEGEND]
    if any(shared and shared in row.label for row in made):
        lines.append(f"method of all rankings: {tail(shared.strip(' ()'), 40)}")
    if any(row.spreads for row in made):
        lines.append("controls × seeds: mean (least–greatest)")
    if sweep.pareto or sweep.pareto_variants:
        lines.append(
            f"{PARETO} Pareto front: nothing, base and adapter included, beats it in one and ties in the other"
        )
    if any(_learned(row.points) for row in made):
        lines.append(LOST)
    if any(row.collapse for row in made):
        lines.append(COLLAPSED)
    return "\n" + "\n".join(lines)


def _reading(sweep: Sweep) -> list[RenderableType]:
    left = len(front(sweep)) - SHOWN
    keys = (sweep.safety, sweep.utility)
    told = [(_label(point), said) for point in telling(sweep, SHOWN) if (said := " ".join(sentences(point, keys)))]
    more = [("", f"… and {left} more points of the front, in the JSON")] if left > 0 else []
    return labelled(told + more)


def _label(point: SweepPoint) -> str:
    """Return a mark where the sentences name the point themselves, else its ranking and number of modules."""
    if point.comparisons and all(c.variant in c.sentence for c in point.comparisons):
        return PARETO
    number = str(point.top) if point.strength is None else f"{point.strength:g}"
    return f"{tail(point.ranking, 22 - len(number))}, {number}"


def _correlations(sweep: Sweep) -> list[RenderableType]:
    if not sweep.correlations:
        return []
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(no_wrap=True, max_width=60)
    table.add_column(justify="right", no_wrap=True)
    pairs = list(sweep.correlations.items())
    for pair, value in pairs[:CORRELATIONS]:
        table.add_row(NameCell(pair.replace(" | ", " and ")), f"{value:.2f}")
    if len(pairs) > CORRELATIONS:
        table.add_row(f"… and {len(pairs) - CORRELATIONS} more pairs", "", style="dim")
    return [table]


def tuning_text(tuning: Tuning) -> RenderableType:
    """Return the report of `s3lora tune`: the outcome first, then the evidence for it on both halves."""
    chosen = f"{tuning.top} of {tuning.modules_total} modules" if tuning.top else nothing_text(tuning)
    about = f"{chosen} by {tail(tuning.ranking, 40)}"
    parts: list[RenderableType] = [title(tuning.adapter.name, about, tuning.setup, [tuning.adapter]), Text()]
    parts += [Text(printable(tuning.sentence, OUTCOME), "bold"), Text()]
    parts += [Text(printable(tuning.forecast, OUTCOME)), Text()] if tuning.forecast else []
    keys = shown_keys(tuning.suites, tuning.safety, tuning.utility)
    parts.append(Fitted(lambda width: _tuning_table(tuning, keys, short=width < WIDE)))
    legend = [LEGEND, f"floor: {floor_text(tuning)}"]
    legend += [COLLAPSED] if any(point.collapse for point in tuning.tried) else []
    parts.append(Text("\n" + "\n".join(legend), "dim"))
    if tuning.confirmed is not None:
        told = sentences(tuning.confirmed, keys)
        parts += section("on the held-out half", *labelled([(BULLET, sentence) for sentence in told]))
    held_out: list[tuple[str, Evaluated | None]] = [
        ("no adapter", tuning.held_out_base),
        ("nothing pruned", tuning.held_out_unpruned),
        ("chosen", tuning.confirmed),
    ]
    bands = band_rows([(name, one) for name, one in held_out if one is not None], keys)
    parts += section(f"on the held-out half, {BAND}", *labelled(bands))
    return Group(*parts, *noted(tuning))


def floor_text(tuning: Tuning) -> str:
    """Return how much usefulness may be lost."""
    return f"at most {percent(tuning.floor)} of what the adapter learned may be lost"


def nothing_text(tuning: Tuning) -> str:
    """Return what is said in the place of a number of modules."""
    return "cannot tell what to prune" if tuning.outcome == "cannot tell" else "nothing to prune"


def _tuning_table(tuning: Tuning, keys: Sequence[Key], *, short: bool) -> Table:
    table = _empty_table(tuning.suites, keys, [], 2)
    learned = tuning.utility if _learned(tuning.tried) else None
    if learned:
        table.add_column("learned,\nlost", justify="right", no_wrap=True)

    def half(name: str, base: Variant | None, unpruned: Variant, points: Sequence[SweepPoint]) -> None:
        table.add_row("", Text(name, "bold"), *(Text(_items([unpruned], key), "dim") for key in keys))
        for label, variant in (("no adapter", base), ("nothing pruned", unpruned)):
            if variant is not None:
                table.add_row("", NameCell(label), *_cells(variant.metric, keys, short))
        for point in sorted(points, key=lambda point: point.top):
            chosen = point.top == tuning.top
            mark = CHOSEN * chosen + COLLAPSE * point.collapse
            cells = _cells(point.metric, keys, short)
            lost = [learned_text(point.learned(*learned), short=short)] if learned else []
            shares = (percent(point.frobenius_energy), *lost)
            table.add_row(mark, NameCell(amount(point)), *cells, *shares, style="bold" if chosen else "")

    half("tuning half", tuning.tuning_base, tuning.tuning_unpruned, tuning.tried)
    table.add_row("")
    confirmed = () if tuning.confirmed is None else (tuning.confirmed,)
    half("held-out half", tuning.held_out_base, tuning.held_out_unpruned, confirmed)
    return table
