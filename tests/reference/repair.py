"""The verdicts on a repair, from their definitions: slow, literal, on lists of 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence

from tests.reference import statistics as reference


def table(before: Sequence[int], after: Sequence[int]) -> reference.Table:
    """Count items with a 1 in both, before only, after only, and in neither."""
    pairs = list(zip(before, after, strict=True))
    return pairs.count((1, 1)), pairs.count((1, 0)), pairs.count((0, 1)), pairs.count((0, 0))


def verdict(before: Sequence[int], after: Sequence[int], limit: float, *, falls: bool) -> str:
    """Return whether after − before stays below a limit; a fall that is none is refuted."""
    low, high = reference.tango(table(before, after))
    if high < limit:
        return "confirmed"
    if low > limit:
        return "refuted"
    return "refuted" if falls and sum(after) >= sum(before) else "not refuted"
