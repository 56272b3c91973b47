"""The heat map of a scan alone, as SVG or PNG: equal scans give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from s3lora.choose.rankings import Ranked
from s3lora.errors import NothingToAuditError
from s3lora.needs import need
from s3lora.report.documents import ScanDocument
from s3lora.report.heatmap import COLOURS
from s3lora.report.html import environment_of_pages
from s3lora.report.names import tail
from s3lora.report.scan_charts import HeatMap, heat_map, scale_ends
from s3lora.report.scan_view import Series, View, view_of

#: Dots an inch; one pixel of the drawing is 1/96 inch.
DPI = 192
TITLE = 60
#: Pixels above the map, and the least width, which holds the scale.
HEAD, LEAST = 34.0, 420.0
WORDS: dict[str, Any] = {"fontsize": 8.5, "color": "#3c444b", "va": "center", "parse_math": False}


def heat_map_svg(document: ScanDocument, ranked: Sequence[Ranked]) -> str:
    """Return the layer × projection map of the plan's index as an SVG file.

    Raises NothingToAuditError where fewer than two modules have a layer and a value.
    """
    view, series, drawn = _drawn(document, ranked)
    text: str = (
        environment_of_pages()
        .get_template("heatmap.svg.jinja")
        .render(
            map=drawn,
            title=_title(view, series),
            ends=scale_ends(series),
            colours=COLOURS,
            chosen=_chosen(view),
            width=_size(drawn)[0],
            height=_size(drawn)[1],
        )
    )
    return text


def heat_map_png(document: ScanDocument, ranked: Sequence[Ranked]) -> bytes:
    """Return the same map as a PNG; its bytes are fixed for one version of matplotlib.

    Raises MissingPackageError without matplotlib, and NothingToAuditError as `heat_map_svg`.
    """
    view, series, drawn = _drawn(document, ranked)
    matplotlib, figures = need("matplotlib", "plots"), need("matplotlib.figure", "plots")
    backend = need("matplotlib.backends.backend_agg", "plots")
    width, height = _size(drawn)
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        figure = figures.Figure(figsize=(width / 96, height / 96), dpi=DPI, facecolor="#fdfdfb")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        axes.text(10, 18, _title(view, series), **{**WORDS, "fontsize": 10.5, "color": "#1d2125", "fontweight": "bold"})
        _draw_cells(axes, drawn)
        _draw_scale(axes, drawn, series, _chosen(view))
        target = io.BytesIO()
        backend.FigureCanvasAgg(figure).print_png(target, metadata={"Software": None})
    return target.getvalue()


def _draw_cells(axes: Any, drawn: HeatMap) -> None:
    rectangle = need("matplotlib.patches", "plots").Rectangle
    for at, text in drawn.layers:
        axes.text(at, HEAD + 10, text, ha="center", **WORDS)
    for y, name, cells in drawn.rows:
        axes.text(drawn.left - 8, y + HEAD, name, ha="right", **WORDS)
        for cell in cells:
            empty = cell.css == "hn"
            look = {"fill": False, "edgecolor": "#c4c8cc"} if empty else {"color": COLOURS[int(cell.css[1:])]}
            axes.add_patch(rectangle((cell.x, cell.y + HEAD), *drawn.cell, linewidth=0.5, **look))
    for x, y in drawn.crosses:
        for colour, line in (("#000000", 2.4), ("#ffffff", 1.0)):
            axes.plot(x, y + HEAD, marker="x", markersize=drawn.arm * 1.5, markeredgewidth=line, color=colour)


def _draw_scale(axes: Any, drawn: HeatMap, series: Series, chosen: str) -> None:
    rectangle = need("matplotlib.patches", "plots").Rectangle
    low, high, steps = scale_ends(series)
    level = drawn.height + HEAD + 18
    axes.text(10, level, low, **WORDS)
    for i in range(steps):
        axes.add_patch(rectangle((66 + 14 * i, level - 6), 14, 12, color=COLOURS[i], linewidth=0))
    axes.text(74 + 14 * steps, level, high, **WORDS)
    if drawn.crosses:
        axes.text(140 + 14 * steps, level, f"× chosen: {chosen}", **WORDS)


def _size(drawn: HeatMap) -> tuple[float, float]:
    return max(drawn.width, LEAST), drawn.height + HEAD + 38


def _chosen(view: View) -> str:
    return f"{len(view.chosen)} of {len(view.document.modules)} modules"


def _title(view: View, series: Series) -> str:
    return f"{tail(view.document.source.name or 'adapter', TITLE)}: {series.label} by layer and projection"


def _drawn(document: ScanDocument, ranked: Sequence[Ranked]) -> tuple[View, Series, HeatMap]:
    view = view_of(document, ranked)
    drawn = None if view.shown is None else heat_map(view, view.shown)
    if view.shown is None or drawn is None:
        raise NothingToAuditError(
            "there is no map of fewer than two modules with a layer and an index",
            file=document.source.name,
            fix="use --format html or text",
        )
    return view, view.shown, drawn
