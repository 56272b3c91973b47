"""The drawings of a population as shapes with coordinates: ridges of histograms, the spread of z, one adapter's z."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from s3lora.fleet.populations.distributions import Distribution, Group
from s3lora.fleet.populations.unusual import Ranking, UnusualAdapter
from s3lora.measure.against import FAR
from s3lora.report.axes import axis
from s3lora.report.compare_view import number
from s3lora.report.names import head
from s3lora.report.population_view import group_label
from s3lora.report.values import count

#: Pixels of a letter, and the longest label of a row in letters.
LETTER, LABEL = 9.3, 16
#: A ridge: width of the drawing, height of a row, of its histogram, room above the first, and right of the axis.
WIDTH, ROW, HIGH, TOP, RIGHT = 520.0, 36.0, 26.0, 4.0, 62.0
#: The frame of the spread of z.
SPREAD = (520.0, 232.0)
FRAME = (56.0, 12.0, 510.0, 184.0)
#: The drawing of one adapter's z, and where its axis may end.
Z_SIZE, Z_ENDS = (120.0, 14.0), (5, 10, 20, 50, 100)
#: Modules at either end that a drawing of hills may leave out, so that the others are seen.
ENDS = 0.0005


@dataclass(frozen=True, slots=True)
class Ridge:
    """One group: its name, how many adapters, and paths of its histogram, quartiles and median."""

    y: float
    name: str
    count: str
    css: str
    area: str
    line: str
    box: str
    median: str
    title: str


@dataclass(frozen=True, slots=True)
class Ridges:
    """Histograms of one index below each other over a common axis; `middle` is where the median of all lies.

    `beyond` modules lie where the axis does not reach.
    """

    height: float
    left: float
    right: float
    rows: tuple[Ridge, ...]
    ticks: tuple[tuple[float, str], ...]
    middle: float
    beyond: int


def ridges(one: Distribution, groups: Sequence[Group]) -> Ridges:
    """Return the drawing of a distribution in groups, below that of all modules."""
    scale = _scale(one)
    names = ["all", *(group_label(group) for group in groups)]
    left = 14 + LETTER * min(max(map(len, names)), LABEL)
    right = WIDTH - RIGHT
    rows = tuple(
        _ridge(scale, group, name, (left, right, TOP + ROW * (i + 1)), css="part" if i else "whole")
        for i, (group, name) in enumerate(zip((one.all, *groups), names, strict=True))
    )
    ticks = tuple((left + (right - left) * at, text) for at, text in _ticks(scale))
    middle = left + (right - left) * scale.at(one.all.median)
    beyond = one.all.modules - sum(one.all.counts[scale.first : scale.last])
    return Ridges(TOP + ROW * len(rows) + 26, left, right, rows, ticks, middle, beyond)


@dataclass(frozen=True, slots=True)
class _Scale:
    """The bins from `first` to `last`, this not included, and the values at their ends."""

    linear: bool
    base: int
    first: int
    last: int
    low: float
    high: float

    def at(self, value: float) -> float:
        """Return where a value lies, from 0 to 1."""
        if self.linear:
            place = (value - self.low) / (self.high - self.low)
        else:
            place = math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0
        return min(max(place, 0.0), 1.0)


def _scale(one: Distribution) -> _Scale:
    """Return the axis of a distribution, without long ends in which there is next to nothing."""
    counts, few = one.all.counts, ENDS * one.all.modules
    first, last = 0, len(counts)
    if sum(counts) > few:
        while sum(counts[: first + 1]) <= few:
            first += 1
        while sum(counts[last - 1 :]) <= few:
            last -= 1
    if last - first > 0.7 * len(counts):
        first, last = 0, len(counts)
    base = 10 if one.scale == "log10" else 2
    return _Scale(one.scale == "linear", base, first, last, one.edges[first], one.edges[last])


def _ridge(scale: _Scale, group: Group, name: str, place: tuple[float, float, float], *, css: str) -> Ridge:
    left, right, base = place
    counts = group.counts[scale.first : scale.last]
    step = (right - left) / len(counts)
    filled = [i for i, value in enumerate(counts) if value]
    line = f"M{left + step * filled[0]:.1f} {base:.1f}" if filled else ""
    for i in range(filled[0], filled[-1] + 1) if filled else ():
        # A bin that holds a few of very many is still to be seen.
        tall = max(HIGH * counts[i] / max(counts), 0.7 if counts[i] else 0.0)
        line += f"V{base - tall:.1f}H{left + step * (i + 1):.1f}"
    line += f"V{base:.1f}" if filled else ""
    low, middle, high = (left + (right - left) * scale.at(value) for value in (group.q25, group.median, group.q75))
    return Ridge(
        y=base,
        name=head(name, LABEL),
        count=count(group.adapters),
        css=css,
        area=f"{line}z" if filled else "",
        line=line,
        box=f"M{low:.1f} {base + 4:.1f}H{max(high, low + 1):.1f}",
        median=f"M{middle:.1f} {base + 1:.1f}v6",
        title=f"{name}: median {number(group.median)}, middle half {number(group.q25)} to {number(group.q75)},"
        f" {count(group.modules)} modules of {count(group.adapters)} adapters",
    )


def _ticks(scale: _Scale) -> list[tuple[float, str]]:
    low, high = scale.low, scale.high
    if scale.linear:
        return _linear(low, high)
    sizes = (1, 2, 5) if scale.base == 10 and high / low < 2e3 else (1,)
    powers = range(math.floor(math.log(low, scale.base)), math.ceil(math.log(high, scale.base)) + 1)
    found = [size * float(scale.base) ** power for power in powers for size in sizes]
    inside = [value for value in found if low * 0.999 <= value <= high * 1.001]
    return [(scale.at(value), f"{value:.3g}") for value in inside[:: max(1, math.ceil(len(inside) / 9))]]


def _linear(low: float, high: float) -> list[tuple[float, str]]:
    """Return ticks at round numbers, each with its place from 0 to 1."""
    made = axis((low, high), 0.0, 1000.0, "")
    return [((at - made.start) / (made.end - made.start), text) for at, text in made.ticks]


@dataclass(frozen=True, slots=True)
class SpreadBars:
    """Bars of how many adapters have which z; the number is on a logarithmic axis.

    `beyond` are the bars of what lies so far out that it may be unusual, and `cuts` where that begins.
    """

    title: str
    bars: str
    beyond: str
    up: tuple[tuple[float, str], ...]
    across: tuple[tuple[float, str], ...]
    cuts: tuple[float, float]


def spread(ranking: Ranking, counts: Sequence[int], title: str) -> SpreadBars:
    """Return the drawing of one summary's z."""
    left, top, right, bottom = FRAME
    edges = ranking.spread.edges
    most = max((*ranking.spread.median, *ranking.spread.sharpest, 9))
    scale = (bottom - top) / math.log10(1.6 * most)

    def x(z: float) -> float:
        return left + (right - left) * (z - edges[0]) / (edges[-1] - edges[0])

    bars = beyond = ""
    for (low, high), value in zip(pairwise(edges), counts, strict=True):
        if not value:
            continue
        tall = scale * math.log10(1.6 * value)
        bar = f"M{x(low) + 0.6:.1f} {bottom:.0f}v-{tall:.1f}H{x(high) - 0.6:.1f}V{bottom:.0f}z"
        if low >= FAR or high <= -FAR:
            beyond += bar
        else:
            bars += bar
    powers = range(math.floor(math.log10(most)) + 1)
    return SpreadBars(
        title=title,
        bars=bars,
        beyond=beyond,
        up=tuple((bottom - scale * math.log10(1.6 * 10**power), count(10**power)) for power in powers),
        across=tuple((x(z), _end(z, edges)) for z in edges if z % 5 == 0),
        cuts=(x(-FAR), x(FAR)),
    )


def _end(z: float, edges: Sequence[float]) -> str:
    sign = "≤ " if z == edges[0] else "≥ " if z == edges[-1] else ""
    return f"{sign}{'−' if z < 0 else ''}{abs(z):g}"


@dataclass(frozen=True, slots=True)
class Needle:
    """Where the two z of one adapter lie, as pixels; what lies beyond the end is drawn as an arrow there."""

    median: float | None
    sharpest: float | None
    over: tuple[str, ...]


def z_end(ranking: Ranking) -> int:
    """Return the z at which the axes of all adapters of the list end."""
    most = max((abs(z) for one in ranking.most for mark in (one.median, one.sharpest) if (z := mark.z)), default=0.0)
    return next((end for end in Z_ENDS if most <= end), Z_ENDS[-1])


def needle(one: UnusualAdapter, end: int) -> Needle:
    """Return the drawing of one adapter's z on an axis from −end to end."""
    half = Z_SIZE[0] / 2
    over = dict.fromkeys(
        f"M{2 * half - 6:g} 2.5l5 4.5l-5 4.5z" if mark.z > 0 else "M6 2.5l-5 4.5l5 4.5z"
        for mark in (one.median, one.sharpest)
        if mark.z is not None and abs(mark.z) > end
    )
    median, sharpest = (
        None if mark.z is None or abs(mark.z) > end else half + mark.z / end * (half - 8)
        for mark in (one.median, one.sharpest)
    )
    return Needle(median, sharpest, tuple(over))
