"""A repair as one HTML page that stands alone: the verdict, before and after, what all trials traded, where it lay."""

from __future__ import annotations

import re

from s3lora.repair.results import Repair
from s3lora.report.evaluation_text import items as counted
from s3lora.report.html import environment_of_pages, render
from s3lora.report.notes import names_in, once
from s3lora.report.repair_charts import before_and_after, maps, trade_off, trade_off_legend
from s3lora.report.repair_view import (
    answered,
    by_loss,
    carries,
    completeness_text,
    directions,
    estimate,
    evidence,
    gates_text,
    in_order,
    is_chosen,
    limit,
    lost,
    measured_keys,
    metric_of,
    next_steps,
    settings_text,
    signed_percent,
    states,
    trial_name,
    would_confirm,
)
from s3lora.report.values import few, measure_of

#: Warnings that are shown above the numbers, modules that are named, and directions in the table.
NOTES, MODULES, DIRECTIONS = 12, 5, 20


def repair_page(repair: Repair, command: str | None = None) -> str:
    """Return the page of a repair; `command`, as one types it and without private paths, is shown to run it again."""
    environment_of_pages().filters.update(items=counted)
    notes = once([*few(repair.suites), *repair.warnings], names_in(repair))
    found = directions(repair)
    attribution = repair.attribution
    return render(
        "repair.html.jinja",
        styles=("repair.css.jinja",),
        repair=repair,
        tool=repair.tool,
        command=command,
        verdict=re.split(r"(?<=[.:;]) ", repair.sentence),  # each part is short enough to be shown whole
        notes=(notes[:NOTES], notes[NOTES:]),
        settings=settings_text(repair),
        states=states(repair),
        keys=[(key, measure_of(repair.suites, key)) for key in _keys(repair)],
        lost=lambda variant: lost(repair, variant),
        metric_of=metric_of,
        before=before_and_after(repair),
        constraints=[(one, estimate(one), limit(one), would_confirm(one)) for one in repair.constraints],
        traded=trade_off(repair),
        legend=trade_off_legend(repair),
        trials=[(one, trial_name(one), is_chosen(repair, one)) for one in in_order(repair)],
        maps=maps(repair),
        told=[carries(module) for module in by_loss(repair)[:MODULES]],
        gates=gates_text(found),
        directions=found[:DIRECTIONS],
        more=max(0, len(found) - DIRECTIONS),
        modules=by_loss(repair),
        unplaced=sum(module.layer is None for module in by_loss(repair)),
        complete=[(one, completeness_text(one)) for one in (attribution.completeness if attribution else ())],
        share=signed_percent,
        card=[(one, answered(one), evidence(one)) for one in repair.card],
        steps=next_steps(repair),
    )


def _keys(repair: Repair) -> list[tuple[str, str]]:
    """Return the measures of the table before and after: the rates, and the loss that usefulness is told by."""
    utility = repair.utility
    known = utility is not None and any(metric_of(one, utility) is not None for _, one in states(repair))
    return [*measured_keys(repair), *([utility] if utility is not None and known else [])]
