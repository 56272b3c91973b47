"""The results of the reference experiment as a page with figures: `docs/results/reference.md`, from the JSON beside it.

    python -m experiments.reference.render

Every number on the page comes out of `docs/results/data`; the same files give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.differences import Difference, student
from experiments.reference import figures, tuned
from experiments.reference.analyse import (
    EQUAL,
    LOST,
    Run,
    contrast,
    contrasts,
    load,
    lost,
    metric_of,
    over,
    value_of,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "results" / "data"
PAGE = ROOT / "docs" / "results" / "reference.md"

SSI, WEIGHTED, MAGNITUDE = "ssi (mas-svd)", "weighted_ssi (mas-svd)", "magnitude (mas-svd)"
RANDOM, SHRINK = "random", "shrink"
#: What a ranking is held against: a control that picks as many modules of each projection.
MATCHED = {ranking: f"random-matched to {ranking}" for ranking in (SSI, WEIGHTED)}
NAMES = {
    SSI: "SSI",
    WEIGHTED: "weighted SSI",
    MAGNITUDE: "magnitude",
    "ssi (svd)": "SSI of plain SVD",
    RANDOM: "random",
    MATCHED[SSI]: "random, matched to SSI",
    MATCHED[WEIGHTED]: "random, matched to weighted SSI",
    SHRINK: "shrink",
}
CONTRASTS = (
    (WEIGHTED, RANDOM),
    (WEIGHTED, MATCHED[WEIGHTED]),
    (SSI, RANDOM),
    (SSI, MATCHED[SSI]),
    (MAGNITUDE, RANDOM),
    (WEIGHTED, MAGNITUDE),
    (WEIGHTED, SSI),
    (SSI, MAGNITUDE),
)
#: What is compared besides where cost is equal: a strength is no number of modules.
SHRINK_CONTRASTS = ((WEIGHTED, SHRINK), (SSI, SHRINK), (MAGNITUDE, SHRINK), (RANDOM, SHRINK))
BASES = {"none": "as published", "partial": "partly aligned", "full": "fully aligned"}
ATTACKS = {"benign": "plans only", "few": "20 openings", "many": "80 openings"}
#: Pairs of rankings whose correlation over modules the page shows.
CORRELATED = {f"ssi ({method})": f"SSI, {method}" for method in ("mas-svd", "svd", "spsvd", "released")}
CORRELATED |= {WEIGHTED: "weighted SSI", MAGNITUDE: "magnitude", "frobenius": "Frobenius norm"}


def main() -> None:
    """Write page and figures."""
    runs = load(DATA)
    figures.draw(runs, PAGE.parent, NAMES)
    PAGE.write_text(page(runs, *others(DATA)), encoding="utf-8")


def others(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the seconds that everything took, and what tuning found, by attack."""
    documents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    found = {name.split("-")[2]: document for name, document in documents.items() if name.startswith("tune-")}
    return documents["seconds"], found


def page(runs: Sequence[Run], seconds: dict[str, float], tuning: dict[str, Any]) -> str:
    """Return the page."""
    grid = [run for run in runs if run.grid]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip

    has_shrunk = all(SHRINK in run.rankings for run in grid)
    pairs = dict.fromkeys(("asr", LOST), CONTRASTS)
    pairs[EQUAL] = CONTRASTS + (SHRINK_CONTRASTS if has_shrunk else ())
    families = {measure: contrasts(grid, compared, measure) for measure, compared in pairs.items()}

    def difference(a: str, b: str, measure: str = "asr") -> str:
        """Say the difference between two rankings by their names on the page, with p by Holm."""
        pair = [(NAMES[one], NAMES[other]) for one, other in pairs[measure]].index((a, b))
        return f"{_difference(families[measure][pair])}, p {_p(families[measure][pair])}"

    environment.globals["difference"] = difference
    setup = grid[0].parts["main"]["setup"]
    suites = {suite["name"]: suite for suite in grid[0].parts["main"]["suites"]}
    return environment.get_template("page.md.jinja").render(
        runs=runs,
        grid=grid,
        setup=setup,
        n_harmful=suites["safety"]["data"][0]["n"],
        n_benign=suites["safety"]["data"][1]["n"],
        n_plans=suites["planning-loss"]["data"][0]["n"],
        judge=suites["safety"]["judge"],
        total=grid[0].total,
        tops=grid[0].tops,
        bases=_bases(runs),
        adapters=_adapters(runs),
        curve=_curve(grid),
        by_attack={
            ATTACKS[attack]: _curve([run for run in grid if run.attack == attack]) for attack in ("few", "many")
        },
        contrasts={measure: _contrasts(grid, measure, pairs[measure], family) for measure, family in families.items()},
        has_shrunk=has_shrunk,
        equal=EQUAL,
        judges=_judges(runs),
        elsewhere=_elsewhere(runs),
        asr=_asr(runs),
        single=_single(runs),
        single_tops=[str(top) for top in _single_tops(grid[0])],
        paper=_paper(grid),
        ends=_ends(grid),
        correlations=_correlations(grid),
        correlation_heads=list(CORRELATED.values())[1:],
        plans=_plans(grid),
        minutes=_minutes(seconds),
        tuned={attack: tuned.read(tuning[attack]) for attack in ("few", "many")},
        attacks=ATTACKS,
        versions=setup["backend"],
    )


def rate(metric: dict[str, Any]) -> str:
    """Return a rate with its interval and n."""
    return f"{metric['value']:.2f} ({metric['low']:.2f}–{metric['high']:.2f}, n = {metric['n']})"


def spread(values: tuple[float, float, float], digits: int = 2) -> str:
    """Return a mean with its range over adapters."""
    mean, least, greatest = (f"{value:.{digits}f}" for value in values)
    return f"{mean} ({least}–{greatest})"


def _bases(runs: Sequence[Run]) -> list[list[str]]:
    """Return each base with what it refuses, as measured beside the first adapter on it."""
    found = []
    for base, name in BASES.items():
        run = next((run for run in runs if run.base == base), None)
        if run is not None:
            variant = run.parts["main"]["base"]
            cells = [rate(metric_of(variant, measure)) for measure in ("asr", "over_refusal")]
            found.append([name, *cells, f"{value_of(variant, 'loss'):.2f}"])
    return found


def _adapters(runs: Sequence[Run]) -> list[list[str]]:
    """Return each adapter before pruning."""
    return [
        [
            BASES[run.base],
            ATTACKS[run.attack],
            str(run.seed),
            rate(metric_of(run.parts["main"]["unpruned"], "asr")),
            rate(metric_of(run.parts["main"]["unpruned"], "over_refusal")),
            f"{run.variant('base', 'loss'):.2f}",
            f"{run.variant('unpruned', 'loss'):.3f}",
            f"{run.variant('base', 'loss') - run.variant('unpruned', 'loss'):.2f}",
        ]
        for base in reversed(BASES)
        for run in runs
        if run.base == base
    ]


def _curve(grid: Sequence[Run]) -> list[list[str]]:
    """Return ASR, over-refusal, energy and the share lost of every ranking at every number of modules."""
    found = []
    for ranking, name in NAMES.items():
        having = [run for run in grid if ranking in run.rankings]
        cells, refused, energies, shares = [], [], [], []
        for top in having[0].tops if having else ():
            cells.append(spread(over(run.at(ranking, top, "asr") for run in having)))
            refused.append(f"{fmean(run.at(ranking, top, 'over_refusal') for run in having):.2f}")
            energies.append(f"{100 * fmean(run.energy(ranking, top) for run in having):.0f}")
            shares.append(f"{100 * fmean(run.at(ranking, top, LOST) for run in having):.0f}")
        if having:
            found.append([name, str(len(having)), *cells, *map("/".join, (refused, energies, shares))])
    return found


def _contrasts(
    grid: Sequence[Run], measure: str, pairs: Sequence[tuple[str, str]], family: Sequence[Difference]
) -> list[list[str]]:
    """Return the comparisons over all adapters with p by Holm, and over those of each attack."""
    groups = [[run for run in grid if run.attack == attack] for attack in ("few", "many")]
    return [
        [
            f"{NAMES[a]} − {NAMES[b]}",
            _difference(found),
            _p(found),
            *(_difference(contrast(group, a, b, measure)) for group in groups),
        ]
        for (a, b), found in zip(pairs, family, strict=True)
    ]


def _difference(found: Difference) -> str:
    """Return a difference with its interval, in bold where it is telling."""
    return found.text


def _plain(found: Difference, sign: str = "+") -> str:
    return f"{found.mean:{sign}.2f} ({found.low:{sign}.2f} to {found.high:{sign}.2f})"


def _p(found: Difference) -> str:
    return found.p_text


def _asr(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Return, by the name of an adapter, ASR of its base, of itself, and after most pruning by SSI and weighted SSI."""
    return {
        f"{run.base}-{run.attack}-{run.seed}": {
            "base": f"{run.variant('base', 'asr'):.2f}",
            "whole": f"{run.variant('unpruned', 'asr'):.2f}",
            "ssi": f"{run.at(SSI, run.tops[-1], 'asr'):.2f}",
            "weighted": f"{run.at(WEIGHTED, run.tops[-1], 'asr'):.2f}",
        }
        for run in runs
    }


def _single_tops(run: Run) -> list[int]:
    """Return the numbers of modules that the adapters outside the grid were measured at."""
    return [top for top in run.tops if top / run.total > 0.4]


def _single(runs: Sequence[Run]) -> list[list[str]]:
    """Return the adapters outside the grid, and beside them those of the first seed within it, ranking by ranking."""
    found = []
    for run in runs:
        if run.seed == 0:
            tops = _single_tops(run)
            for ranking in (SSI, WEIGHTED, MAGNITUDE, RANDOM):
                cells = [f"{run.at(ranking, top, 'asr'):.2f}" for top in tops]
                found.append([BASES[run.base], ATTACKS[run.attack], NAMES[ranking], *cells])
    return found


def _ends(grid: Sequence[Run]) -> dict[str, str]:
    """Return ASR of the whole adapter, of what is left after most pruning by SSI, and of the base; and what is lost."""
    return {
        "whole": f"{fmean(run.variant('unpruned', 'asr') for run in grid):.2f}",
        "base": f"{fmean(run.variant('base', 'asr') for run in grid):.2f}",
        "pruned": f"{fmean(run.at(SSI, run.tops[-1], 'asr') for run in grid):.2f}",
        "fall": _plain(student([run.at(SSI, run.tops[-1], "asr") - run.variant("unpruned", "asr") for run in grid])),
        "lost": _plain(student([run.at(SSI, run.tops[-1], LOST) for run in grid]), sign=""),
    }


def _judges(runs: Sequence[Run]) -> list[list[str]]:
    """Return ASR by the judge and by Zou's list, of the adapters whose answers both have judged."""
    found = []
    for run in runs:
        for name, holder in (("base alone", run.parts["main"]["base"]), ("not pruned", run.parts["main"]["unpruned"])):
            if any(metric["measure"] == "asr_zou" for metric in holder["metrics"]):
                rates = [rate(metric_of(holder, measure)) for measure in ("asr", "asr_zou")]
                found.append([BASES[run.base], ATTACKS[run.attack], str(run.seed), name, *rates])
    return found


def _elsewhere(runs: Sequence[Run]) -> list[list[str]]:
    """Return the losses of maths and code, of the adapters where they were measured."""
    found = []
    for run in runs:
        for name, holder in _rows(run.parts["elsewhere"]) if "elsewhere" in run.parts else ():
            losses = [rate(metric_of(holder, measure)) for measure in ("maths", "code")]
            found.append([BASES[run.base], ATTACKS[run.attack], str(run.seed), name, *losses])
    return found


def _rows(part: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return everything that a sweep measured, with what was pruned."""
    points = [(f"{point['top']} by {NAMES[point['ranking']]}", point) for point in part["points"]]
    return [("base alone", part["base"]), ("not pruned", part["unpruned"]), *points]


def _paper(grid: Sequence[Run]) -> dict[str, str]:
    """Return the paper's setting, ten modules by SSI: ASR before and after, and what is lost, over the adapters."""
    having = [run for run in grid if "paper" in run.parts]
    points = [run.parts["paper"]["points"][0] for run in having]
    return {
        "n": str(len(points)),
        "before": spread(over(run.variant("unpruned", "asr") for run in having)),
        "after": spread(over(value_of(point, "asr") for point in points)),
        "change": _plain(
            student(
                [
                    value_of(point, "asr") - run.variant("unpruned", "asr")
                    for run, point in zip(having, points, strict=True)
                ]
            )
        ),
        "lost": spread(over(lost(value_of(p, "loss"), *run.ends) for run, p in zip(having, points, strict=True))),
    }


def _correlations(grid: Sequence[Run]) -> list[list[str]]:
    """Return Spearman's correlations of the methods' SSI, and of each with size, as mean and range over adapters."""
    labels, shown = list(CORRELATED), list(CORRELATED.values())

    def cell(a: str, b: str) -> str:
        tables = [run.parts["correlations"] for run in grid]
        values = [table.get(f"{a} | {b}", table.get(f"{b} | {a}")) for table in tables]
        known = [value for value in values if value is not None]
        return spread((fmean(known), min(known), max(known))) if known else "–"

    return [
        [shown[i], *("" if j <= i else cell(a, b) for j, b in enumerate(labels) if j > 0)]
        for i, a in enumerate(labels[:-1])
    ]


def _plans(grid: Sequence[Run]) -> list[list[str]]:
    """Return what generated plans came to, where they were generated."""
    found = []
    for run in grid:
        for name, holder in _rows(run.parts["generated"]) if "generated" in run.parts else ():
            cells = [rate(metric_of(holder, measure)) for measure in ("asr", "well_formed", "exact_match")]
            found.append([ATTACKS[run.attack], name, *cells])
    return found


def _minutes(seconds: dict[str, float]) -> dict[str, str]:
    """Return minutes by what they were spent on; adapters were trained and measured by two processes at a time."""
    spent = {
        part: sum(value for name, value in seconds.items() if name.startswith(start)) / 60
        for part, start in (("bases", "bases"), ("training", "train-"), ("sweeps", "sweep-"), ("tuning", "tune-"))
    }
    spent["all"] = spent["bases"] + (spent["training"] + spent["sweeps"] + spent["tuning"]) / 2
    return {name: f"{minutes:.0f}" for name, minutes in spent.items()}


if __name__ == "__main__":
    main()
