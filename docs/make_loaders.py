"""Write the tables of docs/loaders.md: what the slow tests in tests/loaders/ saw real loaders do.

    python -m docs.make_loaders

The rows come from `docs/results/loaders/`, where those tests record them. A test fails where the page is not what this
would write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.loaders.rows import FAULTS, MEANS, MLX_FAULTS, PICTURE_FAULTS, PICTURE_MEANS, SWAPS, TITLES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "loaders.md"
RESULTS = ROOT / "docs" / "results" / "loaders"
#: A part of the page that is written here, by its name.
PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
#: What an error's text begins with.
ERROR = re.compile(r"(\w+(?:Error|Exception))\b")
NOT_RUN = "not run"
#: Order of the columns, of which each version has one.
LOADERS = ("peft", "transformers", "diffusers", "mlx", "vllm", "sglang", "llamacpp")
#: What those are called that have another name there.
CALLED = {"mlx": "mlx-lm", "llamacpp": "llama.cpp", "vllm": "vLLM", "sglang": "SGLang", "peft": "PEFT"}

Seen = Mapping[str, Any]


def seen() -> list[Seen]:
    """Return what was recorded, one document a loader and version, in the order of the columns."""
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))]
    return sorted(documents, key=lambda one: (LOADERS.index(one["loader"]), _numbers(one["version"])))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _called(one: Seen) -> str:
    """Return a loader with its version."""
    return f"{CALLED.get(one['loader'], one['loader'])} {one['version']}"


def table(section: str, means: Mapping[str, str], title: str, documents: Iterable[Seen]) -> str:
    """Return the table of one section: a row a sample, a column a loader."""
    columns = [one for one in documents if any(row["sample"] in means for row in one.get(section, []))]
    rows = [{row["sample"]: row for row in one[section]} for one in columns]
    # What no column of a table has is a sample of other loaders.
    told = [name for name in means if any(name in column for column in rows)]
    head = " | ".join([title, *map(_called, columns)])
    lines = [f"| {head} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {means[name]} | " + " | ".join(cell(column.get(name)) for column in rows) + " |" for name in told]
    return "\n".join(lines)


def pictures(documents: Iterable[Seen]) -> str:
    """Return the table of picture models: a column a kind of model."""
    kinds = {"sd1": "SD1", "sdxl": "SDXL", "flux": "Flux"}
    rows = [
        (f"{_called(one)}, {shown}", {row["sample"]: row for row in one[f"samples_{kind}"]})
        for one in documents
        for kind, shown in kinds.items()
        if f"samples_{kind}" in one
    ]
    head = " | ".join([TITLES["samples"], *(name for name, _ in rows)])
    lines = [f"| {head} |", "|---" * (len(rows) + 1) + "|"]
    for name, means in PICTURE_MEANS.items():
        lines.append(f"| {means} | " + " | ".join(cell(column.get(name)) for _, column in rows) + " |")
    return "\n".join(lines)


def cell(row: Seen | None) -> str:
    """Return the words for one row."""
    if row is None:
        return NOT_RUN
    error = ERROR.match(row["reason"])
    shown = f"{row['result']} ({error[1]})" if error else row["result"]
    if (verdict := row.get("verdict")) is not None:
        return shown if verdict == row["result"] else f"**{shown}**, and `check` says {verdict}"
    if error:
        return shown
    if row["result"] == "none":
        return f"–{_because(row)}"
    off = row["largest_relative_difference"]
    shown = f" ({off:.0e})" if row["result"] == "same" and off else ""
    return f"{row['result']}{shown}{_because(row)}"


def _because(row: Seen) -> str:
    return f": {row['reason'].replace('|', chr(92) + '|')}" if row["reason"] else ""


def versions(documents: Iterable[Seen]) -> str:
    """Return what was run beside each loader."""
    lines = []
    for one in documents:
        beside = ", ".join(f"{name} {version}" for name, version in sorted(one["beside"].items()))
        lines.append(f"- {_called(one)}" + (f", with {beside}" if beside else ""))
    return "\n".join(lines)


def page() -> str:
    """Return the page with its tables written anew."""
    documents = seen()
    parts = {
        "versions": versions(documents),
        "samples": table("samples", MEANS, TITLES["samples"], documents),
        "checks": table("checks", FAULTS, TITLES["checks"], documents),
        "checks_mlx": table("checks", MLX_FAULTS, TITLES["checks"], documents),
        "checks_pictures": table("checks", PICTURE_FAULTS, TITLES["checks"], documents),
        "pictures": pictures(documents),
        "swaps": table("swaps", SWAPS, TITLES["swaps"], documents),
    }
    text = PAGE.read_text(encoding="utf-8")
    return PART.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[3]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
