"""Write the numbers and figures of docs/normal.md.

    python -m docs.make_normal ../shared/population

The table of cells is that of the shipped reference. Everything else is computed from the numbers of all files; without
that folder only the table is written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from docs import population
from s3lora.measure.published import FILE, GRID
from s3lora.measure.roles import ModuleRole
from s3lora.report.axes import axis
from s3lora.report.chart import BOTTOM, LEFT, NAMED, RIGHT, SIGNS, TOP, Chart, LegendEntry, Sign, StackedRow, stacked
from s3lora.report.chart import Path as Line
from s3lora.report.sheet import sheet

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "normal.md"
IMAGES = ROOT / "docs" / "images"
REFERENCE = ROOT / "src" / "s3lora" / FILE
PART = re.compile(r"(<!-- made: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
#: The index of `GRID` at these shares.
LOW, MIDDLE, HIGH = GRID.index(0.05), GRID.index(0.5), GRID.index(0.95)


def cells() -> list[dict[str, Any]]:
    """Return the cells of the shipped reference."""
    found: list[dict[str, Any]] = json.loads(REFERENCE.read_text(encoding="utf-8"))["cells"]
    return found


def role_name(key: str) -> str:
    """Return a role in words."""
    stack, *middle, part = key.split(".")
    return str(ModuleRole(stack, bool(middle), part))  # type: ignore[arg-type]


def table() -> str:
    """Return the table of cells."""
    rows = [
        "| role | ranks | adapters / sources | energy | normalised SSI | SSI, at rank | width |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells():
        of = role_name(cell["role"]) + (f", {cell['architecture']} alone" if cell["architecture"] else "")
        found = cell["quantiles"]
        marks = [_quantiles(found[name][LOW], found[name][MIDDLE], found[name][HIGH]) for name in found]
        marks[2] += f", {cell['rank']}"
        low, high = cell["width"]
        wide = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        ranks = cell["band"].replace("-", "–")
        rows.append(f"| {of} | {ranks} | {cell['adapters']} / {cell['sources']} | {' | '.join(marks)} | {wide} |")
    return "\n".join(rows)


def _quantiles(low: float, middle: float, high: float) -> str:
    return f"{_short(middle)} [{_short(low)}, {_short(high)}]"


def _short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def energy_figure() -> str:
    """Return the energy of every cell of all architectures as SVG."""
    rows = []
    for cell in cells():
        if cell["architecture"] is None:
            low, middle, high = (cell["quantiles"]["energy"][place] for place in (LOW, MIDDLE, HIGH))
            name = f"{cell['role'].replace('cross.', 'cross ').replace('.', ' ')}, rank {cell['band']}"
            rows.append(StackedRow(name, "adapter", middle, low, high, _quantiles(low, middle, high)))
    chart = stacked(
        rows, axis((0.0, 1.0), NAMED, RIGHT, "energy of the first direction"), "Energy by role and rank", ""
    )
    assert chart is not None
    entry = LegendEntry("c1", SIGNS[1], "median; bar: 5th to 95th percentile")
    return sheet("Published modules", ["each adapter alike, however many modules it has"], [chart], [entry])


def variance_figure(shares: dict[str, dict[str, float]]) -> str:
    """Return what explains the variance as SVG."""
    charts = []
    for index, found in shares.items():
        rows = [
            StackedRow(_factor(name), "adapter", share, 0.0, share, f"{share:.2f}") for name, share in found.items()
        ]
        chart = stacked(rows, axis((0.0, 1.0), NAMED, RIGHT, "share of the variance"), index, "")
        assert chart is not None
        charts.append(chart)
    return sheet("What explains the variance", ["each by itself; each adapter alike"], charts, [])


def _factor(name: str) -> str:
    return "the four above together" if name == "together" else name


def training_figure(runs: Sequence[dict[str, float]]) -> str:
    """Return the energy at the first and the last checkpoint of each run as SVG."""
    x, y = (
        axis((0.0, 1.0), LEFT, RIGHT, "energy, first checkpoint"),
        axis((0.0, 1.0), BOTTOM, TOP, "energy, last checkpoint"),
    )
    chart = Chart(x, y, "Median energy of an adapter", "")
    chart.lines.append(Line("zero", ((x.at(0), y.at(0)), (x.at(1), y.at(1)))))
    chart.signs.extend(Sign("c0", SIGNS[0], x.at(run["before"]), y.at(run["after"])) for run in runs)
    return sheet("What training does", [f"{len(runs)} runs; on the line nothing changes"], [chart], [])


def defects_table(found: dict[str, tuple[int, int]]) -> str:
    """Return how many files and repositories have which defect."""
    files, repositories = found["all"]
    rows = [f"| of {files} files in {repositories} repositories | files | repositories |", "|---|---|---|"]
    for name, (own, where) in found.items():
        if name != "all":
            rows.append(f"| {name} | {own} ({own / files:.1%}) | {where} ({where / repositories:.1%}) |")
    return "\n".join(rows)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return the median of values with their 5th and 95th percentile."""
    low, middle, high = np.quantile([value for value in values if value == value], (0.05, 0.5, 0.95))
    return f"{middle:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")


def made(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is computed from the numbers: parts of the page by name, and figures by file."""
    modules = population.reference_modules(folder)
    shares = {
        index: population.explained(modules, population.COLUMNS[index]) for index in ("energy", "normalised SSI", "SSI")
    }
    runs = population.training(folder)
    signals = population.signals(folder)
    doubling = population.halvings(modules)
    measured = [module for module in modules if population.measured(module)]
    sharp = np.mean([module["mas_ssi"] > 0.5 for module in measured])
    owners = {module["adapter"] for module in measured}
    with_one = {module["adapter"] for module in measured if module["mas_ssi"] > 0.5}
    bands = population.bands(modules)
    rows = ["| ranks, all roles | adapters / sources | energy | normalised SSI | SSI |", "|---|---|---|---|---|"]
    rows += [
        f"| {name.replace('-', '–')} | {found['adapters']} / {found['sources']} | "
        + " | ".join(_quantiles(*found[index]) for index in population.COLUMNS)
        + " |"
        for name, found in bands.items()
    ]
    factors = [*population.FACTORS, "together", *population.OWNERS]
    head = ["| share of the variance | " + " | ".join(shares) + " |", "|---|" + "---|" * len(shares)]
    explained = head + [
        f"| {_factor(name)} | " + " | ".join(_short(found[name]) for found in shares.values()) + " |"
        for name in factors
    ]
    parts = {
        "bands": "\n".join(rows),
        "ordinary": (
            f"SSI above .5 is ordinary: {sharp:.0%} of the modules have it, and {len(with_one) / len(owners):.0%} of "
            "the adapters have such a module."
        ),
        "variance": "\n".join(explained),
        "doubling": _doubling(doubling),
        "training": (
            f"Of {len(runs)} runs with several checkpoints, from the first to the last (median [5–95 %]): energy "
            f"{spread([run['after'] - run['before'] for run in runs])}, SSI\n{spread([run['ssi'] for run in runs])}, "
            f"‖ΔW‖ × {np.median([run['norm'] for run in runs]):.2f}; the order of the modules by energy correlates by "
            f"{np.nanmedian([run['order'] for run in runs]):.2f} (Spearman)."
        ),
        "signal": (
            f"Of {len(signals['trained'])} trained files that can be told the least has {min(signals['trained']):.3f}, "
            f"and the one random file {signals['random'][0]:.3f}."
        ),
        "left-out": (
            f"Where a source is left out, {population.left_out(modules):.0%} of its modules fall outside the 5th to "
            "95th percentile of the others; were sources alike, it would be 10%."
        ),
        "defects": defects_table(population.defects(folder)),
    }
    ordered = {
        index: {name: found[name] for name in factors} for index, found in shares.items() if index != "normalised SSI"
    }
    figures = {
        "normal-energy.svg": energy_figure(),
        "normal-variance.svg": variance_figure(ordered),
        "normal-training.svg": training_figure(runs),
    }
    return parts, figures


def _doubling(found: dict[str, tuple[float, int]]) -> str:
    told = ", ".join(f"{index} {slope:+.2f}".replace("-", "−") for index, (slope, _) in found.items())
    return (
        "Where one repository has the same module at several ranks, a doubling of the rank adds to log₂ of an index:"
        f"\n{told}\n"
        f"(median over {next(iter(found.values()))[1]} repositories, which is few)."
    )


def page(parts: dict[str, str]) -> str:
    """Return the page with these parts; others stay as they are."""
    text = PAGE.read_text(encoding="utf-8")
    found = {"cells": table(), **parts}
    return PART.sub(lambda part: f"{part[1]}\n{found[part[2]]}\n\n{part[3]}" if part[2] in found else part[0], text)


if __name__ == "__main__":
    computed, drawn = made(Path(sys.argv[1])) if len(sys.argv) > 1 else ({}, {"normal-energy.svg": energy_figure()})
    PAGE.write_text(page(computed), encoding="utf-8")
    for name, content in drawn.items():
        (IMAGES / name).write_text(content, encoding="utf-8")
