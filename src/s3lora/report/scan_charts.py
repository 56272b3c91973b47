"""The heat map of a scan as shapes with coordinates; all other drawings of its page are the script's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.report.colours import SCALE
from s3lora.report.names import tail
from s3lora.report.scan_view import Series, View
from s3lora.report.values import decimal

#: Pixels of a letter, and the longest label of a row in letters.
LETTER, LABEL = 6.7, 22
#: The width that the cells of a heat map share, and the widths that one cell may have.
ROOM, NARROW, WIDE, HIGH = 900.0, 12.0, 44.0, 24.0
TOP = 22.0


@dataclass(frozen=True, slots=True)
class HeatMapCell:
    """A rectangle of the heat map; `css` is its step of the colour scale."""

    x: float
    y: float
    css: str
    title: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Rows of cells of `cell` pixels with the labels around them, and crosses of 2 `arm` pixels on chosen cells."""

    width: float
    height: float
    left: float
    cell: tuple[float, float]
    rows: tuple[tuple[float, str, tuple[HeatMapCell, ...]], ...]
    layers: tuple[tuple[float, str], ...]
    crosses: tuple[tuple[float, float], ...]
    arm: float

    @property
    def cross(self) -> str:
        """Return the path of one cross, from its middle."""
        arm, size = f"{self.arm:.1f}", f"{2 * self.arm:.1f}"
        return f"m-{arm} -{arm}l{size} {size}m0 -{size}l-{size} {size}"

    @property
    def marks(self) -> str:
        """Return the path of all crosses."""
        return "".join(f"M{x:.1f} {y:.1f}{self.cross}" for x, y in self.crosses)


def heat_map(view: View, series: Series) -> HeatMap | None:
    """Return the map of one index: projections down, layers across; None where fewer than two cells have a value."""
    values = [_sharpest(series, square.members) for square in view.squares]
    if sum(value is not None for value in values) < 2:
        return None
    wide = min(max(ROOM / len(view.layers), NARROW), WIDE)
    high = min(wide, HIGH)
    left = label_room(view.rows)
    chosen = set(view.chosen)
    rows: list[list[HeatMapCell]] = [[] for _ in view.rows]
    crosses = []
    for square, value, level in zip(view.squares, values, series.levels(values), strict=True):
        x, y = left + square.column * wide, TOP + square.row * high
        more = f", the sharpest of {len(square.members)}" if len(square.members) > 1 else ""
        title = f"layer {view.layers[square.column]} {view.rows[square.row]}: {decimal(value)}{more}"
        rows[square.row].append(HeatMapCell(x, y, "hn" if level is None else f"h{level}", title))
        if chosen.intersection(square.members):
            crosses.append((x + (wide - 1) / 2, y + (high - 1) / 2))
    return framed(view.rows, view.layers, rows, (wide, high), tuple(crosses))


def label_room(names: Sequence[str]) -> float:
    """Return the pixels that the labels of rows take."""
    return 10 + LETTER * min(max(map(len, names)), LABEL)


def framed(
    names: Sequence[str],
    layers: Sequence[int],
    rows: Sequence[Sequence[HeatMapCell]],
    size: tuple[float, float],
    crosses: tuple[tuple[float, float], ...] = (),
) -> HeatMap:
    """Return cells of `size` pixels, the gap behind each included, with the labels of rows and layers around them."""
    left, (wide, high) = label_room(names), size
    step = next(n for n in (1, 2, 4, 5, 10, 20, 50, 100, 10**9) if n * wide >= 24)
    return HeatMap(
        width=left + wide * len(layers) + 4,
        height=TOP + high * len(names) + 4,
        left=left,
        cell=(wide - 1, high - 1),
        rows=tuple(
            (TOP + i * high + high / 2, tail(name, LABEL), tuple(cells))
            for i, (name, cells) in enumerate(zip(names, rows, strict=True))
        ),
        layers=tuple((left + i * wide + (wide - 1) / 2, str(layer)) for i, layer in enumerate(layers) if i % step == 0),
        crosses=crosses,
        arm=min((min(wide, high) - 1) * 0.27, 5.0),
    )


def _sharpest(series: Series, members: Sequence[int]) -> float | None:
    known = [value for i in members if (value := series.values[i]) is not None]
    return (min if series.inverse else max)(known, default=None)


def scale_ends(series: Series) -> tuple[str, str, int]:
    """Return the values at the dark and at the bright end of the colour scale, and its number of steps."""
    low, high = (decimal(value) for value in series.span)
    return (high, low, len(SCALE)) if series.inverse else (low, high, len(SCALE))
