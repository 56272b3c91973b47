"""Write the tables of docs/coming-from.md out of docs/results/coming-from/results.json.

    python -m docs.make_coming

The results are made by `python -m experiments.coming.run ENVS`, those of speed by `python -m experiments.coming.speed
ENVS`. A test fails where the page is another one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent / "coming-from.md"
RESULTS = Path(__file__).resolve().parent / "results" / "coming-from" / "results.json"
SPEED = RESULTS.with_name("speed.json")
KINDS = Path(__file__).resolve().parent / "results" / "kinds.json"
PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
#: What a result is called where it has two readings.
READINGS = {
    "scaled": "its factors by the old scaling",
    "applied": "as PEFT applies it beside the old configuration with the new r",
    "of the mean": "it makes the mean, and this is the error of that",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(value: Any) -> str:
    """Return what stands in a cell for an error, or for what became of a tool."""
    if isinstance(value, Mapping):
        return "; ".join(f"{READINGS.get(name, name)}: {shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def parts(found: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, str]:
    """Return every table by its name."""
    scans = [(name, shown(one.get("scaling", one)), shown(one.get("norm", ""))) for name, one in found["scans"].items()]
    both, sums = (
        [(name, part["plain"][name], part["rslora"][name]) for name in part["plain"]]
        for part in (found["resizes"], found["sums"])
    )
    models = [(job, name, shown(one)) for job, runs in found["models"].items() for name, one in runs.items()]
    sentry = found["kinds"]["adaptersentry"]
    kinds = []
    for kind, cell in ((kind, row["`scan`"]) for kind, row in cells.items()):
        one = sentry[kind]
        theirs = one.get("not run") or f"{one['status']}, {one['modules']} modules, {one['action']}"
        ours = {"yes": "read", "partly": f"read: {cell.get('why')}"}.get(cell["verdict"], "refused")
        kinds.append((kind, theirs, ours))
    return {
        "versions": table(("tool", "version"), found["versions"].items()),
        "scans": table(("tool", "scaling", "‖ΔW‖"), scans),
        "resizes": table(("tool", "LoRA", "rsLoRA"), ((n, shown(a), shown(b)) for n, a, b in both)),
        "ranks": table(("tool", "ranks"), ((name, shown(one)) for name, one in found["ranks"].items())),
        "sums": table(("tool", "two LoRA", "two rsLoRA"), ((n, shown(a), shown(b)) for n, a, b in sums)),
        "models": table(("job", "tool", "result"), models),
        "kinds": table(("kind", "AdapterSentry", "s3lora"), kinds),
    }


def speed(found: Mapping[str, Any]) -> str:
    """Return the table of seconds."""
    rows = [
        (
            title,
            name,
            f"{one['seconds']:.2f} ({one['range'][0]:.2f} to {one['range'][1]:.2f})",
            f"{one['ratio']:.2f}",
        )
        for title, tools in found["adapters"].items()
        for name, one in tools.items()
    ]
    head = ("adapter", "tool", "seconds, median (range)", "times s3lora's")
    return f"{table(head, rows)}\n{found['turns']} turns on {found['cores']} cores.\n"


def page() -> str:
    """Return the page with the tables as they should be."""
    found, cells = (json.loads(place.read_text(encoding="utf-8")) for place in (RESULTS, KINDS))
    made = parts(found, cells["tables"]["reading"])
    made["speed"] = speed(json.loads(SPEED.read_text(encoding="utf-8")))
    return PART.sub(lambda part: f"{part[1]}{made[part[2]]}{part[3]}", PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
