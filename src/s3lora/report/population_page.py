"""A population of adapters as one HTML page that stands alone: nothing from elsewhere, fit to be printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from s3lora.errors import printable
from s3lora.fleet.populations.distributions import Distribution
from s3lora.fleet.populations.survey import Survey
from s3lora.fleet.populations.unusual import Ranking
from s3lora.fleet.results.inside import told_inside
from s3lora.measure.against import FAR
from s3lora.report.compare_view import number
from s3lora.report.html import render
from s3lora.report.names import tail
from s3lora.report.population_charts import FRAME, SPREAD, WIDTH, Z_SIZE, needle, ridges, spread, z_end
from s3lora.report.population_view import (
    bin_label,
    chance,
    facts,
    farther,
    group_label,
    is_unusual,
    label,
    ordered,
    percentile_text,
    place_tag,
    rank_one_text,
    unusual_text,
    z_text,
)
from s3lora.report.values import count, percent
from s3lora.spectrum.indices import INDICES

#: Inputs, and adapters of a group of copies, that are named.
INPUTS, COPIES = 12, 3
#: Letters of a module's path.
MODULE = 22


@dataclass(frozen=True, slots=True)
class Own:
    """The report of one adapter: a relative `link` to it, or a `note` why there is none."""

    link: str | None = None
    note: str | None = None


def population_page(survey: Survey, reports: Mapping[str, Own] | None = None) -> str:
    """Return the page of a population; `reports` are those of single adapters, by uri."""
    ranking = survey.unusual
    return render(
        "population.html.jinja",
        styles=("scan.css.jinja", "compare.css.jinja", "population.css.jinja"),
        survey=survey,
        tool=survey.tool,
        census=survey.census,
        lead=_lead(survey),
        facts=list(facts(survey)),
        forms=bool(set(survey.forms) - {"LoRA"}),
        notes=_notes(survey),
        ranking=ranking,
        farthest=None if ranking is None else _farthest(survey, ranking, reports or {}),
        distributions=[_distribution(one) for one in survey.distributions],
        errors=[(kind, [(label(e.uri, survey.inputs), e.reason) for e in kind.examples]) for kind in survey.errors],
        copies=[(one, [label(uri, survey.inputs) for uri in one.first[:COPIES]]) for one in survey.copies],
        made=list(_made(survey)),
        sizes={"frame": FRAME, "spread": SPREAD, "width": WIDTH, "z": Z_SIZE},
        bin=bin_label,
        group=group_label,
        number=number,
        z=z_text,
    )


def _lead(survey: Survey) -> str:
    census = survey.census
    inputs = f"{count(census.inputs)} input{'' if census.inputs == 1 else 's'}"
    method = survey.settings.scan.method
    return f"{inputs}, scored by {method} from the adapters’ files alone: no base model and no data."


def _notes(survey: Survey) -> list[str]:
    census = survey.census
    found = []
    if not survey.complete:
        found.append(
            "The last run of the scan did not come to its end: this is the part that it finished."
            " The same command goes on from there."
        )
    if told := told_inside(survey.inside):
        found.append(f"Not LoRA alone: {told}. They are named by s3lora fleet query --saved not-lora.")
    if left := census.distinct - census.measured:
        one = left == 1
        found.append(f"{count(left)} adapter{' has' if one else 's have'} no module with an index, and no place below.")
    return found


def _farthest(survey: Survey, ranking: Ranking, reports: Mapping[str, Own]) -> dict[str, Any]:
    name = INDICES[ranking.index].title
    tip = "sharpest module" if INDICES[ranking.index].scale_free else "greatest module"
    end = z_end(ranking)
    return {
        "found": unusual_text(ranking),
        "rank_one": rank_one_text(ranking),
        "listed": sum(map(is_unusual, ranking.most)),
        "far": f"{FAR:g}",
        "index": name,
        "tip": tip,
        "end": end,
        "chance": chance(ranking.adapters),
        "spreads": [
            spread(ranking, ranking.spread.sharpest, f"{name} of the {tip}"),
            spread(ranking, ranking.spread.median, f"median {name} of its modules"),
        ],
        "bins": [
            (f"{_bound(low)} to {_bound(high)}", sharpest, median)
            for low, high, sharpest, median in zip(
                (None, *ranking.spread.edges[1:-1]),
                (*ranking.spread.edges[1:-1], None),
                ranking.spread.sharpest,
                ranking.spread.median,
                strict=True,
            )
        ],
        "rows": [
            {
                "one": one,
                "folder": _folder(label(one.uri, survey.inputs), one.name),
                "module": tail(one.module, MODULE),
                "own": reports.get(one.uri, Own()),
                "needle": needle(one, end),
                "percentile": percentile_text(farther(one)),
                "unusual": is_unusual(one),
                "untold": place_tag(one),
            }
            for one in ranking.most
        ],
    }


def _folder(shown: str, name: str) -> str:
    """Return the part of a label that does not repeat the name."""
    return shown.removesuffix(name).rstrip("/")


def _bound(edge: float | None) -> str:
    return "…" if edge is None else f"{edge:.1f}".replace("-", "−")


def _distribution(one: Distribution) -> dict[str, Any]:
    sides = [
        ("base family", "base families", ordered(one.families)),
        ("projection", "projections", ordered(one.projections, by_name=True)),
    ]
    drawn = [(name, names, groups, ridges(one, groups)) for name, names, groups in sides]
    return {"one": one, "label": INDICES[one.index].title, "sides": drawn, "beyond": drawn[0][-1].beyond}


def _made(survey: Survey) -> Iterable[tuple[str, str]]:
    how = survey.settings.scan
    kept = "all components" if how.rank is None else f"{how.rank} components"
    yield "dataset", survey.name
    for one in survey.inputs[:INPUTS]:
        yield "input", label(one, survey.inputs)
    if (more := len(survey.inputs) - INPUTS) > 0:
        yield "", f"and {count(more)} more inputs"
    for reason, number_of in survey.skipped.items():
        yield "skipped", f"{count(number_of)}: {printable(reason, 80)}"
    yield "method", f"{how.method}, {kept}"
    ranking = survey.unusual
    if ranking is not None and ranking.adapters:
        what = "the population itself" if ranking.against == "population" else ranking.reference
        yield "compared with", f"{what}, n = {count(ranking.reference_adapters)} distinct adapters"
        if ranking.coarser:
            share = percent(ranking.coarser / ranking.adapters)
            yield "coarser cells", f"for {count(ranking.coarser)} of {count(ranking.adapters)} adapters ({share})"
        if ranking.alike:
            yield "without a z", f"{count(ranking.alike)}, as half of their cell has one and the same value"
