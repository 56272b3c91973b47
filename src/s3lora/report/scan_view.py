"""A scanned adapter as its page shows it: modules by their place in the document, rankings, cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from s3lora.choose.rankings import Ranked
from s3lora.choose.rules import RULES
from s3lora.choose.select import Plan
from s3lora.choose.ties import all_rounded, sharpness
from s3lora.measure.scan import ModuleScan
from s3lora.report.colours import SCALE, step_of
from s3lora.report.documents import ScanDocument
from s3lora.report.heatmap import labels_of, row_key
from s3lora.spectrum.indices import INDICES

#: Components of a spectrum that a page keeps of each module, and of all modules together.
COMPONENTS, ALL_COMPONENTS = 64, 24_000


@dataclass(frozen=True, slots=True)
class Series:
    """One index over all modules, None where it is undefined, with the candidates in its order.

    `values` are rounded as rules round them, so that the script of a page finds the same order and the same ties.
    `units` are the modules that are chosen together, sharpest first, and `worth` the index of each unit.
    """

    index: str
    method: str
    label: str
    about: str
    inverse: bool
    values: tuple[float | None, ...]
    units: tuple[tuple[int, ...], ...]
    worth: tuple[float, ...]

    def levels(self, values: Iterable[float | None]) -> list[int | None]:
        """Return the step of the colour scale for each value, the brightest being the sharpest."""
        span, last = self.span, len(SCALE) - 1
        steps = [None if value is None else step_of(value, *span) for value in values]
        return [last - step if self.inverse and step is not None else step for step in steps]

    @property
    def span(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        known = [value for value in self.values if value is not None]
        return min(known, default=0.0), max(known, default=0.0)


@dataclass(frozen=True, slots=True)
class Square:
    """A cell of the heat map, with the places of its modules."""

    row: int
    column: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a page shows of one adapter."""

    document: ScanDocument
    series: tuple[Series, ...]
    first: int
    rows: tuple[str, ...]
    layers: tuple[int, ...]
    squares: tuple[Square, ...]
    strips: tuple[str, ...]
    strip: tuple[int, ...]
    components: int

    @property
    def shown(self) -> Series | None:
        """Return the series that is shown first: that of the plan."""
        return self.series[self.first] if self.series else None

    @property
    def focus(self) -> int:
        """Return the place of the module that is shown first: the sharpest."""
        return self.shown.units[0][0] if self.shown is not None else 0

    def sigma(self, place: int) -> tuple[float, ...]:
        """Return as much of the spectrum of a module as the page has."""
        return self.document.modules[place].sigma[: self.components]

    @property
    def chosen(self) -> tuple[int, ...]:
        """Return the places of the modules that the plan chose."""
        return tuple(i for i, module in enumerate(self.document.modules) if module.selected)

    @property
    def order(self) -> list[int]:
        """Return the places of all modules, the sharpest first, and last those without the index that is shown."""
        shown = self.shown
        if shown is None:
            return list(range(len(self.document.modules)))
        sign = 1 if shown.inverse else -1
        known = [(sign * value, i) for i, value in enumerate(shown.values) if value is not None]
        return [i for _, i in sorted(known)] + [i for i, value in enumerate(shown.values) if value is None]

    @property
    def unplaced(self) -> int:
        """Return how many modules have no layer, so that the map does not show them."""
        return sum(module.layer is None for module in self.document.modules)


def view_of(document: ScanDocument, ranked: Sequence[Ranked]) -> View:
    """Arrange a scan and its rankings, the modules of all being the same."""
    modules = document.modules
    place = {module.path: i for i, module in enumerate(modules)}
    series = tuple(_series(one, place, several=len({r.method for r in ranked}) > 1) for one in ranked)
    index = document.ranked_by
    method = document.configuration.method
    first = next((i for i, one in enumerate(series) if (one.index, one.method) == (index, method)), 0)
    labels = labels_of(modules)
    placed = [module for module in modules if module.layer is not None]
    rows = sorted({labels[module.path] for module in placed}, key=row_key)
    layers = sorted({module.layer for module in placed if module.layer is not None})
    strips = sorted(dict.fromkeys(labels.values()), key=row_key)
    squares = _squares(modules, labels, rows, layers)
    strip_of = {name: i for i, name in enumerate(strips)}
    most = max((len(module.sigma) for module in modules), default=0)
    return View(
        document=document,
        series=series,
        first=first,
        rows=tuple(rows),
        layers=tuple(layers),
        squares=squares,
        strips=tuple(strips),
        strip=tuple(strip_of[labels[module.path]] for module in modules),
        components=min(most, COMPONENTS, max(3, ALL_COMPONENTS // max(1, len(modules)))),
    )


def _series(ranked: Ranked, place: dict[str, int], *, several: bool) -> Series:
    values: list[float | None] = [None] * len(place)
    spec = INDICES[ranked.index]
    found = [
        (place[module.path], value)
        for module in ranked.scan.modules
        if not module.zero and (value := module.indices.get(ranked.index)) is not None
    ]
    for (i, _), value in zip(found, all_rounded([one for _, one in found], scale_free=spec.scale_free), strict=True):
        values[i] = value
    name = spec.title
    return Series(
        index=ranked.index,
        method=ranked.method,
        label=f"{name} ({ranked.method})" if several and ranked.index == "ssi" else name,
        about=spec.described,
        inverse=spec.sharp == "low",
        values=tuple(values),
        units=tuple(
            (place[unit.paths[0]],) if len(unit.paths) == 1 else tuple(place[path] for path in unit.paths)
            for unit in ranked.units
        ),
        worth=tuple(unit.value for unit in ranked.units),
    )


def _squares(
    modules: Sequence[ModuleScan], labels: dict[str, str], rows: Sequence[str], layers: Sequence[int]
) -> tuple[Square, ...]:
    members: dict[tuple[int, int], list[int]] = {}
    row_of, column_of = ({name: i for i, name in enumerate(names)} for names in (rows, layers))
    for i, module in enumerate(modules):
        if module.layer is not None:
            members.setdefault((row_of[labels[module.path]], column_of[module.layer]), []).append(i)
    return tuple(Square(row, column, tuple(found)) for (row, column), found in sorted(members.items()))


def start_of(plan: Plan | None, series: Series | None) -> dict[str, Any]:
    """Return the rule that the page starts with: that of the plan if the page can apply it, or else `given`."""
    if plan is None or series is None or plan.index != series.index:
        return {"rule": "given", "amount": 0}
    kind, _, amount = plan.rule.partition(" ")
    known = RULES.get(kind)
    if known is None or known.page is None:
        return {"rule": "given", "amount": 0}
    chosen = len({choice.position for choice in plan.chosen})
    if kind == "top":
        return {"rule": "top", "amount": chosen}
    if kind == "threshold":
        limit = sharpness(float(amount), series.index)
        if sum(sharpness(worth, series.index) >= limit for worth in series.worth) != chosen:
            return {"rule": "given", "amount": 0}  # the rule is kept with few digits
    return {"rule": kind, "amount": float(amount or 0)}
