"""What a fleet's dataset holds, as text for people."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.fleet.results.inside import UNSEEN, told_inside
from s3lora.fleet.results.summary import Summary


def fleet_text(summary: Summary, folder: str, errors: Sequence[tuple[str, str]]) -> RenderableType:
    """Return the counts of a dataset, its first errors as (uri, reason), and what to do next."""
    counts = summary.counts
    head = Text.assemble(
        (printable(folder, 60), "bold"),
        f"  {_many(counts.adapters, 'adapter')}, {_many(counts.modules, 'module')}",
    )
    body: list[RenderableType] = [_facts(summary)]
    if errors:
        body += [Text(), _errors(errors, counts.failed)]
    if counts.adapters:
        quoted = shlex.quote(printable(folder, 200))
        body += [Text(), Text(f"next  s3lora fleet report {quoted} -o population.html", "dim")]
    return Group(head, *body)


def _facts(summary: Summary) -> Table:
    counts = summary.counts
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    if counts.duplicates:
        table.add_row("duplicates", f"{counts.duplicates:,} with the factors of another adapter")
    if told := told_inside(counts.inside):
        table.add_row("not LoRA", f"{told}: fleet query --saved not-lora")
    if unseen := counts.inside.get(UNSEEN):
        table.add_row("not seen", f"what lies beside {_many(unseen, 'adapter')}")
    if counts.errors:
        kinds = ", ".join(f"{printable(kind, 40)} {number:,}" for kind, number in counts.errors.items())
        table.add_row("errors", f"{counts.failed:,}: {kinds}")
    if counts.skipped:
        reasons = ", ".join(f"{printable(reason, 60)} {number:,}" for reason, number in counts.skipped.items())
        table.add_row("skipped", reasons)
    if not summary.complete:
        table.add_row("note", "the last run did not come to its end")
    return table


def _errors(errors: Sequence[tuple[str, str]], count: int) -> Group:
    lines = []
    for uri, reason in errors:
        # The reason of an input that names nothing begins with it.
        what = reason.removeprefix(uri).removeprefix(":").strip()
        lines.append(Text.assemble(("× ", "red"), (printable(uri), "bold"), f"  {printable(what, 300)}"))
    if count > len(errors):
        lines.append(Text(f"… and {count - len(errors):,} more: SELECT uri, reason FROM errors", "dim"))
    return Group(*lines)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
