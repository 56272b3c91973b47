"""The drawings of a page as shapes with coordinates, which a template writes as SVG: no library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from s3lora.evaluate.results import Evaluation, Key, Measure, SuiteInfo, Sweep, Variant
from s3lora.report.axes import MARGIN, Axis, axis, measure_axis
from s3lora.report.colours import GREYS, HUES
from s3lora.report.labels import Spot, beside
from s3lora.report.names import tail
from s3lora.report.sweep_view import Dot, Line, apart, by_share, dots, lines, order
from s3lora.report.values import measure_of, metric_text

#: Circle, square, triangles, diamond, plus and cross, around (0, 0): one a colour.
SIGNS = (
    "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0z",
    "M-3.8 -3.8h7.6v7.6h-7.6z",
    "M0 -4.9L4.6 3.6H-4.6z",
    "M0 -5.2L4.4 0L0 5.2L-4.4 0z",
    "M0 4.9L4.6 -3.6H-4.6z",
    "M-1.6 -4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "M-4.4 -2.4L-2.4 -4.4L0 -2L2.4 -4.4L4.4 -2.4L2 0L4.4 2.4L2.4 4.4L0 2L-2.4 4.4L-4.4 2.4L-2 0z",
)
#: A ring around the point that a reader chose, from its middle.
HERE = "m-11 0a11 11 0 1 0 22 0a11 11 0 1 0 -22 0z"
RING = "M-8 0a8 8 0 1 0 16 0a8 8 0 1 0 -16 0z"
STAR = "M0 -9L2.1 -2.9L8.6 -2.8L3.4 1.1L5.3 7.3L0 3.6L-5.3 7.3L-3.4 1.1L-8.6 -2.8L-2.1 -2.9z"
PENTAGON = "M0 -9L8.6 -2.8L5.3 7.3H-5.3L-8.6 -2.8z"
#: Small circle, square and triangle: controls, one a grey.
SPECKS = (
    "M-2.4 0a2.4 2.4 0 1 0 4.8 0a2.4 2.4 0 1 0 -4.8 0z",
    "M-2.1 -2.1h4.2v4.2h-4.2z",
    "M0 -2.9L2.7 2.1H-2.7z",
)


@dataclass(frozen=True, slots=True)
class Path:
    """A line or area through pixels; `css` names its classes, `title` is shown by pointing at it."""

    css: str
    spots: tuple[Spot, ...]
    title: str = ""

    @property
    def points(self) -> str:
        """Return the coordinates as SVG has them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.spots)


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign at a pixel, with what it stands for."""

    css: str
    shape: str
    x: float
    y: float
    title: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A few letters around a pixel."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One line of a legend: a sign, a line or an area of these classes, and what it means."""

    css: str
    shape: str
    text: str
    area: bool = False
    line: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of `width` by `height` pixels: areas below lines below signs below labels."""

    x: Axis
    y: Axis
    title: str
    summary: str
    about: str = ""
    width: float = 480.0
    height: float = 360.0
    areas: list[Path] = field(default_factory=list)
    lines: list[Path] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Return where the frame begins."""
        return self.x.start - MARGIN

    @property
    def right(self) -> float:
        """Return where the frame ends."""
        return self.x.end + MARGIN

    @property
    def top(self) -> float:
        """Return where the frame ends above."""
        return min(self.y.start, self.y.end) - MARGIN

    @property
    def bottom(self) -> float:
        """Return where the frame ends below."""
        return max(self.y.start, self.y.end) + MARGIN


#: Lines of more rankings are named in the legend alone.
MOST_NAMED = 6
LEFT, RIGHT, TOP, BOTTOM = 46.0, 470.0, 12.0, 314.0
#: Where the axis begins beside the names of rows.
NAMED = 176.0


def against_modules(sweep: Sweep) -> Chart | None:
    """Return safety against the number of modules pruned, None where no point has a number."""
    curves = lines(sweep)
    if not curves:
        return None
    tops = [place.top for line in curves for place in line.places]
    totals = {point.modules_total for point in sweep.points}
    label = "LoRA modules pruned" + (f", of {next(iter(totals))}" if len(totals) == 1 else "")
    if any(point.strength is not None for point in sweep.points):
        label += "; strength of repairs, as a share of them"
    x = axis((0, max(*tops, 1)), LEFT, RIGHT, label, whole=True)
    ends = [end for line in curves for place in line.places for end in (place.value, place.low, place.high)]
    measure = measure_of(sweep.suites, sweep.safety)
    y = measure_axis(measure, sweep.safety, [*ends, *_values(sweep, sweep.safety)], BOTTOM, TOP)
    name = sweep.safety[1]
    summary = f"{name} for each ranking and number of modules pruned."
    chart = Chart(x, y, f"{name} against modules pruned", summary, _about(sweep, sweep.safety))
    start = sweep.unpruned.metric(*sweep.safety)
    begin: tuple[Spot, ...] = ()
    if start is not None and start.value is not None and all(tops):
        begin = ((x.at(0), y.at(start.value)),)
    for line in (line for line in curves if line.control):
        _add_control(chart, line, order(sweep), begin)
    for name, variant in (("unpruned", sweep.unpruned), ("base", sweep.base)):
        metric = variant.metric(*sweep.safety)
        if metric is not None and metric.value is not None:
            level = y.at(metric.value)
            spots = ((chart.left, level), (chart.right, level))
            chart.lines.append(Path(f"reference {name}", spots, f"{name} {metric_text(metric)}"))
    rankings = [line for line in curves if not line.control]
    step = apart(curves) * (x.at(1) - x.at(0))
    for i, line in enumerate(rankings):
        _add_ranking(chart, line, order(sweep).index(line.ranking), (i - (len(rankings) - 1) / 2) * step, begin)
    if len(curves) <= MOST_NAMED:
        _add_names(chart, curves)
    return chart


def _add_names(chart: Chart, curves: Sequence[Line]) -> None:
    """Name each line where it is farthest from the others."""
    spots = [[(chart.x.at(place.top), chart.y.at(place.value)) for place in line.places] for line in curves]
    taken = [spot for line in spots for spot in line]
    area = ((chart.left, chart.top - 4), (chart.right, chart.bottom))
    for i, line in enumerate(curves):
        others = [spot for n, found in enumerate(spots) if n != i for spot in found]

        def lonely(spot: Spot, others: Sequence[Spot] = others) -> float:
            return min((abs(y - spot[1]) for x, y in others if abs(x - spot[0]) < 1), default=0.0)

        text = tail(line.ranking, 22)
        place = beside(max(spots[i], key=lonely), taken, (6.4 * len(text), 12.0), area)
        taken += [(place[0] + part * 6.4 * len(text), place[1]) for part in (-0.4, -0.2, 0.0, 0.2, 0.4)]
        chart.labels.append(Label(*place, text))


def _add_control(chart: Chart, line: Line, names: Sequence[str], begin: tuple[Spot, ...]) -> None:
    css = look(names.index(line.ranking), control=True)[0]
    x, y = chart.x.at, chart.y.at
    low = [(x(place.top), y(place.value if place.low is None else place.low)) for place in line.places]
    high = [(x(place.top), y(place.value if place.high is None else place.high)) for place in line.places]
    if low != high:
        chart.areas.append(Path(css, (*begin, *low, *reversed(high)), line.ranking))
    spots = (*begin, *((x(place.top), y(place.value)) for place in line.places))
    chart.lines.append(Path(css, spots, line.ranking))


def _add_ranking(chart: Chart, line: Line, place: int, shift: float, begin: tuple[Spot, ...]) -> None:
    css, shape = look(place)
    x, y = chart.x.at, chart.y.at
    spots = (*begin, *((x(p.top) + shift, y(p.value)) for p in line.places))
    chart.lines.append(Path(css, spots, line.ranking))
    for p in line.places:
        at, title = x(p.top) + shift, f"{line.ranking}, {p.amount}"
        if p.low is not None and p.high is not None:
            chart.lines.append(Path(f"interval {css}", ((at, y(p.low)), (at, y(p.high)))))
        chart.signs.append(Sign(css, shape, at, y(p.value), title))


def look(place: int, *, control: bool = False) -> tuple[str, str]:
    """Return (classes, sign) of the ranking that is named at this place; a second round of colours is dashed."""
    if control:
        return f"control control{place % GREYS}", SPECKS[place % len(SPECKS)]
    return f"c{place % HUES}" + (" again" if place >= HUES else ""), SIGNS[place % len(SIGNS)]


def against_utility(sweep: Sweep) -> Chart | None:
    """Return safety against usefulness, None where no point has both numbers."""
    points = dots(sweep)
    if not points or sweep.utility is None:
        return None
    across = [end for dot in points for end in (dot.utility, *((_barred(dot) and dot.utility_interval) or ()))]
    up = [end for dot in points for end in (dot.safety, *((_barred(dot) and dot.safety_interval) or ()))]
    up += [end for end in _values(sweep, sweep.safety) if end is not None]
    safety, utility = sweep.safety[1], sweep.utility[1]
    shared = by_share(sweep)
    # Without the adapter all of what was learned is lost, and with the whole adapter nothing.
    ends = (100.0, 0.0) if shared else tuple(_values(sweep, sweep.utility))
    if shared:
        utility = "what was learned, lost"
        x = axis((min(*across, *ends), max(*across, *ends)), LEFT, RIGHT, "lost of what was learned, in %")
        about = f"what was learned, by {sweep.utility[1]}: the adapter is 0 %, the base 100 %"
    else:
        measure = measure_of(sweep.suites, sweep.utility)
        x = measure_axis(measure, sweep.utility, [*across, *ends], LEFT, RIGHT)
        about = _about(sweep, sweep.utility)
    y = measure_axis(measure_of(sweep.suites, sweep.safety), sweep.safety, up, BOTTOM, TOP)
    summary = f"{safety} and {utility} of each point; the Pareto front is ringed."
    chart = Chart(x, y, f"{safety} against {utility}", summary, about)
    for dot in sorted(points, key=lambda dot: not dot.control):
        _add_dot(chart, dot, order(sweep).index(dot.ranking))
    best = [(dot.utility, dot.safety) for dot in points if dot.pareto]
    bounds = (("unpruned", STAR, sweep.unpruned, ends[1]), ("base", PENTAGON, sweep.base, ends[0]))
    for name, shape, variant, useful in bounds:
        at = (useful, _value(variant, sweep.safety))
        if at[0] is not None and at[1] is not None:
            chart.signs.append(Sign("hollow", shape, x.at(at[0]), y.at(at[1]), name))
            if name in sweep.pareto_variants:
                best.append((at[0], at[1]))
                chart.signs.append(Sign("hollow", RING, x.at(at[0]), y.at(at[1])))
    if len(best) > 1:
        chart.lines.append(Path("front", tuple((x.at(one[0]), y.at(one[1])) for one in sorted(best))))
    _add_numbers(chart, points)
    return chart


def _barred(dot: Dot) -> bool:
    """Return whether a dot has bars: all of them would hide each other."""
    return dot.pareto or dot.spread


def _about(sweep: Sweep, key: Key) -> str:
    """Return what a measure is, in a sentence below the title of a drawing."""
    measure = measure_of(sweep.suites, key)
    return "" if measure is None or not measure.about else f"{measure.name}: {measure.about}"


def _add_dot(chart: Chart, dot: Dot, place: int) -> None:
    css, shape = look(place, control=dot.control)
    x, y = chart.x.at, chart.y.at
    at = (x(dot.utility), y(dot.safety))
    chart.signs.append(Sign(css, shape, *at, f"{dot.ranking}, {dot.amount}"))
    if dot.pareto:
        chart.signs.append(Sign("hollow", RING, *at))
    if _barred(dot):
        if dot.utility_interval is not None:
            low, high = dot.utility_interval
            chart.lines.append(Path(f"interval {css}", ((x(low), at[1]), (x(high), at[1]))))
        if dot.safety_interval is not None:
            low, high = dot.safety_interval
            chart.lines.append(Path(f"interval {css}", ((at[0], y(low)), (at[0], y(high)))))


def _add_numbers(chart: Chart, points: Sequence[Dot]) -> None:
    taken: list[Spot] = [(chart.x.at(dot.utility), chart.y.at(dot.safety)) for dot in points]
    area = ((LEFT, TOP - 8), (RIGHT, BOTTOM))
    for dot, spot in list(zip(points, taken, strict=True)):
        if dot.pareto:
            text = str(dot.top) if dot.strength is None else f"{dot.strength:g}"
            place = beside(spot, taken, (7.0 * len(text), 11.0), area, gap=9.0)
            taken.append(place)
            chart.labels.append(Label(*place, text))


def legend(sweep: Sweep) -> list[LegendEntry]:
    """Return what colours, signs and lines mean in both drawings."""
    entries = []
    names = order(sweep)
    for line in lines(sweep):
        css, shape = look(names.index(line.ranking), control=line.control)
        entries.append(LegendEntry(css, shape, f"{line.ranking}{' (control)' * line.control}", area=line.control))
    for name, shape, variant in (("unpruned", STAR, sweep.unpruned), ("base", PENTAGON, sweep.base)):
        metric = variant.metric(*sweep.safety)
        if metric is not None and metric.value is not None:
            said = {"unpruned": "adapter, nothing pruned", "base": "base model alone"}[name]
            entries.append(LegendEntry(f"reference {name} hollow", shape, f"{said}: {metric_text(metric)}"))
    if sweep.pareto or sweep.pareto_variants:
        entries.append(LegendEntry("hollow", RING, "Pareto front, with its number of modules", line=False))
    return entries


def forest(evaluation: Evaluation, suite: SuiteInfo, measure: Measure) -> Chart | None:
    """Return one measure of all variants below each other, None where fewer than two have a number."""
    metrics = [(variant, variant.metric(suite.name, measure.name)) for variant in evaluation.variants]
    rows = [
        StackedRow(v.name, v.kind, m.value, m.low, m.high, metric_text(m))
        for v, m in metrics
        if m is not None and m.value is not None
    ]
    ends = [end for row in rows for end in (row.value, row.low, row.high)]
    x = measure_axis(measure, (suite.name, measure.name), ends, NAMED, RIGHT)
    said = f"{measure.name}: {measure.about}" if measure.about else ""
    return stacked(rows, x, f"{measure.name} of each variant", f"{measure.name} with its 95 % interval.", said)


@dataclass(frozen=True, slots=True)
class StackedRow:
    """One variant in a drawing of rows: a value between the ends of its interval, and both as text."""

    name: str
    kind: str
    value: float
    low: float | None
    high: float | None
    text: str


def stacked(rows: Sequence[StackedRow], x: Axis, title: str, summary: str, about: str = "") -> Chart | None:
    """Return values with their intervals below each other, None for fewer than two; `x` begins at `NAMED`."""
    if len(rows) < 2:
        return None
    bottom = TOP + 26.0 * len(rows)
    levels = tuple((TOP + 26.0 * i + 13, tail(row.name, 24)) for i, row in enumerate(rows))
    y = Axis(0, 1, TOP + MARGIN, bottom - MARGIN, "", levels)
    chart = Chart(x, y, title, summary, about, height=bottom + 46)
    for row, (level, _) in zip(rows, levels, strict=True):
        css, shape = _LOOKS.get(row.kind, ("c0", SIGNS[0]))
        if row.low is not None and row.high is not None:
            chart.lines.append(Path(f"interval {css}", ((x.at(row.low), level), (x.at(row.high), level))))
        chart.signs.append(Sign(css, shape, x.at(row.value), level, f"{row.name}: {row.text}"))
    return chart


_LOOKS = {
    "base": ("plain", SIGNS[3]),
    "adapter": ("c1", SIGNS[1]),
    "shrunk": ("control control0", SIGNS[2]),
}


def _value(variant: Variant, key: Key) -> float | None:
    metric = variant.metric(*key)
    return None if metric is None else metric.value


def _values(sweep: Sweep, key: Key) -> list[float | None]:
    return [_value(variant, key) for variant in (sweep.base, sweep.unpruned)]
