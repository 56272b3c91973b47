"""An evaluation for people: a table a suite, what differs, what it costs, and what is left of each adapter."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.evaluate.results import Cost, Evaluation, Measure, Metric, PairedComparison, SuiteInfo, Variant
from s3lora.report.blocks import BULLET, Fitted, labelled, noted, section, title
from s3lora.report.names import NameCell, tail
from s3lora.report.values import (
    BAND,
    NOTHING,
    band_rows,
    count,
    decimal,
    heading,
    measure_of,
    metric_text,
    percent,
    sources_of,
)

#: Columns that a name of a variant gets at most, and at least.
NAME_WIDTH = (34, 16)
#: The longest title; its line also says what was done.
TITLE = 60
#: Sentences on differences that are shown; all are in the JSON.
SENTENCES = 24
LEGEND = "↓ lower is better, ↑ higher is better; [95 % interval]"


def evaluation_text(evaluation: Evaluation) -> RenderableType:
    """Return the report of `s3lora eval`; it fits the width it is printed at, from 80 columns on."""
    adapters = sources_of(evaluation.variants)
    names = ", ".join(tail(source.name, 30) for source in adapters) or "evaluation"
    names = names if cell_len(names) <= TITLE else f"{len(adapters)} adapters"
    parts: list[RenderableType] = [title(names, "measured on a model", evaluation.setup, adapters)]
    for suite in evaluation.suites:
        table = _table(evaluation.variants, suite)
        parts += section(tail(suite.name, 60), table, *_bands(evaluation.variants, suite))
    if evaluation.suites:
        parts += [Text(), Text(LEGEND, "dim")]
    parts += section("what is lost of what was learned", *_lost(evaluation.variants))
    parts += section("differences on the same items", *_differences(evaluation))
    parts += section("values that are too few for an interval", *_few(evaluation.variants))
    parts += section("cost", *_costs(evaluation.variants))
    parts += section("in the loaded model", *_loaded(evaluation.variants))
    parts += section("counted besides", *_counts(evaluation.variants))
    return Group(*parts, *noted(evaluation))


def _bands(variants: Sequence[Variant], suite: SuiteInfo) -> list[RenderableType]:
    """Return the band that the judge's measured error leaves of each rate, variant by variant."""
    lines = band_rows([(v.name, v) for v in variants], [(suite.name, measure.name) for measure in suite.measures])
    return [Text(f"\n{BAND}", "dim"), *labelled(lines)] if lines else []


def _table(variants: Sequence[Variant], suite: SuiteInfo) -> RenderableType:
    """Return the table of a suite, cut into several below each other where its measures do not fit into one."""
    return Fitted(lambda width: Group(*_parts_of_table(variants, suite, width)))


def _parts_of_table(variants: Sequence[Variant], suite: SuiteInfo, width: int) -> list[RenderableType]:
    name_width = min(max([NAME_WIDTH[1], *(cell_len(printable(v.name)) for v in variants)]), NAME_WIDTH[0])
    columns = [(measure, _column(variants, suite.name, measure)) for measure in suite.measures]
    tables: list[RenderableType] = []
    while columns:
        room, taken = width - name_width - 2, 0
        while taken < len(columns) and (taken == 0 or room >= _width(*columns[taken]) + 2):
            room -= _width(*columns[taken]) + 2
            taken += 1
        tables += [Text()] if tables else []
        tables.append(_one_table(variants, columns[:taken], name_width))
        columns = columns[taken:]
    return tables


def _one_table(
    variants: Sequence[Variant], columns: Sequence[tuple[Measure, list[str]]], name_width: int
) -> RenderableType:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", max_width=name_width)
    for measure, cells in columns:
        table.add_column(Text(f"{tail(heading(measure), 30)}\n{cells[0]}"), no_wrap=True)
    for i, variant in enumerate(variants, 1):
        table.add_row(NameCell(variant.name), *(Text(cells[i]) for _, cells in columns))
    return table


def _width(measure: Measure, cells: Sequence[str]) -> int:
    lines = [tail(heading(measure), 30), *(line for cell in cells for line in cell.split("\n"))]
    return max(map(cell_len, lines))


def _column(variants: Sequence[Variant], suite: str, measure: Measure) -> list[str]:
    """Return n, where it is the same for all variants, then a cell a variant, with its own n where it is not."""
    metrics = [variant.metric(suite, measure.name) for variant in variants]
    counts = {items(metric) for metric in metrics if metric is not None}
    if len(counts) <= 1:
        return [next(iter(counts), ""), *map(metric_text, metrics)]
    return ["", *(f"{metric_text(m)} {items(m)}" if m is not None else NOTHING for m in metrics)]


def items(metric: Metric) -> str:
    """Return how many items were counted, and how many have no number, or an answer that nobody knows."""
    missing = metric.missing - metric.unknown
    parts = [f"n {metric.n}"] + [f"{metric.unknown} unknown"] * bool(metric.unknown)
    return ", ".join(parts + [f"{missing} missing"] * bool(missing))


def _differences(evaluation: Evaluation) -> list[RenderableType]:
    """Return the sentences: first those on safety and usefulness, then those on what differs."""
    ordered = sorted(evaluation.comparisons, key=lambda c: _importance(evaluation, c))
    shown = ordered[:SENTENCES]
    left = len(ordered) - len(shown)
    more = [("", f"… and {left} more comparisons, in the JSON")] if left else []
    return labelled([(BULLET if c.variant in c.sentence else c.variant, c.sentence) for c in shown] + more)


def _lost(variants: Sequence[Variant]) -> list[RenderableType]:
    """Return a sentence a pruned adapter and measure of usefulness; that none can be told is among the warnings."""
    return labelled([(BULLET, share.sentence) for v in variants for share in v.shares if share.value is not None])


def _few(variants: Sequence[Variant]) -> list[RenderableType]:
    """Return the values of means that are of too few items for an interval."""
    found = [(variant.name, metric) for variant in variants for metric in variant.metrics if metric.values]
    return labelled([(name, f"{m.suite} {m.measure}: {', '.join(map(decimal, m.values))}") for name, m in found])


def _importance(evaluation: Evaluation, comparison: PairedComparison) -> tuple[bool, bool]:
    measure = measure_of(evaluation.suites, (comparison.suite, comparison.measure))
    central = measure is not None and measure.role != "other"
    return (not central, comparison.verdict in ("no difference", "unknown"))


def _costs(variants: Sequence[Variant]) -> list[RenderableType]:
    found = [(variant, cost) for variant in variants for cost in variant.costs]
    if not found:
        return []
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", max_width=NAME_WIDTH[0])
    for name in ("", "s a sample", "tokens/s", "time / unpruned"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for variant, cost in found:
        speed = (decimal(cost.seconds_per_sample), decimal(cost.tokens_per_second))
        table.add_row(NameCell(variant.name), cost.mode, *speed, ratio(cost))
    return [table, *labelled([(BULLET, cost.sentence) for _, cost in found if cost.sentence])]


def ratio(cost: Cost) -> str:
    """Return the time of a sample as a share of the unpruned adapter's, with its interval."""
    metric = Metric("", "", cost.ratio, cost.samples, 0, cost.ratio_low, cost.ratio_high, "bootstrap")
    return metric_text(metric)


def _loaded(variants: Sequence[Variant]) -> list[RenderableType]:
    found = [variant for variant in variants if variant.loaded is not None or variant.share is not None]
    if not found:
        return []
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", max_width=NAME_WIDTH[0])
    for name in ("modules", "parameters", "FLOPs/token", "energy pruned"):
        table.add_column(name, justify="right", no_wrap=True)
    for variant in found:
        loaded = variant.loaded
        numbers = (None,) * 3 if loaded is None else (loaded.modules, loaded.parameters, loaded.flops_per_token)
        energy = NOTHING if variant.share is None else percent(variant.share.frobenius_energy)
        table.add_row(NameCell(variant.name), *map(count, numbers), energy)
    return [table]


def _counts(variants: Sequence[Variant]) -> list[RenderableType]:
    return labelled(
        [
            (variant.name, ", ".join(f"{printable(name, 60)} {number}" for name, number in variant.counts.items()))
            for variant in variants
            if variant.counts
        ]
    )
