"""A sweep in the order in which it is shown: rows of a table, lines and dots of a curve. Nothing here is computed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from s3lora.evaluate.results import ControlSpread, Key, Measure, PairedComparison, Sweep, SweepPoint
from s3lora.report.values import NOTHING, learned_text, metric_text, percent, spread_text

#: Lines that run together are moved apart by this share of the axis each, and by no more than that in all.
APART, ALL_APART = 0.006, 0.03


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One ranking at one number of modules: a point, or a control with all its seeds.

    `extra` marks one seed of such a control that has a row besides, because it lies on the Pareto front.
    """

    points: tuple[SweepPoint, ...]
    spreads: tuple[ControlSpread, ...] = ()
    pareto: bool = False
    extra: bool = False

    @property
    def top(self) -> int:
        """Return how many modules were pruned."""
        return self.points[0].top

    @property
    def strength(self) -> float | None:
        """Return the strength of a repair."""
        return self.points[0].strength

    @property
    def number(self) -> str:
        """Return the number of modules pruned alone, or a strength."""
        return str(self.top) if self.strength is None else self.amount

    @property
    def amount(self) -> str:
        """Return the number of modules pruned, of how many; or a strength."""
        return amount(self.points[0])

    @property
    def control(self) -> bool:
        """Return whether the ranking carries no information."""
        return self.points[0].control

    @property
    def collapse(self) -> bool:
        """Return whether usefulness is gone at any of the points."""
        return any(point.collapse for point in self.points)

    @property
    def remark(self) -> str:
        """Return what must be said of usefulness, and of how many seeds where not of all."""
        gone = sum(point.collapse for point in self.points)
        if not gone:
            return ""
        return "utility collapse" + (f", {gone} of {len(self.points)} seeds" if gone < len(self.points) else "")

    @property
    def label(self) -> str:
        """Return the ranking, with the number of seeds or the one seed of a control."""
        first = self.points[0]
        if self.spreads:
            return f"{first.ranking} ×{self.spreads[0].seeds}"
        return first.ranking if first.seed is None else f"{first.ranking}, seed {first.seed}"

    def spread(self, key: Key) -> ControlSpread | None:
        """Return the spread of one measure, None where there is none."""
        return next((spread for spread in self.spreads if (spread.suite, spread.measure) == key), None)

    def text(self, key: Key, measure: Measure | None, *, short: bool = False) -> str:
        """Return a value with its interval, or a control's mean with the least and greatest over its seeds."""
        spread = self.spread(key)
        if spread is not None:
            return spread_text(spread, rate=measure is not None and measure.kind == "rate", short=short)
        return metric_text(self.points[0].metric(*key), short=short) if len(self.points) == 1 else NOTHING

    def learned(self, key: Key | None, *, short: bool = False) -> str:
        """Return how much of what was learned is lost, of a control from the least to the greatest of its seeds."""
        found = [share for point in self.points if key is not None and (share := point.learned(*key)) is not None]
        values = [share.value for share in found if share.value is not None]
        if len(found) == 1 or len(values) < len(found) or not found:
            return learned_text(found[0] if found else None, short=short)
        return f"({percent(min(values)).removesuffix(' %')}–{percent(max(values))})"

    @property
    def energy(self) -> str:
        """Return the share of Frobenius energy that was removed, from the least to the greatest of several seeds."""
        shown = list(dict.fromkeys(percent(e) for e in sorted(point.frobenius_energy for point in self.points)))
        return shown[0] if len(shown) == 1 else f"{shown[0].removesuffix(' %')}–{shown[-1]}"


def rows(sweep: Sweep) -> list[SweepRow]:
    """Return the table: by number of modules; rankings in the order of the sweep, then controls over their seeds."""
    front = {id(sweep.points[i]) for i in sweep.pareto if 0 <= i < len(sweep.points)}
    made: list[SweepRow] = []
    for points in _groups(sweep.points).values():
        first = points[0]
        spreads = tuple(s for s in sweep.spreads if (s.ranking, s.top) == (first.ranking, first.top))
        if first.control and spreads and len(points) > 1:
            made.append(SweepRow(points, spreads))
            made += [SweepRow((point,), (), True, extra=True) for point in points if id(point) in front]
        else:
            made += [SweepRow((point,), (), id(point) in front) for point in points]
    return sorted(made, key=lambda row: (row.top, row.strength or 0.0, row.control))


def amount(point: SweepPoint) -> str:
    """Return how many modules were pruned, of how many; or the strength of a repair."""
    return f"{point.top} of {point.modules_total} pruned" if point.strength is None else _strength(point.strength)


def _strength(value: float) -> str:
    return f"strength {value:g}"


def _groups(points: Sequence[SweepPoint]) -> dict[tuple[str, int, float | None], tuple[SweepPoint, ...]]:
    groups: dict[tuple[str, int, float | None], tuple[SweepPoint, ...]] = {}
    for point in points:
        key = (point.ranking, point.top, point.strength)
        groups[key] = (*groups.get(key, ()), point)
    return groups


def front(sweep: Sweep) -> list[SweepPoint]:
    """Return the points of the Pareto front, by number of modules."""
    chosen = [sweep.points[i] for i in sweep.pareto if 0 <= i < len(sweep.points)]
    return sorted(chosen, key=lambda point: (point.top, point.strength or 0.0))


def telling(sweep: Sweep, most: int) -> list[SweepPoint]:
    """Return at most so many points of the front: rather those that differ in safety and keep their usefulness."""

    def order(point: SweepPoint) -> tuple[bool, bool]:
        compared = comparison(point, sweep.safety)
        return point.collapse, compared is None or compared.verdict not in ("lower", "higher")

    return sorted(sorted(front(sweep), key=order)[:most], key=lambda point: point.top)


def collapses(sweep: Sweep) -> list[str]:
    """Return a warning where usefulness is gone at some points, which stands above all numbers."""
    gone = sum(point.collapse for point in sweep.points)
    if not gone:
        return []
    repairs = any(point.strength is not None for point in sweep.points)
    where = f"at {gone} of {len(sweep.points)} {'points' if repairs else 'prunings'}"
    return [f"utility collapse {where}: more than a tenth of what the adapter learned is lost; they are marked"]


def sentences(point: SweepPoint, keys: Sequence[Key | None]) -> list[str]:
    """Return what the comparisons of a point say about some measures, in their order."""
    return [found.sentence for key in keys if key is not None and (found := comparison(point, key)) is not None]


def comparison(point: SweepPoint, key: Key) -> PairedComparison | None:
    """Return the comparison of one measure with the unpruned adapter, None where there is none."""
    return next((c for c in point.comparisons if (c.suite, c.measure) == key), None)


@dataclass(frozen=True, slots=True)
class CurvePlace:
    """One point of a line: a value between the ends of its interval, or between the least and greatest of its seeds."""

    top: int
    value: float
    low: float | None
    high: float | None
    strength: float | None = None

    @property
    def amount(self) -> str:
        """Return the number of modules pruned, or the strength of a repair."""
        return f"{self.top} pruned" if self.strength is None else _strength(self.strength)


@dataclass(frozen=True, slots=True)
class Line:
    """Safety of one ranking against the number of modules pruned."""

    ranking: str
    control: bool
    places: tuple[CurvePlace, ...]


@dataclass(frozen=True, slots=True)
class Dot:
    """Safety and usefulness of one point, or of a control over its seeds (`spread`).

    The intervals are (low, high), of a spread (least, greatest), or None.
    """

    ranking: str
    control: bool
    top: int
    pareto: bool
    utility: float
    safety: float
    utility_interval: tuple[float, float] | None
    safety_interval: tuple[float, float] | None
    spread: bool = False
    strength: float | None = None

    @property
    def amount(self) -> str:
        """Return the number of modules pruned, or the strength of a repair."""
        return f"{self.top} pruned" if self.strength is None else _strength(self.strength)


def lines(sweep: Sweep) -> list[Line]:
    """Return a line a ranking, controls last; what has no number is left out."""
    found: dict[tuple[str, bool], list[CurvePlace]] = {}
    for row in rows(sweep):
        place = None if row.extra else _place(row, sweep.safety)
        if place is not None and row.control and not row.spreads:
            place = replace(place, low=None, high=None)  # a band is the range over seeds, and nothing else
        if place is not None:
            found.setdefault((row.points[0].ranking, row.control), []).append(place)
    made = [Line(ranking, control, tuple(places)) for (ranking, control), places in found.items()]
    return sorted(made, key=lambda line: (line.control, order(sweep).index(line.ranking)))


def order(sweep: Sweep) -> list[str]:
    """Return the rankings as the sweep names them first, controls last: their places decide on colours and signs."""
    return list(dict.fromkeys(point.ranking for point in sorted(sweep.points, key=lambda point: point.control)))


def apart(curves: Sequence[Line]) -> float:
    """Return by how many modules neighbouring lines are moved apart, so that they never reach the next point."""
    rankings = max(1, sum(not line.control for line in curves) - 1)
    tops = sorted({place.top for line in curves for place in line.places})
    end = max([1, *tops])
    gap = min((b - a for a, b in itertools.pairwise(tops)), default=end)
    return min(APART * end, ALL_APART * end / rankings, gap / 3 / rankings)


def _place(row: SweepRow, key: Key) -> CurvePlace | None:
    spread = row.spread(key)
    if spread is not None:
        return CurvePlace(row.top, spread.mean, spread.least, spread.greatest)
    metric = row.points[0].metric(*key)
    if metric is None or metric.value is None:
        return None
    return CurvePlace(row.top, metric.value, metric.low, metric.high, row.strength)


def by_share(sweep: Sweep) -> bool:
    """Return whether usefulness is shown as the share of what was learned that is lost: wherever it can be told."""
    shares = [None if sweep.utility is None else point.learned(*sweep.utility) for point in sweep.points]
    return any(share is not None and share.value is not None for share in shares)


def usefulness(sweep: Sweep, point: SweepPoint) -> float | None:
    """Return where a point lies on the axis of usefulness: in % of what was learned if `by_share`."""
    if sweep.utility is None:
        return None
    if by_share(sweep):
        share = point.learned(*sweep.utility)
        return None if share is None or share.value is None else 100 * share.value
    metric = point.metric(*sweep.utility)
    return None if metric is None else metric.value


def dots(sweep: Sweep) -> list[Dot]:
    """Return a dot a row of the table that has both numbers; usefulness in % of what was learned if `by_share`."""
    if sweep.utility is None:
        return []
    made = []
    shared = by_share(sweep)
    for row in rows(sweep):
        safety = _place(row, sweep.safety)
        utility = _share_place(row, sweep.utility) if shared else _place(row, sweep.utility)
        if safety is not None and utility is not None:
            made.append(
                Dot(
                    ranking=row.points[0].ranking,
                    control=row.control,
                    top=row.top,
                    pareto=row.pareto,
                    utility=utility.value,
                    safety=safety.value,
                    utility_interval=_interval(utility.low, utility.high),
                    safety_interval=_interval(safety.low, safety.high),
                    spread=bool(row.spreads),
                    strength=row.strength,
                )
            )
    return made


def _share_place(row: SweepRow, key: Key) -> CurvePlace | None:
    """Return the share of what was learned that is lost, in %; of a control, its mean and range over the seeds."""
    found = [share for point in row.points if (share := point.learned(*key)) is not None]
    values = [100 * share.value for share in found if share.value is not None]
    if len(values) < len(row.points):
        return None
    if row.spreads:
        return CurvePlace(row.top, fmean(values), min(values), max(values))
    low, high = (None if end is None else 100 * end for end in (found[0].low, found[0].high))
    return CurvePlace(row.top, values[0], low, high)


def _interval(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)
