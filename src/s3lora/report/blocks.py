"""Pieces that the reports on measurements share on a terminal: headings, labelled lines, and what fits a width."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from s3lora.adapter.digest import Source
from s3lora.errors import printable
from s3lora.evaluate.results import Evaluation, Setup, SuiteInfo, Sweep, Tuning
from s3lora.report.names import tail
from s3lora.report.notes import names_in, once
from s3lora.report.values import chat_facts, heading

#: The longest sentence, note or description that is shown whole.
SENTENCE = 400
#: Warnings that are shown; every point of a sweep can have some.
NOTES = 20
BULLET = "·"


@dataclass(frozen=True, slots=True)
class Fitted:
    """Something that is made for the width it gets, in columns."""

    make: Callable[[int], RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield what was made for this width."""
        yield self.make(options.max_width)


def at_most(table: Table, most: int = 80) -> Fitted:
    """Return a table that is as wide as it may be, and no wider than `most` columns."""

    def narrowed(width: int) -> Table:
        table.width = min(width, most)
        return table

    return Fitted(narrowed)


def labelled(
    rows: Sequence[tuple[str, str]], style: str = "dim", least: int = 0, most: int = 24, longest: int = SENTENCE
) -> list[RenderableType]:
    """Return lines of a label, `least` to `most` columns wide, and a sentence that may wrap; nothing for no lines.

    `longest` is the number of characters of a sentence beyond which it is cut.
    """
    if not rows:
        return []
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(style=style, no_wrap=True, min_width=least, max_width=most)
    table.add_column(ratio=1)
    for label, sentence in rows:
        table.add_row(Text(tail(label, most)), Text(printable(sentence, longest)))
    return [table]


def number_columns(table: Table, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Add columns that are never cut: names beside them give way."""
    for place, name in enumerate(heads):
        width = max(cell_len(cell) for cell in (name, *(row[place] for row in rows)))
        table.add_column(name, justify="right", no_wrap=True, min_width=width)


def section(title: str, *parts: RenderableType) -> list[RenderableType]:
    """Return the parts below an empty line and a title; nothing for no parts."""
    return [Text(), Text(title, "bold"), *parts] if parts else []


def noted(result: Evaluation | Sweep | Tuning, *more: str) -> list[RenderableType]:
    """Return the end of a report: how each suite measured, then all notes, `more` of them first and each once."""
    parts: list[RenderableType] = []
    for suite in result.suites:
        parts += section(f"how {tail(suite.name, 60)} was measured", *_suite_lines(suite))
    notes = [*more, *result.warnings, *(note for suite in result.suites for note in suite.notes)]
    return parts + warned(once(notes, names_in(result)))


def warned(warnings: Sequence[str]) -> list[RenderableType]:
    """Return warnings below an empty line."""
    more = [("", f"… and {len(warnings) - NOTES} more, in the JSON")] if len(warnings) > NOTES else []
    lines = labelled([*(("note", warning) for warning in warnings[:NOTES]), *more], "yellow")
    return [Text(), *lines] if lines else []


def title(name: str, about: str, setup: Setup, sources: Sequence[Source] = ()) -> RenderableType:
    """Return the first lines: what was measured, on which model, and how it was run."""
    facts = [f"base {printable(setup.base, 60)}", f"sha256 {digest(setup.base_digest)}"]
    facts += [printable(part, 40) for part in (setup.backend, setup.device, setup.dtype) if part]
    facts += [f"seed {setup.seed}"] + ([] if setup.limit is None else [f"at most {setup.limit} prompts a suite"])
    facts += chat_facts(setup.chat)
    for source in sources:
        if source.sha256:
            facts.append(f"{tail(source.name, 30)} sha256 {digest(source.sha256)}")
    head = Text.assemble((tail(name, 60) or "adapter", "bold"), (f"  {about}", "dim"))
    return Group(head, Fitted(lambda width: Text("\n".join(_packed(facts, width)), "dim")))


def digest(sha256: str) -> str:
    """Return the beginning of a digest."""
    return f"{printable(sha256)[:12]}…"


def _packed(facts: Sequence[str], width: int) -> list[str]:
    """Return the facts in as few lines as hold them, none of them broken."""
    lines = [""]
    for fact in facts:
        if lines[-1] and cell_len(f"{lines[-1]} · {fact}") > width:
            lines.append("")
        lines[-1] += f" · {fact}" if lines[-1] else fact
    return lines


def _suite_lines(suite: SuiteInfo) -> list[RenderableType]:
    """Return what the measures of a suite mean, on which data they were taken, and who judged."""
    rows = [(heading(measure), measure.about) for measure in suite.measures if measure.about]
    for data in suite.data:
        more = [f"n = {data.n}", *(["built in"] if data.built_in else []), *([data.note] if data.note else [])]
        rows.append(("data", f"{printable(data.name, 120)}: {', '.join(more)}"))
    if suite.judge:
        rows.append(("judge", suite.judge))
    return [Padding(part, (0, 0, 0, 2)) for part in labelled(rows)]


def shell_text(command: str, width: int, indent: int) -> Text:
    """Return a command as `shell_lines` has it, never broken or cut elsewhere, however long a word of it is.

    It has its indent within, for what rich pads it also cuts.
    """
    lines = (f"{' ' * indent}{line}" for line in shell_lines(command, width - indent))
    return Text("\n".join(lines), "cyan", no_wrap=True, overflow="ignore")


#: More than the longest path has: a word that is cut is another word.
LONGEST_WORD = 10_000


def shell_lines(command: str, width: int) -> list[str]:
    """Return a command over as many lines as it needs, so that it can be copied into a shell.

    >>> shell_lines("s3lora convert a --loader vllm -o OUT", 30)
    ['s3lora convert a \\\\', '--loader vllm -o OUT']
    """
    words: list[str] = []
    for word in shlex.split(command):
        quoted = printable(shlex.quote(word), LONGEST_WORD)
        if words and words[-1].startswith("-") and not word.startswith("-"):
            words[-1] += f" {quoted}"  # an option and its value stay together
        else:
            words.append(quoted)
    lines = [""]
    for word in words:
        if lines[-1] and cell_len(f"{lines[-1]} {word} \\") > width:
            lines[-1] += " \\"
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
