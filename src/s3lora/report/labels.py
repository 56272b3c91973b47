"""Where a label beside a point of a drawing hides least."""

from __future__ import annotations

from collections.abc import Sequence

Spot = tuple[float, float]

#: How far a sign reaches from its middle.
SIGN = 4.0


def beside(anchor: Spot, others: Sequence[Spot], size: Spot, area: tuple[Spot, Spot], gap: float = 9.0) -> Spot:
    """Return the middle of a label of `size` (width, height) at `anchor`, within `area` and over fewest of `others`.

    All in one unit, such as pixels; `area` is two opposite corners. Of places that are as good the first counts:
    beside the point at a slant, where no interval lies, then right, left and on either side of it.
    """
    across, down = gap + size[0] / 2, gap + size[1] / 2
    slant = [(0.85 * across * right, 0.85 * down * below) for below in (1, -1) for right in (1, -1)]
    steps = [*slant, (across, 0.0), (-across, 0.0), (0.0, down), (0.0, -down)]
    places = [(anchor[0] + right, anchor[1] + below) for right, below in steps]
    return min(places, key=lambda place: (not _within(place, size, area), sum(_under(place, o, size) for o in others)))


def _within(place: Spot, size: Spot, area: tuple[Spot, Spot]) -> bool:
    return all(
        min(area[0][i], area[1][i]) <= place[i] - size[i] / 2
        and place[i] + size[i] / 2 <= max(area[0][i], area[1][i])
        for i in (0, 1)
    )  # fmt: skip


def _under(place: Spot, other: Spot, size: Spot) -> bool:
    return all(abs(place[i] - other[i]) < size[i] / 2 + SIGN for i in (0, 1))
