"""Columns of numbers → the items that several of them have, with their weights and clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from s3lora.evaluate.results import MeasureColumn


class Items(NamedTuple):
    """The same items of one or more columns: a list of numbers a column, and what is known of the items."""

    columns: tuple[list[float], ...]
    weights: list[float] | None
    clusters: list[str] | None
    missing: int

    @property
    def n(self) -> int:
        """Return how many items there are."""
        return len(self.columns[0])

    @property
    def units(self) -> int:
        """Return how many of them are independent: clusters where items share one."""
        return self.n if self.clusters is None else len(set(self.clusters))

    @property
    def shared(self) -> int | None:
        """Return the number of clusters, None where every item is one of its own."""
        return None if self.units == self.n else self.units


def common(*columns: MeasureColumn) -> Items:
    """Return the items that have a number in all columns, with the weights and clusters of the first."""
    rows = list(zip(*(column.values for column in columns), strict=True))
    known = [i for i, row in enumerate(rows) if None not in row]
    first = columns[0]
    return Items(
        tuple([value for i in known if (value := column.values[i]) is not None] for column in columns),
        None if first.weights is None else [first.weights[i] for i in known],
        None if first.clusters is None else [first.clusters[i] for i in known],
        len(rows) - len(known),
    )


def listed(items: Items, values: Sequence[float]) -> tuple[float, ...]:
    """Return the values of few items, or the weighted means of few clusters, in their order."""
    names = items.clusters or [str(i) for i in range(items.n)]
    sums: dict[str, tuple[float, float]] = {}
    for name, value, weight in zip(names, values, items.weights or [1.0] * items.n, strict=True):
        total, mass = sums.get(name, (0.0, 0.0))
        sums[name] = (total + weight * value, mass + weight)
    return tuple(total / mass for total, mass in sums.values())


def clustered(column: MeasureColumn, ids: Sequence[str]) -> MeasureColumn:
    """Return a column that knows which of its items share an identifier; an item without one is alone."""
    names = [name for name in ids if name]
    if len(set(names)) == len(names):
        return column
    return replace(column, clusters=tuple(name or f"item {i}" for i, name in enumerate(ids)))
