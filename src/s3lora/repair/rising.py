"""Where a loss that rises with the strength reaches a level, by as few measurements as possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

#: Strengths that are measured, at most.
MOST = 6
#: The least part of what is left that a guess goes in from either end.
INSIDE = 0.02
#: The power of the strength that a loss is taken to rise by while no two points tell, and the least that they may tell.
POWER, LEAST_POWER = 3.0, 0.1


def reach(
    value: Callable[[float], float | None], level: float, near: float, *, above: bool = False, most: int = MOST
) -> tuple[float, float | None]:
    """Return the highest strength known to lie at the level or below, and the lowest known to lie above it.

    Parameters:
        value: the loss at a strength in (0, 1]; None where it cannot be told, which counts as above. It is taken to be
            0 at 0 and to rise, which decides where to look and never what is returned.
        level: the loss that is looked for.
        near: how near to the level is near enough, as a share of it: from below or, with `above`, from above.
        most: measurements, at most.

    The first is 0 where nothing that was measured lies at the level or below, the second None where strength 1 does.
    """
    known: dict[float, float] = {}
    low, high, at = 0.0, math.inf, 1.0
    aim = level * (1 + near / 2 if above else 1 - near / 2)
    stuck = 0
    while len(known) < most:
        found, width = value(at), high - low
        known[at] = math.inf if found is None else found
        if known[at] <= level:
            low = at
        else:
            high = at
        if low == 1.0:
            return 1.0, None
        if 0 < known[at] - level <= near * level if above else 0 <= level - known[at] <= near * level:
            break
        # A curve that twice halves nothing is not that of the loss.
        stuck = 0 if high - low <= width / 2 else stuck + 1
        guess = math.nan if stuck > 1 else _guess(known, aim, low, high)
        inside = INSIDE * (high - low)
        at = (low + high) / 2 if math.isnan(guess) else min(max(guess, low + inside), high - inside)
    return low, high


def _guess(known: Mapping[float, float], aim: float, low: float, high: float) -> float:
    """Return where c·tᵖ through the points around the aim reaches it; NaN where there is no such curve.

    Where one of the two is of no use, it is the two nearest points or, with one point alone, p is `POWER`.
    """
    points = {at: (math.log(at), math.log(loss)) for at, loss in known.items() if 0 < loss < math.inf}
    if aim <= 0 or not points:
        return math.nan
    goal = math.log(aim)
    nearest = sorted(points.values(), key=lambda point: abs(point[1] - goal))
    (at, loss), *others = [points[low], points[high]] if low in points and high in points else nearest
    power = (others[0][1] - loss) / (others[0][0] - at) if others else POWER
    # What falls where it should rise tells nothing.
    return math.exp(min(0.0, at + (goal - loss) / power)) if power > LEAST_POWER else math.nan
