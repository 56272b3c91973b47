"""Show what was measured of the method on the pages: the parts between two marks are written anew from the JSON.

python -m experiments.method.render
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "method.json"
PAGES = (ROOT / "docs" / "method.md",)
#: From one mark to the next, and no further: a mark that lost its partner must not swallow what follows.
PART = re.compile(
    r"(?P<head><!-- from results/method\.json: (?P<name>[\w-]+) -->\n)(?:(?!<!-- ).)*(?P<end><!-- end -->)", re.S
)
EXAMPLE = "the built-in example"


def main() -> None:
    """Write the parts of every page anew."""
    shown = parts(json.loads(RESULTS.read_text(encoding="utf-8")))
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), shown), encoding="utf-8")


def filled(text: str, shown: dict[str, str]) -> str:
    """Return a page with its marked parts; an unknown mark is a KeyError."""
    return PART.sub(lambda match: f"{match['head']}\n{shown[match['name']]}\n{match['end']}", text)


def parts(results: dict[str, Any]) -> dict[str, str]:
    """Return every part by its name."""
    return {
        "robustness": _robustness(results["robustness"]),
        "agreement": f"On an update made so, the two differ by a factor of 1 ± {results['agreement']:.0e} at most.\n",
        "alike": _alike({EXAMPLE: results["example"], **results["published"]}),
        "released": _released(results["released"]),
        "released-rows": _rows(results["released"]["rows"]),
        "released-published": _released_published(results["published"]),
        "projections": _projections(results["projections"], results["chance"]),
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rho(value: float | None) -> str:
    """Return a correlation with its sign, a dash where there is none."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def _robustness(found: dict[str, Any]) -> str:
    m, n = found["shape"]
    head = [f"rows × {found['factor']:g}, of {m}", *map(str, found["rows"])]
    rows = [[f"`{name}`", *(f"{value:.2f}" for value in values)] for name, values in found["ssi"].items()]
    about = f"Mean of {found['draws']} draws of {m} × {n}, rank {found['rank']}."
    return f"{table(head, rows)}\n{about}\n"


def _alike(adapters: dict[str, Any]) -> str:
    rows = []
    for name, found in adapters.items():
        if "refused" not in found:
            ranks = "–".join(str(rank) for rank in sorted({found["ranks"][0], found["ranks"][-1]}))
            cells = [str(found["modules"]), ranks, *(f"{value:.2f}" for value in found["ssi"])]
            rows.append([name, *cells, *(rho(found["rho"][key]) for key in ("svd", "spsvd", "magnitude"))])
    head = ["adapter", "modules", "rank", "least SSI", "median", "greatest", "ρ `svd`", "ρ `spsvd`", "ρ magnitude"]
    return table(head, rows)


def _released(found: dict[str, Any]) -> str:
    groups = {"random, 256 × 256": found["random"]}
    groups |= {f"example, `{name}`": group for name, group in found["projections"].items()}
    groups["example, all"] = found["example"]
    rows = [
        [
            name,
            str(group["modules"]),
            f"{group['least']:.2f}–{group['greatest']:.2f}",
            rho(group["size"]),
            rho(group["sharpness"]),
            rho(group["turned"]),
            f"{group['turned_factor']:.1f}",
        ]
        for name, group in groups.items()
    ]
    head = ["updates", "modules", "index", "ρ with σ₁", "ρ with SSI", "ρ with itself, other basis", "median factor"]
    return table(head, rows)


def _rows(found: dict[str, float]) -> str:
    return table(["rows of ΔW", *found], [["mean index", *(f"{value:.2f}" for value in found.values())]])


def _released_published(adapters: dict[str, Any]) -> str:
    rows = []
    for name, found in adapters.items():
        if "rho_released" in found:
            undefined = f"{found['m_above_n']} of {found['modules']}"
            rows.append([name, undefined, *(rho(found["rho_released"][key]) for key in ("magnitude", "ssi"))])
    return table(["adapter", "undefined", "ρ with magnitude", "ρ with SSI by `mas-svd`"], rows)


def _projections(found: dict[str, Any], chance: dict[str, float]) -> str:
    tops = list(next(iter(found.values()))["among"])
    rows = []
    for name, group in found.items():
        shape = "×".join(str(size) for size in group["shape"])
        among = [str(group["among"][top]) for top in tops]
        rows.append([f"`{name}`", shape, f"{group['ssi']:.2f}", f"{chance[shape]:.2f}", *among])
    head = ["projection", "m × n", "mean SSI", "of random updates", *(f"among the {top} sharpest" for top in tops)]
    return table(head, rows)


if __name__ == "__main__":
    main()
