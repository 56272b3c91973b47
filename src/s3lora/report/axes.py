"""Axes of the drawings of a page: where a value lies, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from s3lora.evaluate.results import Measure
from s3lora.report.names import head, tail

#: Pixels between the ends of an axis and the least and greatest value.
MARGIN = 8.0


@dataclass(frozen=True, slots=True)
class Axis:
    """Data from `low` to `high` laid over pixels from `start` to `end`, with a tick (pixel, text) at round numbers."""

    low: float
    high: float
    start: float
    end: float
    label: str
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def measure_axis(
    measure: Measure | None, key: tuple[str, str], ends: Sequence[float | None], start: float, end: float
) -> Axis:
    """Return an axis for a measure: rates from 0 to 1, means from the least to the greatest end."""
    label = axis_label(measure, key)
    if measure is not None and measure.kind == "rate":
        return axis((0.0, 1.0), start, end, label)
    known = [value for value in ends if value is not None and math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = (high - low or abs(high) or 1.0) * 0.05
    return axis((low - room, high + room), start, end, label)


def axis_label(measure: Measure | None, key: tuple[str, str]) -> str:
    """Return what an axis measures: name, unit and the better direction, short enough to stand along the axis."""
    label = tail(key[1], 22)
    if measure is None:
        return label
    unit = f" ({head(measure.unit, 14)})" if measure.unit else ""
    return f"{label}{unit}" + ("" if measure.better == "neither" else f", {measure.better} is better")


def axis(span: tuple[float, float], start: float, end: float, label: str, *, whole: bool = False) -> Axis:
    """Return an axis with a handful of ticks at round numbers; `whole` allows no fractions."""
    low, high = span
    margin = MARGIN if end > start else -MARGIN
    bare = Axis(low, high, start + margin, end - margin, label, ())
    step = _step((high - low) / 8)
    step = max(step, 1.0) if whole else step
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ticks = tuple(
        (bare.at(step * i), f"{step * i:.{decimals}f}" if decimals < 7 else f"{step * i:.1e}") for i in numbers
    )
    return replace(bare, ticks=ticks)


def _step(least: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * size for size in (1, 2, 5, 10) if power * size >= least * 0.999)
