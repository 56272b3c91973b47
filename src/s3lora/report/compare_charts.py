"""The drawings of a comparison as shapes with coordinates: heat maps side by side, small multiples, dumbbells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from s3lora.measure.comparison import ModuleComparison
from s3lora.report.axes import Axis, axis
from s3lora.report.colours import SCALE, step_of
from s3lora.report.compare_view import (
    ComparedModule,
    ComparisonView,
    cosine,
    distance_text,
    known,
    middle,
    number,
    signed,
    spread,
)
from s3lora.report.heatmap import row_key
from s3lora.report.names import tail
from s3lora.report.scan_charts import TOP, HeatMap, HeatMapCell, framed, label_room

#: The width of a map that stands beside another, and the least and greatest size of a cell.
ROOM, NARROW, WIDE = 500.0, 12.0, 44.0
LOW, HIGH = 18.0, 24.0
#: Cells up to which each of a map has its words; those of larger models are in the table alone.
WORDS = 600
#: Steps of the scale of differences on either side of none.
SIDES = 4
#: A small multiple: its size, the pixels of its frame (left, top, right, bottom), and how many a page has at most.
PANEL = (250.0, 168.0)
FRAME = (30.0, 6.0, 242.0, 136.0)
PANELS = 40
#: Pixels between two ticks below a small multiple.
APART = 48.0
#: Pixels of a digit at its largest, on a telephone.
DIGIT = 8.6
#: The length of a dash for a value without neighbours.
DOT = 5.0
#: A dumbbell: its width and height.
DUMBBELL = (150.0, 14.0)


@dataclass(frozen=True, slots=True)
class ColourScale:
    """A colour scale: the texts at its ends, and the classes of its steps."""

    low: str
    high: str
    steps: tuple[str, ...]
    about: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """One map: which adapter or quantity it shows, and its scale."""

    label: str
    title: str
    about: str
    map: HeatMap
    scale: ColourScale


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the cells of all maps of a page lie, and the rows of each."""

    rows: tuple[str, ...]
    layers: tuple[int, ...]
    members: dict[tuple[int, int], list[ComparedModule]]

    @property
    def cell(self) -> tuple[float, float]:
        """Return the width and height of a cell with the gap behind it."""
        wide = min(max((ROOM - self.left) / len(self.layers), NARROW), WIDE)
        return wide, min(max(wide, LOW), HIGH)

    @property
    def left(self) -> float:
        """Return the pixel where the first cell begins."""
        return label_room(self.rows)


#: What a map shows of the modules of one cell: the class of its colour, and the words to it.
_Paint = Callable[[list[ComparedModule]], tuple[str, str]]


def maps(view: ComparisonView) -> tuple[Drawn, ...]:
    """Return the maps of the first and of the last adapter on one scale, of the difference, and of the distance.

    The latter two only where something changed, and each only where a module tells it; none at all where fewer than
    two modules have a layer and are in both.
    """
    grid = _grid(view)
    placed = [row for members in grid.members.values() for row in members]
    if sum(None not in row.norms for row in placed) < 2:
        return ()
    ends = (view.labels[0], view.names[0]), (view.labels[-1], view.names[-1])
    values = known([value for row in placed for value in (row.sharp[0], row.sharp[-1])])
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = ColourScale(
        number(low), number(high), tuple(f"h{i}" for i in range(len(SCALE))), "the brighter, the sharper"
    )
    shown = [
        Drawn(label, name, view.index, _map(grid, _sharpness(at, low, high)), scale)
        for at, (label, name) in zip((0, -1), ends, strict=True)
    ]
    between = f"{ends[0][0]} → {ends[1][0]}"
    if not any(row.moved for row in placed):
        return tuple(shown)
    if any(row.change is not None for row in placed):  # where all began at zero, nothing changed its sharpness
        shown.append(_difference(view, grid, placed, between))
    return (*shown, _distance(view, grid, placed, between))


def _grid(view: ComparisonView) -> _Grid:
    placed = [row for row in view.rows if row.module.layer is not None]
    rows = tuple(sorted({row.label for row in placed}, key=row_key))
    layers = tuple(sorted({row.module.layer for row in placed if row.module.layer is not None}))
    members: dict[tuple[int, int], list[ComparedModule]] = {}
    down, across = ({name: i for i, name in enumerate(names)} for names in (rows, layers))
    for row in placed:
        members.setdefault((down[row.label], across[row.module.layer or 0]), []).append(row)
    return _Grid(rows, layers, members)


def _map(grid: _Grid, paint: _Paint) -> HeatMap:
    wide, high = grid.cell
    rows: list[list[HeatMapCell]] = [[] for _ in grid.rows]
    told = len(grid.members) <= WORDS
    for (down, across), members in sorted(grid.members.items()):
        css, words = paint(members)
        more = f", of {len(members)} modules" if len(members) > 1 else ""
        title = f"layer {grid.layers[across]} {grid.rows[down]}: {words}{more}"
        rows[down].append(HeatMapCell(grid.left + across * wide, TOP + down * high, css, title if told else ""))
    return framed(grid.rows, grid.layers, rows, grid.cell)


def _sharpness(at: int, low: float, high: float) -> _Paint:
    def paint(members: list[ComparedModule]) -> tuple[str, str]:
        value = max(known([row.sharp[at] for row in members]), default=None)
        if value is not None:
            return f"h{step_of(value, low, high)}", number(value)
        held = any(row.module.shape[at] is not None for row in members)
        return "hn", "zero update" if held else "not in this adapter"

    return paint


def _difference(view: ComparisonView, grid: _Grid, placed: Sequence[ComparedModule], between: str) -> Drawn:
    most = max((abs(change) for row in placed if (change := row.change) is not None), default=0.0)

    def paint(members: list[ComparedModule]) -> tuple[str, str]:
        told = [row for row in members if row.change is not None]
        if not told:
            return "hn", "no change can be told"
        row = max(told, key=lambda row: abs(row.change or 0.0))
        change = row.change or 0.0
        level = round(change / most * SIDES) if most else 0
        return f"d{SIDES + level}", f"{number(row.sharp[0])} → {number(row.sharp[-1])} ({signed(change)})"

    steps = tuple(f"d{i}" for i in range(2 * SIDES + 1))
    scale = ColourScale(f"−{number(most)}", f"+{number(most)}", steps, "blue has become less sharp, orange sharper")
    return Drawn(between, f"change of the {view.index}", "", _map(grid, paint), scale)


def _distance(view: ComparisonView, grid: _Grid, placed: Sequence[ComparedModule], between: str) -> Drawn:
    values = sorted(row.module.net_distance for row in placed if row.module.net_distance is not None)
    high = values[-1] if values else 0.0
    # One module far from all others would leave these without a difference in colour.
    most = values[int(len(values) * 0.95)] if values else 0.0
    cut = 0 < 2 * most < high
    top = most if cut else high

    def paint(members: list[ComparedModule]) -> tuple[str, str]:
        told = [row for row in members if row.moved is not None]
        if not told:
            return "hn", "no distance can be told"
        row = max(told, key=lambda row: row.moved or 0.0)
        level = len(SCALE) - 1 if (row.moved or 0.0) >= top > 0 else step_of(row.moved or 0.0, 0.0, top)
        return f"h{level}", f"distance {distance_text(row)}, cosine {cosine(row.module.net_cosine)}"

    steps = tuple(f"h{i}" for i in range(len(SCALE)))
    scale = ColourScale("0", f"{number(top)} and more" if cut else number(top), steps, "the brighter, the farther")
    return Drawn(between, "distance", "", _map(grid, paint), scale)


@dataclass(frozen=True, slots=True)
class Panel:
    """A small multiple: a line a module with its name, and the line of the median."""

    title: str
    count: int
    lines: tuple[tuple[str, str], ...]
    median: str
    ends: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Multiples:
    """Panels with axes in common; `more` projections have none."""

    size: tuple[float, float]
    frame: tuple[float, float, float, float]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    panels: tuple[Panel, ...]
    more: int


def multiples(view: ComparisonView) -> Multiples | None:
    """Return the sharpness over the adapters by projection; None for two adapters, and where there is none."""
    values = known([row.sharp[i] for row in view.rows for i in view.shown])
    if view.pair or not values:
        return None
    left, top, right, bottom = FRAME
    low, high = min(values), max(values)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 0.1
    up = axis((low - room, high + room), bottom, top, view.index)
    ends = view.at[0], view.at[-1]
    across = Axis(*ends, left + 8, right - 8, view.axis, ())
    groups = view.groups()
    return Multiples(
        size=PANEL,
        frame=FRAME,
        across=_ticks(view, across),
        up=tuple(
            (at, text.replace("0.", ".", 1) if text.startswith("0.") else text)
            for at, text in up.ticks[:: 2 if len(up.ticks) > 5 else 1]
        ),
        panels=tuple(_panel(view, across, up, name, rows) for name, rows in list(groups.items())[:PANELS]),
        more=max(0, len(groups) - PANELS),
    )


def _ticks(view: ComparisonView, across: Axis) -> tuple[tuple[float, str], ...]:
    """Return a tick at each adapter that is drawn, and its label at as many, evenly spread, as there is room for."""
    places = [across.at(view.at[i]) for i in view.shown]
    spreads = (spread(len(places), count) for count in range(len(places), 1, -1))
    fits = next(chosen for chosen in spreads if len(chosen) == 2 or _apart([places[i] for i in chosen]))
    ticks = [
        (at, view.labels[i] if n in fits else "") for n, (at, i) in enumerate(zip(places, view.shown, strict=True))
    ]
    end, text = ticks[-1]
    return (*ticks[:-1], (min(end, PANEL[0] - DIGIT * len(text) / 2), text))


def _apart(places: Sequence[float]) -> bool:
    return all(b - a >= APART for a, b in pairwise(places))


def _panel(view: ComparisonView, across: Axis, up: Axis, name: str, rows: Sequence[ComparedModule]) -> Panel:
    medians = [middle([row.sharp[i] for row in rows]) for i in range(len(view.labels))]
    return Panel(
        title=tail(name, 32),
        count=len(rows),
        lines=tuple((_line(view, across, up, row.sharp), _name(row.module)) for row in rows),
        median=_line(view, across, up, medians),
        ends=(number(medians[0]), number(medians[-1])),
    )


def _name(module: ModuleComparison) -> str:
    where = tail(module.path, 60) if module.layer is None else f"layer {module.layer}"
    return where if module.expert is None else f"{where}, expert {module.expert}"


def _line(view: ComparisonView, across: Axis, up: Axis, values: Sequence[float | None]) -> str:
    """Return a path through the values that are known; a value between two that are not is a dash."""
    path, begun = "", False
    for n, i in enumerate(view.shown):
        value = values[i]
        if value is None:
            begun = False
            continue
        alone = not begun and (n + 1 == len(view.shown) or values[view.shown[n + 1]] is None)
        x, y = across.at(view.at[i]), up.at(value)
        path += f"M{x - DOT / 2:.1f} {y:.1f}h{DOT:.0f}" if alone else f"{'L' if begun else 'M'}{x:.1f} {y:.1f}"
        begun = True
    return path


@dataclass(frozen=True, slots=True)
class Dumbbell:
    """The first sharpness of a module and the last, on an axis that a table has in common; None where undefined."""

    first: float | None
    last: float | None


def dumbbells(rows: Sequence[ComparedModule]) -> list[Dumbbell]:
    """Return where the sharpness of each module began and ended, in pixels."""
    values = known([value for row in rows for value in (row.sharp[0], row.sharp[-1])])
    low, high = min(values, default=0.0), max(values, default=1.0)
    width = DUMBBELL[0] - 12

    def at(value: float | None) -> float | None:
        return None if value is None else 6 + (width * (value - low) / (high - low) if high > low else width / 2)

    return [Dumbbell(at(row.sharp[0]), at(row.sharp[-1])) for row in rows]
