"""The answer to a query, as text, JSON or CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.fleet.results.queries import Answer
from s3lora.report.documents import to_csv, to_json

#: Rows, rows as blocks, and characters of one value that a terminal is shown, and the room that a column must have.
SHOWN, BLOCKS, WIDE, NARROW = 50, 5, 200, 8


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """The first rows of an answer, and how many there are more: below each other, or each as a block of its own.

    Each is a block where there is no room for so many columns.
    """

    answer: Answer

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield what fits the width."""
        names = [printable(name, 40) for name in self.answer.columns]
        fits = sum(min(len(name), NARROW) + 2 for name in names) <= options.max_width
        rows = self.answer.rows[: SHOWN if fits else BLOCKS]
        yield from [_table(names, rows)] if fits else (_block(names, row) for row in rows)
        if more := len(self.answer.rows) - len(rows):
            yield Text(f"… and {more:,} more rows: --format csv has them all", "dim")


def answer_text(answer: Answer) -> RenderableType:
    """Return the answer as text."""
    return AnswerTable(answer)


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    for at, name in enumerate(names):
        numbers = all(isinstance(row[at], int | float) or row[at] is None for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_shown, row))
    return table


def _block(names: Sequence[str], row: Sequence[Any]) -> RenderableType:
    table = Table(box=None, padding=(0, 1), show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in zip(names, row, strict=True):
        table.add_row(name, _shown(value))
    return Padding(table, (0, 0, 1, 0))


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
