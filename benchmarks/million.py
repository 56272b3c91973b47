"""A plan for one million adapters of 50 MB, from measured constants and stated assumptions → `docs/million.md`.

python benchmarks/million.py
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2

HERE = Path(__file__).parent
ADAPTERS = 1_000_000
NODES = (1, 10, 100)


@dataclass(frozen=True)
class Assumed:
    """What was not measured here."""

    cores: int = 16
    node_gigabytes_per_second: float = 1.0
    stream_megabytes_per_second: float = 80.0
    request_seconds: float = 0.03
    node_dollars_an_hour: float = 0.70
    dollars_a_million_requests: float = 0.40
    requests_per_second_and_prefix: int = 5500


def render(template: str, **values: Any) -> str:
    """Return a page or a part of one; a value that is missing is an error."""
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.get_template(template).render(values)


def page(part: dict[str, Any], assumed: Assumed | None = None) -> str:
    """Return the page."""
    a = assumed or Assumed()
    return render("million.md.jinja", a=asdict(a), plan=plan(part["large"], part["ray"]["ratio"], a), **part)


def plan(large: dict[str, Any], ratio: float, a: Assumed) -> dict[str, Any]:
    """Return what follows for one node and for several, from one adapter's cost and the ratio of Ray's throughput."""
    waiting = large["requests"] * a.request_seconds
    transfer = large["megabytes_fetched"] / a.stream_megabytes_per_second
    worker = waiting + transfer + large["seconds"]
    by_cores = ratio * a.cores / large["seconds"]
    by_network = 1000 * a.node_gigabytes_per_second / large["megabytes_fetched"]
    by_workers = min(ratio * a.cores / worker, by_network)
    best = min(by_cores, by_network)
    asked = best * large["requests"]
    return {
        "waiting": waiting,
        "transfer": transfer,
        "by_workers": by_workers,
        "by_network": by_network,
        "by_cores": by_cores,
        "best": best,
        "workers": max(a.cores, round(best * worker / ratio)),
        "rows": [_row(nodes, by_workers, best, large, a) for nodes in NODES],
        "terabytes": ADAPTERS * large["megabytes_fetched"] / 1e6,
        "gigabytes": ADAPTERS * large["dataset_kilobytes"] / 1e6,
        "memory": ADAPTERS * large["driver_kilobytes"] / 1e6,
        "driver": ADAPTERS * large["driver_seconds"],
        "shortest": ADAPTERS / (NODES[-1] * best),
        "store_nodes": a.requests_per_second_and_prefix / asked,
        "prefixes": NODES[-1] * asked / a.requests_per_second_and_prefix,
        "driver_nodes": 1 / large["driver_seconds"] / best,
        "part": large["batch"] * large["dataset_kilobytes"] / 1000,
    }


def _row(nodes: int, by_workers: float, best: float, large: dict[str, Any], a: Assumed) -> dict[str, Any]:
    seconds = ADAPTERS / (nodes * best)
    return {
        "nodes": nodes,
        "slow": duration(ADAPTERS / (nodes * by_workers)),
        "fast": duration(seconds),
        "requests": nodes * best * large["requests"],
        "into": nodes * best * large["dataset_kilobytes"] / 1000,
        "machines": a.node_dollars_an_hour * nodes * seconds / 3600,
        "asked": large["requests"] * ADAPTERS / 1e6 * a.dollars_a_million_requests,
    }


def duration(seconds: float) -> str:
    """Return a time in words."""
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


if __name__ == "__main__":
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    (HERE.parent / "docs" / "million.md").write_text(page(results["fleet"]), encoding="utf-8")
