"""Tier 2 on one adapter: all rows on a grid of strengths, and much beside the test part at one strength of each."""

from __future__ import annotations

import json
from typing import Any

from experiments.reference.data import Run
from experiments.reference.run import write
from experiments.repair.beside import Beside
from experiments.repair.measured import Ends, Losses, find_levels, geometry, point, state, whole
from experiments.repair.others import overlap, second_tier
from experiments.repair.rows import MIDDLE, Row, Shelf
from experiments.repair.session import is_done, session, tell
from experiments.repair.setting import Places, Settings
from s3lora.repair.measuring import PartBench


def find_strengths(places: Places, settings: Settings, run: Run) -> None:
    """Measure what every row loses on the tuning part along the grid, find its strength of the level, write both."""
    path = places.strengths(2, run)
    if is_done(path, places, run):
        return
    with session(places, settings, run, unaligned=True) as at:
        bench, ends = at.part(at.work.data.tuning)
        rows = {row.name: _found(at.shelf, row, bench, ends, settings.strengths) for row in second_tier()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, {**at.head, "part": "tuning", "rows": rows})


def _found(shelf: Shelf, row: Row, bench: PartBench, ends: Ends, count: int) -> dict[str, Any]:
    loss = Losses(bench, ends, shelf.of(row), row.name)
    level = find_levels(loss, (MIDDLE,))[MIDDLE]
    grid = sorted({at for i in range(count) if (at := whole((i + 1) / count, loss.steps))})
    strengths = sorted({*grid, *([] if level is None else [level])})
    shares = [{"strength": at, "share": loss(at)} for at in strengths]
    print(f"{shelf.name} {row.name}: a tenth is lost at {level}", flush=True)
    return {"level": level, "grid": grid, "notes": list(shelf.of(row).notes), "points": shares}


def measure_test(places: Places, settings: Settings, run: Run) -> None:
    """Measure the test part at the strengths that were written, and what stands beside it at the level."""
    path = places.tests(2, run)
    if is_done(path, places, run):
        return
    found = json.loads(places.strengths(2, run).read_text(encoding="utf-8"))["rows"]
    with session(places, settings, run, unaligned=True) as at:
        test = at.work.data.test
        bench, ends = at.part(test)
        beside = Beside(places, settings, bench, test.harmful)
        both = {
            "base_state": {**state(bench, ends.base), "beside": beside.of(base=True)},
            "adapter_state": {**state(bench, ends.adapter), "beside": beside.of()},
        }
        rows = {}
        for row in second_tier():
            strengths, level = [one["strength"] for one in found[row.name]["points"]], found[row.name]["level"]
            points = [point(at.shelf, row, strength, bench, ends) for strength in strengths]
            rows[row.name] = {
                **{name: found[row.name][name] for name in ("level", "grid", "notes")},
                "points": points,
                "beside": _beside(at.shelf, row, level, beside),
            }
            tell(run, row.name, points)
    write(path, {**at.head, "part": "test", "about": beside.about, **both, "rows": rows})


def _beside(shelf: Shelf, row: Row, level: float | None, beside: Beside) -> dict[str, Any] | None:
    """Return what stands beside the test part at the level; None where the row has no strength that keeps to it."""
    if level is None:
        return None
    factors = shelf.of(row).at(level)
    return {**beside.of(factors), **geometry(shelf, factors), "overlap": overlap(shelf, row, level)}
