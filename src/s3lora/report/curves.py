"""The curves of a sweep as a PNG; needs matplotlib (extra `eval`), which is imported when something is drawn."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3lora.evaluate.results import Metric, Sweep, Variant
from s3lora.files import write_whole
from s3lora.needs import need
from s3lora.report.axes import axis_label
from s3lora.report.labels import Spot, beside
from s3lora.report.names import head, tail
from s3lora.report.sweep_view import Dot, Key, Line, apart, dots, lines, order
from s3lora.report.values import measure_of, metric_text

#: After Okabe and Ito, told apart by colour-blind readers; their yellow is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: Circle, square, triangles, diamond, plus and cross: one for each colour, so that no reader needs the colour.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREYS = ("#9a9a9a", "#6e6e6e", "#3c3c3c")
DASHES = ("--", ":", "-.")
#: A second round through the colours is dashed.
STROKES = ("-", (0, (4, 1.5)))
DPI = 150
STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "s3lora",
}


def draw(sweep: Sweep, path: Path | str) -> None:
    """Write the curves of a sweep as a PNG, whole or not at all.

    Raises OutputError where the file cannot be written, MissingPackageError without matplotlib.
    """
    write_whole(Path(path), png(sweep))


def png(sweep: Sweep) -> bytes:
    """Return the curves of a sweep: safety against modules pruned and, where it was measured, against usefulness.

    Equal sweeps give equal bytes with one version of matplotlib.
    """
    matplotlib = need("matplotlib")
    backend = need("matplotlib.backends.backend_agg")
    figures = need("matplotlib.figure")
    buffer = io.BytesIO()
    # Names may hold signs that the font has not; they are drawn as boxes, which is no reason to warn.
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        panels = 1 if sweep.utility is None else 2
        figure = figures.Figure(figsize=(6.4 * panels, 5.4), dpi=DPI, layout="constrained")
        backend.FigureCanvasAgg(figure)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _against_modules(axes[0], sweep)
        if sweep.utility is not None:
            _against_utility(axes[1], sweep, sweep.utility)
        _legend(figure, axes)
        _title(figure, sweep)
        if sweep.utility is not None:
            _numbers(figure, axes[1], dots(sweep))
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _title(figure: Any, sweep: Sweep) -> None:
    metric = sweep.unpruned.metric(*sweep.safety)
    about = [f"base {tail(sweep.setup.base, 50)}"] + ([] if metric is None else [f"n = {metric.n}"])
    judge = next((suite.judge for suite in sweep.suites if suite.name == sweep.safety[0] and suite.judge), "")
    about += [f"judged by {head(judge, 70)}"] if judge else []
    text = (
        f"{tail(sweep.adapter.name, 60) or 'adapter'}\n{(' · ' if sweep.utility is not None else chr(10)).join(about)}"
    )
    figure.suptitle(text, fontsize=10, x=0.01, ha="left", parse_math=False)


def _against_modules(axes: Any, sweep: Sweep) -> None:
    found = lines(sweep)
    places = order(sweep)
    rankings = [line for line in found if not line.control]
    tops = [place.top for line in found for place in line.places]
    step = apart(found)
    for i, line in enumerate(rankings):
        _ranking(axes, line, places.index(line.ranking), (i - (len(rankings) - 1) / 2) * step)
    for i, line in enumerate(line for line in found if line.control):
        _control(axes, line, i)
    _references(axes, sweep)
    total = {point.modules_total for point in sweep.points}
    _label(axes, "x", "LoRA modules pruned" + (f", of {total.pop()}" if len(total) == 1 else ""))
    _scale(axes, "y", sweep, sweep.safety)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlim(-0.03 * max(tops, default=1), 1.03 * max(max(tops, default=1), 1))
    _note(axes, "bars: 95 % intervals; grey: controls, mean and range of their seeds; lines are moved apart a little")
    if not tops:
        _label_nothing(axes)


def _note(axes: Any, text: str) -> None:
    axes.set_title(text, fontsize=8, color="#555555", loc="left")


def _label_nothing(axes: Any) -> None:
    axes.text(0.5, 0.5, "no point has a number", transform=axes.transAxes, ha="center", color="#555555")


def _ranking(axes: Any, line: Line, place: int, shift: float) -> None:
    x = [point.top + shift for point in line.places]
    y = [point.value for point in line.places]
    colour, marker, stroke = _look(place)
    for point, at in zip(line.places, x, strict=True):
        if point.low is not None and point.high is not None:
            axes.plot([at, at], [point.low, point.high], color=colour, alpha=0.45, linewidth=1.2)
    axes.plot(
        x, y, color=colour, marker=marker, linestyle=stroke, markersize=5, linewidth=1.5, label=_name(line.ranking)
    )


def _look(place: int) -> tuple[str, str, Any]:
    again = place // len(COLOURS)
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], STROKES[min(again, 1)]


def _grey(place: int) -> tuple[str, str]:
    return GREYS[place % len(GREYS)], MARKERS[place % len(GREYS)]


def _control(axes: Any, line: Line, i: int) -> None:
    x = [point.top for point in line.places]
    low = [point.value if point.low is None else point.low for point in line.places]
    high = [point.value if point.high is None else point.high for point in line.places]
    grey, marker = _grey(i)
    axes.fill_between(x, low, high, color=grey, alpha=0.3, linewidth=0, zorder=1.2)
    axes.plot(
        x, [point.value for point in line.places], color=grey, linestyle=DASHES[i % len(DASHES)], linewidth=1.4,
        marker=marker, markersize=3, label=f"{_name(line.ranking)} (control)", zorder=1.3,
    )  # fmt: skip


def _fixed(sweep: Sweep) -> list[tuple[str, Variant, str]]:
    """Return (name, variant, marker) of what is not pruned."""
    return [("unpruned", sweep.unpruned, "*"), ("base alone", sweep.base, "p")]


def _references(axes: Any, sweep: Sweep) -> None:
    dashes = ((0, (1, 1.2)), (0, (6, 2)))
    for (name, variant, sign), dash in zip(_fixed(sweep), dashes, strict=True):
        metric = variant.metric(*sweep.safety)
        if metric is not None and metric.value is not None:
            look = {"color": "#333333", "linestyle": dash, "linewidth": 1.0}
            axes.axhline(metric.value, **look, zorder=1.5)
            label = f"{name} {metric_text(metric)}"
            axes.plot([], [], **look, marker=sign, markersize=10, markerfacecolor="none", label=label)


def _against_utility(axes: Any, sweep: Sweep, utility: Key) -> None:
    found = dots(sweep)
    places = order(sweep)
    controls = list(dict.fromkeys(line.ranking for line in lines(sweep) if line.control))
    for dot in found:
        _dot(axes, dot, _grey(controls.index(dot.ranking)) if dot.control else _look(places.index(dot.ranking))[:2])
    best = sorted((dot for dot in found if dot.pareto), key=lambda dot: (dot.utility, dot.safety))
    axes.plot(
        [d.utility for d in best], [d.safety for d in best], color="#333333", linewidth=0.9, linestyle="--", zorder=2
    )
    if best:
        axes.plot([], [], "o", markersize=11, markerfacecolor="none", color="#333333", label="Pareto front")
    for _, variant, sign in _fixed(sweep):
        safety, useful = variant.metric(*sweep.safety), variant.metric(*utility)
        if _has(safety) and _has(useful):
            axes.plot(
                useful.value, safety.value, sign, color="#333333", markersize=15, zorder=4.5,  # type: ignore[union-attr]
                markerfacecolor="none",
            )  # fmt: skip
    _scale(axes, "x", sweep, utility)
    _scale(axes, "y", sweep, sweep.safety)
    _note(axes, "rings: Pareto front, with intervals and modules pruned; grey: controls, mean and range")
    if not found:
        _label_nothing(axes)


def _has(metric: Metric | None) -> bool:
    return metric is not None and metric.value is not None


def _dot(axes: Any, dot: Dot, look: tuple[str, str]) -> None:
    colour, marker = look
    axes.plot(dot.utility, dot.safety, marker, color=colour, markersize=3 if dot.control else 5, zorder=3 - dot.control)
    if dot.pareto:
        axes.plot(dot.utility, dot.safety, "o", markersize=11, markerfacecolor="none", color="#333333", zorder=4)
    if dot.pareto or dot.spread:
        bar = {"color": colour, "alpha": 0.45, "linewidth": 1.2, "zorder": 2 - dot.control}
        if dot.utility_interval is not None:
            axes.plot(dot.utility_interval, [dot.safety] * 2, **bar)
        if dot.safety_interval is not None:
            axes.plot([dot.utility] * 2, dot.safety_interval, **bar)


def _numbers(figure: Any, axes: Any, found: Sequence[Dot]) -> None:
    """Write the numbers of modules beside the points of the Pareto front, where they hide least."""
    figure.draw_without_rendering()  # only now is it known where points lie
    taken: list[Spot] = [tuple(axes.transData.transform((dot.utility, dot.safety))) for dot in found]
    area = [tuple(corner) for corner in axes.get_window_extent().get_points()]
    for dot, (x, y) in list(zip(found, taken, strict=True)):
        if dot.pareto:
            text = str(dot.top)
            # In pixels: a figure of 8 points is some 11 wide and 17 high at 150 dots an inch.
            place = beside((x, y), taken, (11.0 * len(text), 17.0), (area[0], area[1]), gap=13.0)
            taken.append(place)
            axes.annotate(
                text, (dot.utility, dot.safety), xytext=(place[0] - x, place[1] - y), textcoords="offset pixels",
                fontsize=8, ha="center", va="center", zorder=5,
            )  # fmt: skip


def _scale(axes: Any, axis: str, sweep: Sweep, key: Key) -> None:
    """Label an axis with its measure; rates go from 0 to 1 whatever was found."""
    measure = measure_of(sweep.suites, key)
    _label(axes, axis, axis_label(measure, key))
    if measure is not None and measure.kind == "rate":
        getattr(axes, f"set_{axis}lim")(-0.03, 1.05)


def _label(axes: Any, axis: str, text: str) -> None:
    getattr(axes, f"set_{axis}label")(tail(text, 60), parse_math=False)


def _name(ranking: str) -> str:
    """Return what a legend takes: it leaves out names that are empty or begin with an underscore."""
    name = tail(ranking, 40)
    return name if name and not name.startswith("_") else f" {name}"


def _legend(figure: Any, axes: Any) -> None:
    handles = [pair for panel in axes for pair in zip(*panel.get_legend_handles_labels(), strict=True)]
    if handles:
        legend = figure.legend(*zip(*handles, strict=True), loc="outside lower left", ncols=2 if len(axes) == 1 else 4)
        for text in legend.get_texts():
            text.set_parse_math(False)
