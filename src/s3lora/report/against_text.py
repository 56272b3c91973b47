"""Where an adapter stands in a reference population, as text for people."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.measure.against import Against
from s3lora.report.against_view import interval, remarks, robust_z, rows_of, verdict


def against_text(against: Against, index: str, number: Callable[[float | None], str]) -> RenderableType:
    """Return the adapter's own marks by an index, the verdict on them, and what was compared with what.

    `number` writes a value as the rest of the report does.
    """
    head = Text.assemble(
        "against the reference ",
        (printable(against.reference, 60), "bold"),
        (f"  {against.adapters:,} adapters, {against.modules:,} modules", "dim"),
    )
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column(index, no_wrap=True)
    for name in ("value", "percentile", "z"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows_of(against, index):
        style = "bold" if row.reading.startswith("unusually") else ""
        numbers = (number(row.mark.value), interval(row.mark), robust_z(row.mark))
        table.add_row(row.label, *numbers, row.reading, style=style)
    told = [Text(verdict(against, index))]
    if against.adapter is not None:
        told.append(Text(" ".join(remarks(against, index))))
    return Group(head, *([table] if table.row_count else []), *told)
