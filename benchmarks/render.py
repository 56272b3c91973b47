"""`results.json` → `docs/benchmarks.md` and the plot of growth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import million
from s3lora.report.axes import Axis, axis
from s3lora.report.chart import Chart, Sign, look
from s3lora.report.chart import Path as Line
from s3lora.report.sheet import sheet

NAMES = {
    "8b": "8B: 224 modules, r 16, bf16",
    "1b": "1B: 112 modules, r 16, fp32",
    "70b": "70B: 560 modules, r 64, bf16",
}


def write(results: dict[str, Any], docs: Path) -> None:
    """Write the page; parts that were not measured are left out."""
    m = results["machine"]
    lines = [
        "# Speed and memory",
        "",
        f"Measured on {m['date']}, {m['cpu']}, {m['cores']} cores, Python {m['python']}, NumPy {m['numpy']}, by",
        "`python benchmarks/run.py`. Runs alternate; figures are medians, ratios are medians of paired ratios. CPU is",
        "user and system time of all threads of the whole process, start of the interpreter included.",
        "",
    ]
    if "scan" in results:
        lines += _scan([*results["scan"], *([results["large"]] if "large" in results else [])])
    if "compared" in results:
        lines += _compared(results["compared"])
    if "module" in results:
        lines += _module(results["module"])
    if "prune" in results:
        lines += _prune(results["prune"])
    if "imports" in results:
        parts = results["imports"]
        lines += [
            "## Import",
            "",
            "CPU of a fresh interpreter. Names are imported when they are first used; none needs torch.",
            "",
            "| statement | seconds |",
            "|---|---|",
            f"| none | {parts['nothing']:.3f} |",
            f"| `import s3lora` | {parts['s3lora']:.3f} |",
            f"| `import numpy` | {parts['numpy']:.3f} |",
            f"| `from s3lora import *`, NumPy included | {parts['all']:.3f} |",
            "",
        ]
    if "growth" in results:
        lines += _growth(results["growth"], docs)
    if "cost" in results:
        lines += _estimates(results["cost"])
    if "page" in results:
        lines += _page(results["page"])
    if "first" in results:
        lines += _first(results["first"])
    if "types" in results:
        lines += _types(results["types"])
    if "step" in results:
        lines += _step(results["step"])
    if "look" in results:
        lines += _look(results["look"])
    if "sweep" in results:
        lines += _sweep(results["sweep"])
    if "fleet" in results:
        lines += million.render("fleet.md.jinja", **results["fleet"]).splitlines()
        (docs / "million.md").write_text(million.page(results["fleet"]))
    (docs / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n")


def _scan(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Scan",
        "",
        "`s3lora scan --format json`, the whole process, against `benchmarks/floor.py`, a minimal single-threaded",
        "script that only reads the file and takes singular values through float64 Gram matrices. The scan computes",
        "four Gram matrices a module instead of two, all indices, the plan, and the SHA-256 of the file. *Plain* is",
        "the script as anyone would write it first; *tuned* is the same in mapped blocks of 1,024 rows.",
        "",
        "| adapter | file | plain floor, CPU / wall | tuned floor | scan | CPU, × plain | wall, × plain "
        "| CPU, × tuned | scan, peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [f"{row[key]['cpu']:.2f} / {row[key]['wall']:.2f} s" for key in ("floor", "tuned", "scan")]
        ratios = [f"{row[key]:.2f}" for key in ("cpu_ratio", "wall_ratio", "cpu_ratio_tuned")]
        cells = [NAMES[row["shape"]], f"{row['megabytes']:,.0f} MB", *times, *ratios]
        lines.append(f"| {' | '.join(cells)} | {row['scan']['peak_mb']:.0f} MB |")
    return [*lines, ""]


def _compared(part: dict[str, Any]) -> list[str]:
    """Return the table of what was slow before modules were measured in batches, in one pass."""
    names = {
        "experts": "36,864 modules of 64 × 48, r 16, bf16, 143 MB; JSON",
        "8b": "8B shape, JSON",
        "8b page": "8B shape, page",
        "r512": "28 modules of 4096 × 4096, r 512, bf16; JSON",
    }
    lines = [
        "## In batches, in one pass",
        "",
        "Modules of one shape are measured together, every byte is read and hashed once, and every Gram matrix is made",
        "once, whatever the format shows. CPU seconds of the whole process, before (commit a678dc3) and now, in paired",
        "runs; in brackets their ratio to the plain and to the tuned floor. Float64 throughout.",
        "",
        "| work | plain floor | before | now | peak memory, before → now |",
        "|---|---|---|---|---|",
    ]
    for key, name in names.items():
        row = part[key]
        sides = [
            f"{row[side]['cpu']:.2f} s ({row[f'{side} × floor']:.2f} ×, {row[f'{side} × tuned']:.2f} ×)"
            for side in ("before", "now")
        ]
        peaks = " → ".join(f"{row[side]['peak_mb']:.0f}" for side in ("before", "now"))
        lines.append(f"| {name} | {row['floor']['cpu']:.2f} s | {' | '.join(sides)} | {peaks} MB |")
    help_ = part["help"]
    lines.append(f"| `s3lora --help` | | {help_['before']['cpu']:.2f} s | {help_['now']['cpu']:.2f} s | |")
    page = part["8b page"]["now"]["cpu"] / part["8b"]["now"]["cpu"]
    return [
        *lines,
        "",
        f"The page of the 8B shape takes {page:.2f} × its JSON. At r 512 the arithmetic decides: the scan makes four",
        "Gram matrices and two products for each module where the floor makes two Gram matrices.",
        "",
    ]


def _module(part: dict[str, Any]) -> list[str]:
    return [
        "## One module, 4096 × 4096, r 8",
        "",
        "| | seconds | factored MAS-SVD is faster by |",
        "|---|---|---|",
        f"| MAS-SVD from the factors, one thread | {part['mas_svd_seconds']:.6f} | |",
        f"| MAS-SVD on the dense ΔW | {part['dense_mas_svd_seconds']:.1f} | {part['times_faster_than_dense']:,.0f} × |",
        f"| `released` | {part['released_seconds']:.1f} | {part['times_faster_than_released']:,.0f} × |",
        "",
        f"Largest relative difference of σ̃ to the dense result: {part['largest_relative_difference_to_dense']:.1e}.",
        "",
    ]


def _prune(part: dict[str, Any]) -> list[str]:
    return [
        "## Prune, 70B shape",
        "",
        "`s3lora prune` scans, writes, flushes to disk, and compares what it wrote with the source bit by bit.",
        "",
        "| | wall | CPU | peak memory |",
        "|---|---|---|---|",
        *(
            f"| {name} | {part[key]['wall']:.2f} s | {part[key]['cpu']:.2f} s | {part[key]['peak_mb']:.0f} MB |"
            for key, name in (("copy", "copying the file"), ("scan", "scan"), ("prune", "prune"))
        ),
        "",
        f"Prune takes {part['wall_ratio']:.2f} × the wall time of copying and scanning together.",
        "",
    ]


def _growth(part: dict[str, Any], docs: Path) -> list[str]:
    charts = [_growth_chart(name, part[name]) for name in ("modules", "m + n", "rank")]
    (docs / "images").mkdir(exist_ok=True)
    about = ["both axes logarithmic; the exponents are fitted"]
    (docs / "images" / "growth.svg").write_text(sheet("Time of a scan", about, charts, []), encoding="utf-8")
    exponents = ", ".join(f"{values['exponent']:.2f} in {name}" for name, values in part.items())
    return [
        "## Growth",
        "",
        f"Fitted exponents over a decade each: {exponents}.",
        "The method is linear in modules and in m + n, and quadratic in the rank at most; what a module costs however",
        "small it is keeps the last two below that.",
        "",
        "![Time of a scan against modules, m + n and rank](images/growth.svg)",
        "",
    ]


def _estimates(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "## What a command may cost",
        "",
        "Before anything is measured, the operations are estimated from shapes, ranks and options alone:",
        "`src/s3lora/measure/cost.py` has the formula. One operation is a multiply–add in float64, and 5e9 of them "
        "count",
        "as a second of one core. What would take more than `--max-cost`, by default 3e12 or ten minutes, ends with",
        "status 2 and the number to pass. The estimate does not know the values, so it has to reckon with those that "
        "cost",
        "most: factors whose rank is deficient, and moments that cancel. CPU seconds of one thread, single runs:",
        "",
        "| work | operations | estimate | took | took, × estimate |",
        "|---|---|---|---|---|",
        *(
            f"| {row['work']} | {row['operations']:.1e} | {row['estimate']:.2f} s | {row['cpu']:.2f} s | "
            f"{row['cpu'] / row['estimate']:.2f} |"
            for row in rows
        ),
        "",
    ]


def _growth_chart(name: str, values: dict[str, Any]) -> Chart:
    """Return time against size on logarithmic axes, with a tick at each size and at the ends of the times."""
    sizes, times = values["x"], [1e3 * seconds for seconds in values["seconds"]]
    x = _logarithmic(sizes, 46.0, 290.0, name, [f"{size:,}" for size in sizes[:-1]])
    y = _logarithmic([times[0], times[-1]], 190.0, 12.0, "ms", [f"{time:.2g}" for time in (times[0], times[-1])])
    spots = tuple((x.at(math.log10(a)), y.at(math.log10(b))) for a, b in zip(sizes, times, strict=True))
    chart = Chart(x, y, f"exponent {values['exponent']:.2f} in {name}", "", width=300.0, height=236.0)
    css, shape = look(0)
    chart.lines.append(Line(css, spots))
    chart.signs.extend(Sign(css, shape, *spot) for spot in spots)
    return chart


def _logarithmic(values: list[float], start: float, end: float, label: str, ticks: list[str]) -> Axis:
    bare = axis((math.log10(values[0]), math.log10(values[-1])), start, end, label)
    places = (bare.at(math.log10(value)) for value in values)
    return replace(bare, ticks=tuple(zip(places, ticks, strict=False)))


def _page(part: dict[str, Any]) -> list[str]:
    machine = part["machine"]
    return [
        "## The page of many modules",
        "",
        f"`scan --format html` of {part['rows'][0]['modules']:,} modules of 64 × 48, bfloat16: 48 layers, 256 experts.",
        "The page has every index of every module, by three methods. CPU seconds are of the whole process; the",
        "browser is Chromium, from the start of loading to the mark that the script sets at its end, the median of",
        "three. Other work ran meanwhile. Run once, by",
        f"`python benchmarks/run.py --only page`, on {machine['date']}, {machine['cpu']}, {machine['cores']} cores.",
        "",
        "| rank | bytes | page, CPU | JSON, CPU | until it can be used | another index | nodes |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['rank']} | {row['bytes']:,} | {row['html_cpu_seconds']:.1f} s | {row['json_cpu_seconds']:.1f} s"
            f" | {row['interactive_ms']:,} ms | {row['another_index_ms']:,} ms | {row['nodes']:,} |"
            for row in part["rows"]
        ),
        "",
    ]


def _first(part: dict[str, Any]) -> list[str]:
    machine = part["machine"]
    return [
        "## The first token",
        "",
        "From the start of `s3lora eval` of the demo adapter, two prompts of each kind, to the first token of an",
        "answer; beside it a process that loads the same model by `LocalModel`, and nothing else. Other work may have",
        "run meanwhile: go by the ratios, which are of pairs. By",
        f"`python benchmarks/run.py --only first`, on {machine['date']}, {machine['cpu']}, {machine['cores']} cores.",
        "",
        "| SmolLM2-135M-Instruct | runs | loading, wall / CPU | first token | wall, × loading | CPU, × loading |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['base']} | {row['repeats']} | {_times(row['load'])} | {_times(row['first'])} |"
            f" {row['wall_ratio']:.2f} | {row['cpu_ratio']:.2f} |"
            for row in part["rows"]
        ),
        "",
    ]


def _types(part: dict[str, Any]) -> list[str]:
    machine, flags = part["machine"], part["flags"]
    return [
        "## The type of the base on a processor",
        "",
        "CPU seconds of the same work by `LocalModel`, SmolLM2-135M-Instruct with the demo adapter, medians of",
        f"{part['repeats']} pairs; the ratio is the median of theirs. This processor "
        + (f"multiplies in bfloat16 ({', '.join(flags)})." if flags else "does not multiply in bfloat16."),
        "By `python benchmarks/run.py --only types`, on",
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores.",
        "",
        "| | float32 | bfloat16 | ratio |",
        "|---|---|---|---|",
        *(
            f"| {what} | {part[work]['float32']:.1f} s | {part[work]['bfloat16']:.1f} s | {part[work]['ratio']:.2f} |"
            for work, what in (
                ("answers", f"{part['prompts']} answers of {part['tokens']} tokens"),
                ("losses", f"the losses of {part['plans']} plans"),
            )
        ),
        "",
    ]


def _look(part: dict[str, Any]) -> list[str]:
    machine = part["machine"]
    return [
        "## A look in training",
        "",
        f"CPU seconds on the small model, LoRA of rank 8 at {part['modules']} modules, medians of {part['repeats']}:",
        "",
        "| | seconds |",
        "|---|---|",
        f"| a step of training, {part['rows']} rows of {part['tokens'] // part['rows']} tokens | {part['step']:.2f} |",
        f"| a look at all modules | {part['look']:.3f} |",
        f"| a look at {part['prompts']} refusals | {part['refusals']:.2f} |",
        f"| the penalty, forward and backward | {part['penalty']:.3f} |",
        f"| the anchor on 4 refusals, forward and backward | {part['anchor']:.2f} |",
        "",
        f"With a look every {part['every']} steps, looks at the modules take {100 * part['share']:.3f} % of the steps.",
        f"By `python benchmarks/run.py --only look`, on {machine['date']}, {machine['cpu']}, {machine['cores']} cores.",
        "",
    ]


def _step(part: dict[str, Any]) -> list[str]:
    machine = part["machine"]
    return [
        "## A step of a repair",
        "",
        f"CPU seconds of one step on one batch of {part['rows']} answers, {part['tokens']} tokens with their prompts:",
        f"learning gates took {part['gates']:.2f}, training the same LoRA by plain autograd {part['lora']:.2f}; the",
        f"median of {part['repeats']} paired ratios is {part['ratio']:.2f}.",
        f"By `python benchmarks/run.py --only step`, on {machine['date']}, {machine['cpu']}, {machine['cores']} cores.",
        "",
    ]


def _times(cost: dict[str, float]) -> str:
    return f"{cost['wall']:.1f} / {cost['cpu']:.1f} s"


def _sweep(part: dict[str, Any]) -> list[str]:
    (harmful, short), (benign, _), (plans, long) = part["harmful"], part["benign"], part["plans"]
    switch, machine = part["switch_milliseconds"], part["machine"]
    return [
        "## Sweep on a model",
        "",
        f"`sweep` of the demo adapter on SmolLM2-135M-Instruct in float32: {part['points']} numbers of modules ×",
        f"{part['methods']} methods; at each, {harmful} harmful and {benign} harmless prompts of at most {short}",
        f"tokens, and {plans} plans of at most {long}. Run once, by `python benchmarks/run.py --only sweep`, on",
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores.",
        "",
        "| | |",
        "|---|---|",
        f"| loading the model | {part['loading_seconds']:.1f} s |",
        f"| the sweep | {part['seconds'] / 60:.1f} minutes |",
        f"| of which in `model.generate` | {100 * part['generate_share']:.1f} % |",
        f"| tokens a second in `model.generate`, padding of rows that have ended included |"
        f" {part['tokens'] / part['generate_seconds']:.0f} |",
        f"| the same sweep again, from the store | {part['repeated_seconds']:.1f} s |",
        f"| switching a pruning in place, median | {switch['median']:.2f} ms |",
        f"| longest of {part['switches']} | {switch['longest']:.2f} ms |",
        "",
        "## What pruning saves at inference",
        "",
        "The same model answers 8 prompts with exactly 32 tokens each; the four states take turns within a round, so",
        "that a busy machine slows all alike. Ratios are to the whole adapter, with a 95 % interval over the rounds.",
        "",
        "| | mode | seconds a sample | ratio | 95 % interval |",
        "|---|---|---|---|---|",
        *(_cost(row) for rows in part["costs"].values() for row in rows),
        "",
    ]


def _cost(row: dict[str, Any]) -> str:
    ratio = "1" if row["ratio"] is None else f"{row['ratio']:.3f}"
    interval = "" if row["ratio"] is None else f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}"
    return f"| {row['name']} | {row['mode']} | {row['seconds_per_sample']:.3f} | {ratio} | {interval} |"
