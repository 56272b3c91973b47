"""A repair for people on a terminal: the verdict, before and after, what went, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.evaluate.results import Key
from s3lora.repair.results import Repair
from s3lora.report.blocks import BULLET, Fitted, labelled, section, shell_text, title, warned
from s3lora.report.names import head, tail
from s3lora.report.notes import names_in, once
from s3lora.report.repair_view import (
    answered,
    by_loss,
    carries,
    completeness_text,
    directions,
    estimate,
    gates_text,
    items,
    limit,
    lost_items,
    lost_text,
    measured_keys,
    metric_of,
    module_name,
    next_steps,
    rate_name,
    settings_text,
    states,
    would_confirm,
)
from s3lora.report.values import few, metric_text, percent

#: Modules that are named; the page and the JSON have all.
MODULES = 3
#: Rates that are shown; the limit on degenerate answers goes by those to harmful and to harmless prompts together.
RATES = 3
#: The longest question of the card.
QUESTION = 25
#: The longest verdict or command that is shown whole.
VERDICT = 1200
#: What stands before a command.
NEXT = "next  "
#: From so many columns on, numbers are written with the zero before their point.
WIDE = 110
LEGEND = "[ ] 95 % intervals · ↓ lower is better · learned, lost: adapter 0 %, base 100 %"


def repair_text(
    repair: Repair, out: str | None = None, path: str | None = None, base: str | None = None
) -> RenderableType:
    """Return the report of `s3lora repair`; it fits the width it is printed at, from 80 columns on.

    `out` is the folder that was written, `path` the adapter and `base` its model, as one types them.
    """
    parts: list[RenderableType] = [Text(printable(repair.sentence, VERDICT), "bold")]
    parts.append(title(repair.source.name, _about(repair), repair.setup))
    parts += _before_and_after(repair)
    parts += labelled(_measured(repair))
    parts += _constraints(repair)
    parts += section("what was lost, and what was learned, by module", *_attribution(repair))
    parts += section("acceptance card", *labelled(_card(repair), most=QUESTION))
    parts += [Text(), *_next(next_steps(repair, out, path, base))]
    notes = [*few(repair.suites), *repair.warnings, *(note for suite in repair.suites for note in suite.notes)]
    return Group(*parts, *warned(once(notes, names_in(repair))))


def _about(repair: Repair) -> str:
    """Return what was done to the adapter, in a few words."""
    if not repair.method:
        return "not repaired"
    settings = settings_text(repair)
    done = f"{tail(repair.method, 20)}{f' ({head(settings, 40)})' * bool(settings)} at strength {repair.strength:.3g}"
    if repair.rank_after != repair.rank_before:
        done += f", rank {repair.rank_before} → {repair.rank_after}"
    if repair.lost_energy is not None:
        done += f", {percent(repair.lost_energy)} of its energy lost to keep the rank"
    return done


def _before_and_after(repair: Repair) -> list[RenderableType]:
    keys = measured_keys(repair)[:RATES]
    if not keys:
        return []
    where = "the test part, which nothing was chosen on" if repair.measured_on == "test" else "the tuning part"
    table = Fitted(lambda width: _states(repair, keys, width))
    return [*section(f"before and after, on {where}", table), Text(LEGEND, "dim")]


def _states(repair: Repair, keys: Sequence[Key], width: int) -> Table:
    short = width < WIDE
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("")
    shown = states(repair)
    for name, _ in shown:
        table.add_column(name, no_wrap=True, style="bold" if name == "repaired" else "")
    table.add_column("n", justify="right", no_wrap=True)
    for key in keys:
        cells = [metric_text(metric_of(variant, key), short=short) for _, variant in shown]
        table.add_row(tail(rate_name(repair, key), 22), *cells, items(repair, key))
    if repair.utility is not None:
        cells = [lost_text(repair, variant) for _, variant in shown]
        cells = [cell.replace(" %", "%").replace(", ", ",") for cell in cells] if short else cells
        table.add_row("learned, lost", *cells, lost_items(repair))
    return table


def _measured(repair: Repair) -> list[tuple[str, str]]:
    rows = [("judge", suite.judge) for suite in repair.suites if suite.judge and suite.name == repair.safety[0]]
    told = [f"{one.part} {' + '.join(str(data.n) for data in one.data)}" for one in repair.parts if one.data]
    return [*rows, ("prompts", ", ".join(told))] if told else rows


def _constraints(repair: Repair) -> list[RenderableType]:
    if not repair.constraints:
        return []
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("limit on", "verdict", "estimate"):
        table.add_column(name, no_wrap=True)
    for name in ("limit", "n", "would confirm"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in repair.constraints:
        style = {"confirmed": "bold", "not refuted": "", "refuted": "yellow"}[one.verdict]
        verdict = Text(one.verdict, style)
        table.add_row(one.name, verdict, estimate(one), limit(one), str(one.n), would_confirm(one))
    return [Text(), table]


def _attribution(repair: Repair) -> list[RenderableType]:
    if repair.attribution is None:
        return []
    rows = [carries(module) for module in by_loss(repair)[:MODULES]]
    found = directions(repair)
    if gates := gates_text(found):
        first = found[0]
        rows.append(f"{gates}; first direction {first.position} of {module_name(first.module)}")
    told = (completeness_text(one) for one in repair.attribution.completeness)
    rows += [f"sums: {'; '.join(told)}"] if repair.attribution.completeness else []
    return labelled([(BULLET, row) for row in rows])


def _card(repair: Repair) -> list[tuple[str, str]]:
    """Return the questions with their answers; what the table of limits tells stands there."""
    told = {one.sentence: one.name for one in repair.constraints}
    rows: list[tuple[str, str]] = []
    for answer in repair.card:
        why = f", as {told[answer.sentence]} above" if answer.sentence in told else f": {answer.sentence}"
        rows.append((answer.question, answered(answer) + why * answer.asked))
    return rows


def _next(steps: Sequence[tuple[str, str]]) -> list[RenderableType]:
    return [
        *(Fitted(partial(_command, command)) for command, _ in steps if command),
        *labelled([("next", why) for command, why in steps if not command]),
    ]


def _command(command: str, width: int) -> Text:
    """Return a command to be copied, the lines after the first below its beginning."""
    made = shell_text(command, width, len(NEXT))
    return Text.assemble((NEXT, "dim"), made[len(NEXT) :], no_wrap=True, overflow="ignore")
