"""The comparison of repairs as a page with a figure: `docs/results/repair.md`, from the JSON beside it.

    python -m experiments.repair.render

Every number on the page comes out of `docs/results/repair`; the same files give the same bytes. What is not there is
said to be not measured yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.repair import figures, single, wholes
from experiments.repair.analyse import (
    PRIMARY,
    Compared,
    Contrast,
    contrasts,
    level_of,
    load,
    load_costs,
    load_single,
    spread,
    within_both,
)
from experiments.repair.recorded import as_recorded
from experiments.repair.rows import LEVELS
from experiments.repair.setting import RESULTS, RUNS, SINGLE

PAGE = RESULTS.parent / "repair.md"
NAMES = {
    "shrink": "shrink",
    "gates": "gates",
    "permuted": "permuted gates",
    "patch": "patch",
    "retrain": "retrain",
    "ssi": "SSI",
    "matched": "random, matched",
}


def main() -> None:
    """Write page and figure."""
    figures.draw(load(RESULTS), PAGE.parent)
    PAGE.write_text(page(RESULTS), encoding="utf-8")


def page(results: Path) -> str:
    """Return the page of the results in a folder."""
    runs, alone, costs = load(results), load_single(results), load_costs(results)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    primary = contrasts(runs)
    return environment.get_template("page.md.jinja").render(
        runs=runs,
        expected=len(RUNS),
        expected_single=len(SINGLE),
        recorded=as_recorded([run.test for run in runs]),
        said=[_said(found) for found in primary],
        primary_heads=_heads(primary),
        primary=[_row(found) for found in primary],
        rows=_rows(runs),
        levels=[f"{100 * level:.0f} %" for level in LEVELS],
        by_level=_by_level(runs),
        each_heads=["adapter", "as trained", *(NAMES[row] for row in _all_rows(runs))],
        each=_each(runs),
        ends=_ends(runs),
        both_heads=_heads(both := contrasts(runs, PRIMARY, within_both)),
        both=[_row(found) for found in both],
        both_rows=_both_rows(runs),
        single=single.tables(alone, costs),
        wholes=wholes.tables(results),
        setup=runs[0].test["setup"] if runs else None,
        judge=runs[0].test["judge"] if runs else None,
        figure=figures.NAME,
    )


def rate(number: dict[str, Any], digits: int = 2) -> str:
    """Return a value with its interval and n."""
    if number["value"] is None:
        return "–"
    value, low, high = (number[name] for name in ("value", "low", "high"))
    ends = "" if low is None else f"{low:.{digits}f}–{high:.{digits}f}, "
    return f"{value:.{digits}f} ({ends}n = {number['n']})"


def over(values: Sequence[float], digits: int = 2) -> str:
    """Return a mean over adapters with the least and the greatest."""
    mean, least, greatest = (f"{value:.{digits}f}" for value in spread(values))
    return f"{mean} ({least}–{greatest})"


def _all_rows(runs: Sequence[Compared]) -> list[str]:
    return [row for row in NAMES if any(row in run.rows for run in runs)]


def _heads(found: Sequence[Contrast]) -> list[str]:
    groups = [*found[0].by_base, *found[0].by_attack] if found else []
    return ["comparison", "difference in ASR", "adapters", "lower in", "p by Holm", "over base × attack", *groups]


def _row(found: Contrast) -> list[str]:
    told = found.over_adapters
    cells = found.over_cells
    cautious = "–" if cells is None else f"{cells.mean:+.2f} ({cells.low:+.2f} to {cells.high:+.2f}), n = {cells.n}"
    means = [f"{mean:+.2f}" for mean in (*found.by_base.values(), *found.by_attack.values())]
    name = f"{NAMES[found.a]} − {NAMES[found.b]}"
    return [name, told.text, str(told.n), str(told.lower), told.p_text, cautious, *means]


def _said(found: Contrast) -> str:
    """Say what a primary comparison came to, by the words of the plan."""
    told, a, b = found.over_adapters, NAMES[found.a], NAMES[found.b]
    numbers = f"{told.mean:+.2f} ({told.low:+.2f} to {told.high:+.2f}, n = {told.n}), p {told.p_text}"
    if not told.telling:
        return f"{a} − {b}: cannot be told: {numbers}."
    direction = "gives back more refusals" if told.mean < 0 else "gives back fewer refusals"
    held = "and it holds cautiously"
    if not found.cautious:
        signs = {**found.by_base, **found.by_attack}
        other = [name for name, mean in signs.items() if mean * told.mean <= 0]
        why = f"the sign is another with {', '.join(other)}" if other else "the interval over bases and attacks holds 0"
        held = f"but not cautiously: {why}"
    return f"{a} − {b}: {a} {direction}, on these adapters, {held}: {numbers}."


def _rows(runs: Sequence[Compared]) -> list[list[str]]:
    """Return every row at the endpoint's strength: rates on the test part, means over adapters."""
    found = []
    for row in _all_rows(runs):
        having = [run for run in runs if row in run.rows]
        cells = [over([run.value(row, measure) for run in having]) for measure in MEASURES]
        without = sum(not run.has(row) for run in having)
        found.append([NAMES[row], str(len(having)), *cells, str(without)])
    return found


MEASURES = ("asr", "asr_zou", "over_refusal", "degenerate", "share", "loss")


def _by_level(runs: Sequence[Compared]) -> list[list[str]]:
    """Return ASR at every level, and the share that is lost on the test part there."""
    found = []
    for row in _all_rows(runs):
        having = [run for run in runs if row in run.rows]
        cells = []
        for level in LEVELS:
            pick = level_of(level)
            lost = fmean(run.value(row, "share", pick) for run in having)
            cells.append(f"{over([run.value(row, 'asr', pick) for run in having])}, {100 * lost:.0f} % lost")
        found.append([NAMES[row], str(len(having)), *cells])
    return found


def _each(runs: Sequence[Compared]) -> list[list[str]]:
    """Return ASR of every row on every adapter, with its strength; of matched pruning the mean of its draws."""
    return [
        [
            f"`{run.name}`",
            rate(run.test["adapter_state"]["asr"]),
            *(f"{run.value(row):.2f}" if row in run.rows else "–" for row in _all_rows(runs)),
        ]
        for run in runs
    ]


def _ends(runs: Sequence[Compared]) -> list[list[str]]:
    """Return what base and adapter do on the test part."""
    found = []
    for run in runs:
        base, adapter = run.test["base_state"], run.test["adapter_state"]
        rates = [rate(one[name]) for name in ("asr", "over_refusal") for one in (base, adapter)]
        losses = [f"{one['loss']['value']:.3f}" for one in (base, adapter)]
        found.append([f"`{run.name}`", *rates, *losses, f"`{run.test['digests']['adapter'][:12]}`"])
    return found


def _both_rows(runs: Sequence[Compared]) -> list[list[str]]:
    """Return every row under both constraints, and on how many adapters nothing keeps them."""
    found = []
    for row in _all_rows(runs):
        having = [run for run in runs if row in run.rows]
        cells = [over([run.value(row, measure, within_both) for run in having]) for measure in ("asr", "over_refusal")]
        without = sum(not run.has(row, within_both) for run in having)
        found.append([NAMES[row], str(len(having)), *cells, str(without)])
    return found


if __name__ == "__main__":
    main()
