"""The curves of a sweep as a picture: the charts of its page on one sheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from s3lora.evaluate.results import Sweep
from s3lora.files import write_whole
from s3lora.report.chart import against_modules, against_utility, legend
from s3lora.report.names import head, tail
from s3lora.report.picture import png_of
from s3lora.report.sheet import sheet


def draw(sweep: Sweep, path: Path | str) -> None:
    """Write the curves of a sweep as a PNG, whole or not at all.

    Raises OutputError where the file cannot be written, MissingPackageError without resvg-py.
    """
    write_whole(Path(path), png(sweep))


def png(sweep: Sweep) -> bytes:
    """Return the curves of a sweep as a PNG; raises MissingPackageError without resvg-py."""
    return png_of(svg(sweep))


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
