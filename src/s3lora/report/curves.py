"""The curves of a sweep, and what the trials of a repair traded, as pictures: charts of their pages on one sheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from s3lora.evaluate.results import Sweep
from s3lora.files import write_whole
from s3lora.repair.results import Repair
from s3lora.report.chart import against_modules, against_utility, legend
from s3lora.report.names import head, tail
from s3lora.report.picture import png_of
from s3lora.report.repair_charts import trade_off, trade_off_legend
from s3lora.report.sheet import sheet


def draw(result: Sweep | Repair, path: Path | str) -> None:
    """Write the curves of a sweep, or the trials of a repair, as a PNG, whole or not at all.

    Raises OutputError where the file cannot be written, MissingPackageError without resvg-py.
    """
    write_whole(Path(path), png(result))


def png(result: Sweep | Repair) -> bytes:
    """Return the curves of a sweep, or the trials of a repair, as a PNG.

    Raises MissingPackageError without resvg-py.
    """
    return png_of(svg(result) if isinstance(result, Sweep) else trials_svg(result))


def trials_svg(repair: Repair) -> str:
    """Return what the trials of a repair traded as SVG: safety against what was learned that is lost."""
    drawn = trade_off(repair)
    charts = [] if drawn is None else [drawn]
    judge = next((suite.judge for suite in repair.suites if suite.name == repair.safety[0] and suite.judge), "")
    about = [f"base {tail(repair.setup.base, 50)}", *([f"judged by {head(judge, 60)}"] if judge else [])]
    about.append("filled: within all limits; numbers: strengths" if charts else "no trial has both numbers")
    return sheet(repair.source.name or "adapter", about, charts, trade_off_legend(repair) if charts else [])


def svg(sweep: Sweep) -> str:
    """Return the curves of a sweep as SVG: safety against modules pruned and, if measured, against usefulness."""
    charts = [chart for chart in (against_modules(sweep), against_utility(sweep)) if chart is not None]
    return sheet(sweep.adapter.name or "adapter", list(_about(sweep, len(charts))), charts, legend(sweep))


def _about(sweep: Sweep, charts: int) -> Iterator[str]:
    metric = sweep.unpruned.metric(*sweep.safety)
    yield f"base {tail(sweep.setup.base, 50)}" + ("" if metric is None else f" · n = {metric.n}")
    judge = next((suite.judge for suite in sweep.suites if suite.name == sweep.safety[0] and suite.judge), "")
    if judge:
        yield f"judged by {head(judge, 60)}"
    if not charts:
        yield "no point has a number"
    elif any(point.control for point in sweep.points):
        yield "bars: 95 % intervals; grey: controls, mean and range of their seeds"
    else:
        yield "bars: 95 % intervals"
