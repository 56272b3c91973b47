"""Whether a sweep has a ranking that is better than chance, in a sentence made of its own numbers."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.evaluate.results import Sweep, SweepPoint
from s3lora.report.sweep_view import by_share, usefulness
from s3lora.report.values import measure_of

#: Rankings, and points of each, that are named.
NAMED = 3
#: A control that copies how many modules of each projection a ranking takes.
MATCHED = "random-matched"


def sweep_verdict(sweep: Sweep) -> str:
    """Return in words whether any ranking is better than chance at equal usefulness.

    A point is better where its 95 % interval of safety lies beyond the value of every control that keeps at least as
    much usefulness; without a measure of usefulness, of every control with as many modules. Points at which nothing
    or every module is pruned are left out: there all rankings are one.
    """
    points = [p for p in sweep.points if p.strength is not None or 0 < p.top < p.modules_total]
    controls = [p for p in points if p.control]
    if any(p.ranking.startswith(MATCHED) for p in controls):
        controls = [p for p in controls if p.ranking.startswith(MATCHED)]
    chance = "matched chance" if controls and controls[0].ranking.startswith(MATCHED) else "chance"
    equal = "with as many modules" if sweep.utility is None else "at equal usefulness"
    if not controls:
        return "Whether a ranking is better than chance was not asked: the sweep has no control."
    compared, better = 0, []
    for point in points:
        rivals = [] if point.control else [c for c in controls if _rivals(sweep, point, c)]
        if rivals:
            compared += 1
            if all(_safer(sweep, point, rival) for rival in rivals):
                better.append(point)
    if not compared:
        return f"Whether a ranking is better than {chance} {equal} cannot be told: no control compares."
    many = f"{compared} point{'' if compared == 1 else 's'} compared"
    if not better:
        return f"No ranking is better than {chance} {equal} ({many})."
    rankings = list(dict.fromkeys(point.ranking for point in better))
    names = ", ".join(f"{name} ({_where([p for p in better if p.ranking == name])})" for name in rankings[:NAMED])
    more = f" and {len(rankings) - NAMED} more rankings" if len(rankings) > NAMED else ""
    return (
        f"Better than {chance} {equal}: {names}{more} ({many}). The best of many points looks better than it is; a"
        " second set of prompts tells more."
    )


def _where(points: Sequence[SweepPoint]) -> str:
    """Return at which points, by their numbers of modules or strengths."""
    numbers = [f"{p.top}" if p.strength is None else f"{p.strength:g}" for p in points]
    unit = "modules" if points[0].strength is None else "strength"
    return f"{', '.join(numbers[:NAMED])}{' …' if len(numbers) > NAMED else ''} {unit}"


def _rivals(sweep: Sweep, point: SweepPoint, control: SweepPoint) -> bool:
    """Return whether a control keeps as much as a point does, and both have numbers to compare."""
    mine, other = (one.metric(*sweep.safety) for one in (point, control))
    if mine is None or mine.low is None or mine.high is None or other is None or other.value is None:
        return False
    if sweep.utility is None:
        return point.top == control.top and point.strength == control.strength
    kept, theirs = usefulness(sweep, point), usefulness(sweep, control)
    if kept is None or theirs is None:
        return False
    measure = measure_of(sweep.suites, sweep.utility)
    less = by_share(sweep) or (measure is not None and measure.better == "lower")
    return theirs <= kept if less else theirs >= kept


def _safer(sweep: Sweep, point: SweepPoint, control: SweepPoint) -> bool:
    mine, other = (one.metric(*sweep.safety) for one in (point, control))
    if mine is None or mine.low is None or mine.high is None or other is None or other.value is None:
        return False
    measure = measure_of(sweep.suites, sweep.safety)
    return mine.low > other.value if measure is not None and measure.better == "higher" else mine.high < other.value
