"""The answer to a query, as text, JSON or CSV."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.fleet.results.queries import Answer
from s3lora.report.documents import to_csv, to_json

#: Rows and characters of one value that a terminal is shown.
SHOWN, WIDE = 50, 200


def answer_text(answer: Answer) -> RenderableType:
    """Return the answer as a table: its first 50 rows, and how many there are more."""
    from rich.console import Group

    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    for at, name in enumerate(answer.columns):
        numbers = all(isinstance(row[at], int | float) or row[at] is None for row in answer.rows)
        table.add_column(printable(name, 40), justify="right" if numbers else "left", overflow="fold")
    for row in answer.rows[:SHOWN]:
        table.add_row(*map(_shown, row))
    more = len(answer.rows) - SHOWN
    return Group(table, Text(f"… and {more:,} more rows: --format csv has them all", "dim")) if more > 0 else table


def answer_json(answer: Answer) -> str:
    """Return the rows as an array of objects."""
    rows = [dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows]
    return to_json(msgspec.to_builtins(rows, enc_hook=str))


def answer_csv(answer: Answer) -> str:
    """Return the rows as CSV with a header."""
    return to_csv([answer.columns, *answer.rows])


def _shown(value: Any) -> Text:
    if value is None:
        return Text("–", "dim")
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    return Text(printable(", ".join(map(str, value)) if isinstance(value, list) else value, WIDE))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
