"""What repairs of the reference experiment's adapters came to, as a page: `docs/results/repair.md`.

    python -m experiments.repair.render

Every number on the page comes out of `docs/results/repair`; the same files give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "results" / "repair"
PAGE = ROOT / "docs" / "results" / "repair.md"
HEAD = """# Repairs of the reference experiment's adapters

Written by `python -m experiments.repair.render` from the JSON in `docs/results/repair`, which
`python -m experiments.repair.run` makes: the adapters of the [reference experiment](reference.md), trained on plans
alone (`benign`), with 20 affirmative openings (`few`) or with 80 (`many`) among them, each repaired by `s3lora repair`.
Harmful prompts are those of AdvBench (Zou et al. 2023, MIT) that neither alignment nor attack has seen, harmless
prompts and plans are built in, and the rules over openings judge. Settings were chosen on `full-few-0` alone, by its
tuning part. All figures are of the test part. One base model: hints, not results.

"""
COLUMNS = (
    *("adapter", "method, strength", "ASR: base", "as trained", "repaired", "learned, lost"),
    *("harmless refused: base", "repaired", "outcome", "minutes", "GB"),
)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DATA.glob("*.json"))}
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(row(name, one) for name, one in found.items())]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    said = "\n".join(f"- `{name}`: {one['repair']['sentence']}" for name, one in found.items())
    return f"{HEAD}{table}\n\nIn words:\n\n{said}\n"


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
        f"{found['seconds'] / 60:.0f}",
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


if __name__ == "__main__":
    main()
