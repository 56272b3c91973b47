"""Some rows of a factor, as a factor of its own: a view of the same tensor."""

from __future__ import annotations

from dataclasses import dataclass

from s3lora.adapter.factors import Factor
from s3lora.adapter.tensor import Array


def some_rows(factor: Factor, start: int, size: int) -> Factor:
    """Return the factor (size, r) of these rows of a factor (m, r)."""
    return Factor(factor.tensor, (size, factor.shape[1]), _RowsOf(factor, start, size), factor.shared)


@dataclass(frozen=True, slots=True)
class _RowsOf:
    """The layout of some rows of a factor."""

    of: Factor
    start: int
    size: int

    def __call__(self, stored: Array) -> Array:
        rows: Array = self.of.view(stored)[self.start : self.start + self.size]
        return rows
