"""A comparison of adapters as its reports show it: names, what changed, and in which order. Nothing is scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from s3lora.measure.comparison import Comparison, ModuleComparison
from s3lora.measure.refusal_looks import RefusalLook
from s3lora.report.heatmap import labels_of, row_key
from s3lora.report.values import NOTHING, decimal

#: Adapters whose sharpness a page shows, as more columns fit no sheet; and values that all modules may have together.
ADAPTERS, VALUES = 16, 20_000
#: Looks at refusals that are shown.
LOOKS = 24

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class ComparedModule:
    """One module with the label of its projection; `sharp` is its SSI in each adapter, or the normalised one."""

    module: ModuleComparison
    label: str
    sharp: tuple[float | None, ...]

    @property
    def norms(self) -> tuple[float | None, float | None]:
        """Return ‖ΔW‖ in the first adapter and in the last."""
        return self.module.frobenius[0], self.module.frobenius[-1]

    @property
    def change(self) -> float | None:
        """Return the last sharpness less the first."""
        first, last = self.sharp[0], self.sharp[-1]
        return None if first is None or last is None else last - first

    @property
    def moved(self) -> float | None:
        """Return the distance from the first to the last: infinite for a new update, None where nothing can be told."""
        first, last = self.norms
        if first is None or last is None or self.module.shape[0] != self.module.shape[-1]:
            return None
        if self.module.net_distance is None:
            return None if first else math.inf if last else 0.0
        return self.module.net_distance


@dataclass(frozen=True, slots=True)
class Stage:
    """One adapter in numbers; distance and cosine are the medians of the step that led to it."""

    label: str
    name: str
    modules: int
    sharp: float | None
    sharpest: float | None
    frobenius: float
    distance: float | None
    cosine: float | None


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """Everything that a report shows of a comparison.

    `labels` are the short names of the adapters, `at` their places on an axis, and `shown` those that are drawn.
    """

    comparison: Comparison
    index: str
    labels: tuple[str, ...]
    at: tuple[float, ...]
    axis: str
    shown: tuple[int, ...]
    rows: tuple[ComparedModule, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the adapters."""
        return tuple(source.name for source in self.comparison.sources)

    @property
    def watched(self) -> bool:
        """Return whether it was seen in training, so that there are no files and nothing but modules was looked at."""
        return all(source.format == "memory" for source in self.comparison.sources)

    @property
    def looks(self) -> list[RefusalLook]:
        """Return looks at refusals, evenly spread where there are many."""
        looks = self.comparison.refusals
        return [looks[i] for i in spread(len(looks), LOOKS)] if len(looks) > LOOKS else [*looks]

    @property
    def pair(self) -> bool:
        """Return whether there are only two adapters."""
        return len(self.labels) == 2

    @property
    def moved(self) -> list[ComparedModule]:
        """Return the modules that changed, the farthest first."""
        return sorted((row for row in self.rows if row.moved), key=lambda row: -(row.moved or 0.0))

    @property
    def common(self) -> int:
        """Return how many modules are in the first adapter and in the last."""
        return sum(None not in row.norms for row in self.rows)

    @property
    def shared(self) -> bool:
        """Return whether a layer has several modules of one projection, such as experts."""
        places = [(row.label, row.module.layer) for row in self.rows if row.module.layer is not None]
        return len(set(places)) < len(places)

    def groups(self) -> dict[str, list[ComparedModule]]:
        """Return the rows by projection, in the order in which a transformer uses them."""
        rows: dict[str, list[ComparedModule]] = {}
        for row in self.rows:
            rows.setdefault(row.label, []).append(row)
        return {label: rows[label] for label in sorted(rows, key=row_key)}

    def absent(self, called: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Return what is not in every adapter or not in one shape: a sentence, and the paths that it is about.

        `called` is what the sentences call the adapters.
        """
        paths: dict[str, list[str]] = {}
        for row in self.rows:
            held = [name for name, shape in zip(called, row.module.shape, strict=True) if shape is not None]
            if len(held) < len(called):
                paths.setdefault(f"only in {', '.join(held)}", []).append(row.module.path)
            elif len(set(row.module.shape)) > 1:
                paths.setdefault("of another shape than before, so without a distance", []).append(row.module.path)
        return sorted(paths.items())

    def stages(self) -> list[Stage]:
        """Return the adapters in numbers."""
        return [self._stage(i) for i in range(len(self.labels))]

    def _stage(self, i: int) -> Stage:
        modules = [row.module for row in self.rows]
        sharp = [row.sharp[i] for row in self.rows]
        return Stage(
            label=self.labels[i],
            name=self.names[i],
            modules=sum(module.shape[i] is not None for module in modules),
            sharp=middle(sharp),
            sharpest=max(known(sharp), default=None),
            frobenius=math.hypot(*known([module.frobenius[i] for module in modules])),
            distance=middle([module.distance[i - 1] for module in modules]) if i else None,
            cosine=middle([module.cosine[i - 1] for module in modules]) if i else None,
        )


def view_of(comparison: Comparison) -> ComparisonView:
    """Arrange a comparison; where modules change their rank, by the normalised SSI, as raw values do not compare."""
    other = any(len({*module.rank} - {None}) > 1 for module in comparison.modules)
    labels = labels_of(comparison.modules)
    steps = comparison.steps
    told = [step for step in steps[:-1] if step is not None]
    last = steps[-1]
    # A number that does not grow says nothing about the order; the adapter in a run's own folder has none, and ends it.
    grows = len(told) == len(steps) - 1 and all(a < b for a, b in pairwise(told))
    counted = grows and len(steps) > 2 and (last is None or last > told[-1])
    return ComparisonView(
        comparison=comparison,
        index="normalised SSI" if other else "SSI",
        labels=_labels(steps, counted=counted),
        at=_places(told, last) if counted else tuple(map(float, range(1, len(steps) + 1))),
        axis="training step" if counted else "adapter",
        shown=spread(len(steps), max(4, min(ADAPTERS, VALUES // len(comparison.modules)))),
        rows=tuple(
            ComparedModule(module, labels[module.path], module.normalised_ssi if other else module.ssi)
            for module in comparison.modules
        ),
    )


def _labels(steps: Sequence[int | None], *, counted: bool) -> tuple[str, ...]:
    if len(steps) == 2:
        return "A", "B"
    return tuple("end" if step is None else str(step) for step in steps) if counted else _numbers(len(steps))


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(i + 1) for i in range(count))


def _places(told: Sequence[int], last: int | None) -> tuple[float, ...]:
    """Return the steps; the last adapter, if its step is not known, is put as far behind as the steps lie apart."""
    apart = (told[-1] - told[0]) / (len(told) - 1) if len(told) > 1 else 1.0
    return (*map(float, told), told[-1] + apart if last is None else float(last))


def spread(count: int, most: int) -> tuple[int, ...]:
    """Return at most this many, two or more, of `count` places: evenly spread, the first and the last among them.

    >>> spread(40, 4)
    (0, 13, 26, 39)
    """
    shown = min(count, most)
    return tuple(round(i * (count - 1) / (shown - 1)) for i in range(shown))


def known(values: Values) -> list[float]:
    """Return the values that are known."""
    return [value for value in values if value is not None]


def middle(values: Values) -> float | None:
    """Return the median of the values that are known."""
    numbers = known(values)
    return median(numbers) if numbers else None


def number(value: float | None) -> str:
    """Return a number to three significant digits, however small.

    >>> [number(value) for value in (None, 0.0, 0.5, -0.5, 3e-9)]
    ['–', '0', '0.500', '−0.500', '3.0e-09']
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    return (f"{value:.1e}" if abs(value) < 1e-4 else decimal(value)).replace("-", "−", 1 if value < 0 else 0)


def cosine(value: float | None) -> str:
    """Return a cosine to three decimals.

    >>> [cosine(value) for value in (None, 0.99961, -0.5, -1e-5)]
    ['–', '1.000', '−0.500', '0.000']
    """
    return number(value) if value is None else signed(value).removeprefix("+") if value else "0.000"


def signed(value: float | None) -> str:
    """Return a difference of two sharpnesses with its sign.

    >>> [signed(value) for value in (None, 0.0, 0.25, -0.25, 1e-5)]
    ['–', '0', '+0.250', '−0.250', '0.000']
    """
    if not value or not math.isfinite(value):
        return number(value)
    size = f"{abs(value):.3f}"
    return size if float(size) == 0 else f"{'−' if value < 0 else '+'}{size}"


def distance_text(row: ComparedModule) -> str:
    """Return the distance that a module moved, in words where it has none."""
    return "new" if row.moved == math.inf else number(row.moved)
