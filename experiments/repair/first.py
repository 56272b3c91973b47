"""Tier 1 on one adapter: the strengths of every row by the tuning part, then the test part at those strengths."""

from __future__ import annotations

import json
from typing import Any

from experiments.reference.data import Run
from experiments.reference.run import write
from experiments.repair.measured import Ends, Losses, find_levels, point, state, strengths_of
from experiments.repair.rows import Row, Shelf, first_tier
from experiments.repair.session import is_done, session, tell
from experiments.repair.setting import Places, Settings
from s3lora.repair.measuring import PartBench


def find_strengths(places: Places, settings: Settings, run: Run) -> None:
    """Find the strengths of every row on the tuning part, and write them with all numbers there."""
    path = places.strengths(1, run)
    if is_done(path, places, run):
        return
    with session(places, settings, run) as at:
        bench, ends = at.part(at.work.data.tuning)
        rows = {}
        for row in first_tier(settings.draws):
            rows[row.name] = _found(at.shelf, row, bench, ends)
            tell(run, row.name, rows[row.name]["points"])
        found = {"base_state": state(bench, ends.base), "adapter_state": state(bench, ends.adapter), "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, {**at.head, "part": "tuning", **found})


def _found(shelf: Shelf, row: Row, bench: PartBench, ends: Ends) -> dict[str, Any]:
    loss = Losses(bench, ends, shelf.of(row), row.name)
    levels = find_levels(loss, row.levels)
    strengths = strengths_of(levels, list(loss.known), loss.steps)
    points = [point(shelf, row, strength, bench, ends) for strength in strengths]
    return {"levels": {f"{level:g}": strength for level, strength in levels.items()}, "points": points}


def measure_test(places: Places, settings: Settings, run: Run) -> None:
    """Measure the test part at the strengths that were written, and at no others."""
    path = places.tests(1, run)
    if is_done(path, places, run):
        return
    found = json.loads(places.strengths(1, run).read_text(encoding="utf-8"))
    with session(places, settings, run) as at:
        bench, ends = at.part(at.work.data.test)
        both = {
            "base_state": state(bench, ends.base, items=True),
            "adapter_state": state(bench, ends.adapter, items=True),
        }
        rows = {}
        for row in first_tier(settings.draws):
            strengths = [one["strength"] for one in found["rows"][row.name]["points"]]
            rows[row.name] = [point(at.shelf, row, strength, bench, ends, items=True) for strength in strengths]
            tell(run, row.name, rows[row.name])
    write(path, {**at.head, "part": "test", **both, "rows": rows})
