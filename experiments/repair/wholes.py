"""Whole repairs of the reference experiment's adapters, as a table: what `whole.py` found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    *("adapter", "method, strength", "ASR: base", "as trained", "repaired", "learned, lost"),
    *("harmless refused: base", "repaired", "outcome", "minutes", "GB"),
)


def tables(results: Path) -> dict[str, Any] | None:
    """Return the heads, a row a repair, and what each said; None where there are none."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    if not found:
        return None
    said = [f"`{name}`: {one['repair']['sentence']}" for name, one in found.items()]
    return {"heads": COLUMNS, "rows": [row(name, one) for name, one in found.items()], "said": said}


def row(name: str, found: Mapping[str, Any]) -> list[str]:
    """Return the cells of one repair."""
    repair = found["repair"]
    adapter, _, asked = name.rpartition("-") if name.count("-") > 2 else (name, "", "")
    chosen = f"{repair['method']}, {repair['strength']:.3g}" if repair["method"] else "none"
    lost = next(iter((repair["repaired"] or {}).get("shares", [])), None)
    return [
        f"`{adapter}`, `{asked}`",
        chosen,
        *(rate(repair[side], "asr") for side in ("base", "adapter", "repaired")),
        "–" if lost is None or lost["value"] is None else f"{lost['value'] * 100:.1f} % {span(lost, 100, 1)}",
        *(rate(repair[side], "over_refusal") for side in ("base", "repaired")),
        repair["outcome"],
        "–" if found["seconds"] is None else f"{found['seconds'] / 60:.0f}",
        f"{found['peak_gigabytes']:.1f}",
    ]


def rate(variant: Mapping[str, Any] | None, measure: str) -> str:
    """Return a rate with its interval and number."""
    metric = next((m for m in (variant or {}).get("metrics", []) if m["measure"] == measure), None)
    if metric is None or metric["value"] is None:
        return "–"
    return f"{metric['value']:.2f} {span(metric, 1, 2)}, n {metric['n']}"


def span(value: Mapping[str, Any], times: float, digits: int) -> str:
    """Return an interval."""
    return f"[{value['low'] * times:.{digits}f}, {value['high'] * times:.{digits}f}]"
