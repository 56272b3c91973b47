"""The drawings of a scan as shapes with coordinates: heat map, distribution by projection, spectrum of one module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from s3lora.report.axes import Axis, axis
from s3lora.report.colours import SCALE
from s3lora.report.names import tail
from s3lora.report.scan_view import Series, View
from s3lora.report.values import decimal

#: Pixels of a letter, and the longest label of a row in letters.
LETTER, LABEL = 6.7, 22
#: The width that the cells of a heat map share, and the widths that one cell may have.
ROOM, NARROW, WIDE, HIGH = 900.0, 12.0, 44.0, 24.0
TOP = 22.0
#: Strips of the distribution: width of the drawing, room above the first, height of one, and room below the last.
STRIP_WIDTH, STRIP_TOP, STRIP, STRIP_FOOT = 520.0, 8.0, 26.0, 24.0
#: The bar at a median, from the middle of its strip.
MEDIAN = f"m0 {3 - STRIP / 2:g}v{STRIP - 6:g}"
#: The frame of a spectrum, and how much of its step a bar fills.
SPECTRUM = (520.0, 210.0)
FRAME = (40.0, 10.0, 508.0, 172.0)
BAR = 0.76


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


@dataclass(frozen=True, slots=True)
class Strips:
    """One row of dots a projection over a common axis: a dot a module, and a tick at the median."""

    width: float
    height: float
    left: float
    top: float
    rows: tuple[tuple[float, str], ...]
    dots: str
    chosen: str
    medians: str
    ticks: tuple[tuple[float, str], ...]


def strip_axis(view: View, series: Series) -> Axis:
    """Return the axis of the distribution of one index, over the pixels of its drawing."""
    low, high = series.span
    room = 0.0 if high > low else abs(high) / 2 or 0.5
    return axis((low - room, high + room), _strip_left(view) - 5, STRIP_WIDTH - 5, series.label)


def _strip_left(view: View) -> float:
    # Letters of a drawing that is squeezed onto a narrow window are larger.
    return 10 + 1.2 * LETTER * min(max((len(name) for name in view.strips), default=1), LABEL)


def dot_heights(view: View) -> tuple[float, ...]:
    """Return for each module the pixel at which its dot lies: spread over its strip, so that equal values all show.

    Nine dots that follow each other in a strip have nine heights, and neighbours lie far apart.
    """
    middles, count = strip_middles(view), [0] * len(view.strips)
    found = []
    for row in view.strip:
        found.append(round(middles[row] + (count[row] * 5 % 9 - 4) * 1.9, 1))
        count[row] += 1
    return tuple(found)


def strip_middles(view: View) -> list[float]:
    """Return the middle of each strip."""
    return [STRIP_TOP + STRIP * (i + 0.5) for i in range(len(view.strips))]


def strips(view: View, series: Series) -> Strips:
    """Return the distribution of one index by projection."""
    across, middles = strip_axis(view, series), strip_middles(view)
    dots, chosen = "", ""
    heights = dot_heights(view)
    marked = set(view.chosen)
    known: list[list[float]] = [[] for _ in view.strips]
    for i, value in enumerate(series.values):
        row = view.strip[i]
        if value is None:
            continue
        known[row].append(value)
        dot = f"M{across.at(value):.1f} {heights[i]:.1f}h0"
        if i in marked:
            chosen += dot
        else:
            dots += dot
    return Strips(
        width=STRIP_WIDTH,
        height=STRIP_TOP + STRIP * len(view.strips) + STRIP_FOOT,
        left=_strip_left(view),
        top=STRIP_TOP,
        rows=tuple(zip(middles, (tail(name, LABEL) for name in view.strips), strict=True)),
        dots=dots,
        chosen=chosen,
        medians="".join(
            f"M{across.at(median(values)):.1f} {middle:g}{MEDIAN}"
            for middle, values in zip(middles, known, strict=True)
            if values
        ),
        ticks=across.ticks,
    )


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Bars of σ̃ / Σσ̃ of one module, and the same of its neighbours as lines; the first bar is the SSI.

    The bars are strokes of `bar` pixels.
    """

    width: float
    height: float
    frame: tuple[float, float, float, float]
    bar: float
    bars: str
    lines: tuple[str, str]
    ticks: tuple[tuple[float, str], ...]
    across: tuple[tuple[float, str], ...]


def highest_share(view: View) -> float:
    """Return the upper end of the axis of all spectra of a page, so that they can be compared."""
    shares = [m.sigma[0] / total for m in view.document.modules if m.sigma and (total := sum(m.sigma)) > 0]
    return min(1.0, max(shares, default=1.0) * 1.08)


def spectrum_axes(view: View) -> tuple[float, float, float, float]:
    """Return where spectra lie: the first bar, the step to the next, where a share of 0 is, and the pixels of 1."""
    left, top, right, bottom = FRAME
    step = (right - left) / max(view.components, 1)
    return left + step / 2, step, bottom, (bottom - top) / highest_share(view)


def spectrum(view: View, place: int) -> Spectrum:
    """Return the spectrum of the module at a place of the document, beside those of its neighbours."""
    left, step, bottom, whole = spectrum_axes(view)
    most, count = highest_share(view), max(view.components, 1)

    def points(module: int) -> list[tuple[str, str]]:
        total = sum(view.document.modules[module].sigma)
        shares = (value / total for value in view.sigma(module))
        return [(f"{left + step * i:.1f}", f"{bottom - whole * share:.1f}") for i, share in enumerate(shares)]

    near = ["".join(f"{'L' if i else 'M'}{x} {y}" for i, (x, y) in enumerate(points(n))) for n in view.near[place]]
    marks = next(n for n in (1, 2, 4, 8, 16, 32) if count / n <= 12)
    share = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if most / s <= 6)
    return Spectrum(
        *SPECTRUM,
        frame=FRAME,
        bar=BAR * step,
        bars="".join(f"M{x} {bottom:g}V{y}" for x, y in points(place)),
        lines=(near[0] if near else "", near[1] if len(near) > 1 else ""),
        ticks=tuple(
            (bottom - whole * share * i, f"{share * i:g}".replace("0.", ".", 1) if i else "0")
            for i in range(int(most / share) + 1)
        ),
        across=tuple((left + step * i, str(i + 1)) for i in range(count) if i == 0 or (i + 1) % marks == 0),
    )
