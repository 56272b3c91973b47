"""Results as text for people: what is in the adapter, a heat map, the sharpest modules, and what a rule would prune."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from s3lora.adapter.digest import Source
from s3lora.adapter.write import Written
from s3lora.choose.select import Plan, Share
from s3lora.choose.ties import sharpest
from s3lora.errors import printable
from s3lora.measure.against import Against
from s3lora.measure.scan import ModuleScan
from s3lora.report.against_text import against_text
from s3lora.report.against_view import mark_of, percentile, robust_z
from s3lora.report.blocks import labelled, number_columns, shell_lines
from s3lora.report.documents import ScanDocument
from s3lora.report.glance import Glance, glance_of
from s3lora.report.heatmap import heat_map
from s3lora.report.names import NameCell, tail
from s3lora.report.published_view import SHORT
from s3lora.report.smaller import smaller
from s3lora.report.summary import summary_of
from s3lora.report.values import size, told_with
from s3lora.rewrite.provenance import Provenance
from s3lora.spectrum.indices import INDICES

MAX_WIDTH = 200
#: The longest line of prose, and the least columns in which a table of modules has all of its numbers.
PROSE, NARROW = 100, 70
SHOWN = 10
#: The longest sentence of the summary.
WHOLE = 1200
#: Columns of the labels of what is in the adapter: those of the longest.
LABEL = 13
#: What stands above the command that prunes: docs/results/reference.md has the figures.
SMALLER = "smaller files, which is no repair:"
#: How the notes of `scan` and `select` on a flat index go on after its name.
_FLAT = "does not discriminate here"


def console_for(stream: TextIO) -> Console:
    """Return a console: as wide as the terminal up to `MAX_WIDTH`, 80 columns elsewhere. NO_COLOR is respected."""
    # Names come from untrusted files: no markup, no emoji codes, no highlighting in them.
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    console.width = min(console.width, MAX_WIDTH) if console.is_terminal else 80
    return console


def to_text(renderable: RenderableType) -> str:
    """Return what a file gets: 80 columns, no colour."""
    stream = io.StringIO()
    return render(
        renderable,
        Console(
            file=stream, width=80, color_system=None, force_terminal=False, highlight=False, markup=False, emoji=False
        ),
    )


def render(renderable: RenderableType, console: Console) -> str:
    """Return what the console would print, without spaces at the ends of lines."""
    with console.capture() as captured:
        console.print(renderable, crop=False)  # a command that does not fit is still one that can be copied
    return "".join(f"{line.rstrip(' ')}\n" for line in captured.get().split("\n")[:-1])


def _coloured(console: Console | None) -> bool:
    return console is not None and console.is_terminal and console.color_system is not None and not console.no_color


def scan_text(
    document: ScanDocument,
    command: str | None,
    console: Console | None = None,
    *,
    steps: Sequence[tuple[str, str]] = (),
) -> RenderableType:
    """Return the report of one scan.

    `steps` are commands that go on from it, each with what it answers, and `command` prunes what the report marks.
    """
    width = 80 if console is None else console.width
    index = document.ranked_by
    glance = glance_of(document)
    parts: list[RenderableType] = [_title(document, width), Text(), *_prose(_summary(document, glance))]
    drawn = heat_map(document.modules, index, width=width - 2, colour=_coloured(console))
    if drawn is not None:
        parts += [Padding(drawn, (0, 0, 0, 1)), Text()]
    if any(module.indices.get(index) is not None for module in document.modules):
        parts += [_ranking(document.modules, index, width, document.reference), Text()]
    if document.reference is not None:
        parts += [against_text(document.reference, index, _number), Text()]
    notes, plan = _without_repetition(glance.notes), []
    if document.plan is not None:
        notes, capped = _without_cap(notes, document.plan)
        plan = [_plan_line(document.plan, capped)]
    less = _prose([*plan, *(Text(line, "dim") for line in smaller(document.modules))])
    prune = command is not None and document.plan is not None and _prunable(document.plan)
    if not prune:
        parts += less
    parts += _prose(noted(notes))
    if steps:
        parts += [Text(), *_steps(steps, width)]
    if prune and command is not None:
        parts += [Text(), Text(SMALLER, "dim"), *less, _next(command, width, "")]
    return Group(*_without_gaps(parts))


def _without_gaps(parts: Sequence[RenderableType]) -> list[RenderableType]:
    """Return parts of which no two empty ones follow each other: what would stand between them is not there."""
    inner = [part.renderable if isinstance(part, Constrain) else part for part in parts]
    empty = [isinstance(part, Text) and not part.plain for part in inner]
    return [part for part, blank, before in zip(parts, empty, [False, *empty], strict=False) if not (blank and before)]


def _prose(parts: Sequence[RenderableType]) -> list[RenderableType]:
    """Return parts that are read, and not looked at, in lines of a length that can be read."""
    return [Constrain(part, PROSE) for part in parts]


def _summary(document: ScanDocument, glance: Glance) -> list[RenderableType]:
    """Return what is in the adapter, what is sharp in it, how that compares, and what no file tells."""
    lead = labelled([("at a glance", glance.lead)] if glance.lead else [], "bold", LABEL)
    lines = labelled([(line.label, line.text) for line in glance.lines], "yellow", LABEL)
    told = [part for row in summary_of(document) for part in labelled([row], "bold", LABEL, longest=WHOLE)]
    caveat = [Padding(Text(SHORT, "dim"), (0, 0, 0, LABEL + 1))] if _compared(document) else []
    return [*lead, *lines, *told[:-1], *caveat, *told[-1:], Text()]


def _compared(document: ScanDocument) -> bool:
    return document.published is not None and bool(document.published.standings)


def _prunable(plan: Plan) -> bool:
    """Return whether `prune` would do what this plan says without being forced."""
    return 0 < len(plan.chosen) < plan.share.modules_total and not plan.flat


def _steps(steps: Sequence[tuple[str, str]], width: int) -> list[RenderableType]:
    """Return the commands, each with a comment, beside it where its line has room and else above."""
    lines: list[RenderableType] = []
    for number, (command, why) in enumerate(steps):
        label = "" if number else "next"
        line = _next(command, width, label)
        comment = f"# {printable(why, 60)}"
        if "\n" not in line.plain and line.cell_len + cell_len(comment) + 2 <= width:
            lines.append(line.append(f"  {comment}", "dim"))
        else:
            lines += [Text(f"{label:6}{comment}", "dim"), _next(command, width, "")]
    return lines


def _next(command: str, width: int, label: str = "next") -> Text:
    """Return the command over as many lines as it needs, no word broken, so that it can be copied into a shell."""
    lines = "\n      ".join(shell_lines(command, width - 6))
    return Text.assemble((f"{label:6}", "dim"), (lines, "bold"), no_wrap=True, overflow="ignore")


def _title(document: ScanDocument, width: int) -> Text:
    source, modules = document.source, document.modules
    ranks = sorted({module.rank for module in modules})
    facts = [
        source.format,
        f"{len(modules)} module{'' if len(modules) == 1 else 's'}",
        f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {ranks[0]}-{ranks[-1]}",
        ", ".join(sorted({module.dtype for module in modules})),
    ]
    more = [f"method {document.configuration.method}"]
    if source.sha256:
        more.append(f"sha256 {source.sha256[:12]}…")
    if source.base_model:
        more.append(f"base {printable(source.base_model, 60)}")
    name = tail(source.name, 60)
    lines = _packed(facts, width, used=cell_len(name) + 2) + _packed(more, width)
    return Text.assemble((name, "bold"), ("  " + "\n".join(lines), "dim"))


def _packed(facts: Sequence[str], width: int, used: int = 0) -> list[str]:
    """Return the facts in as few lines as hold them, none of them broken; `used` columns of the first are taken."""
    lines = [""]
    for fact in facts:
        if lines[-1] and used + cell_len(f"{lines[-1]} · {fact}") > width:
            lines.append("")
            used = 0
        lines[-1] += f" · {fact}" if lines[-1] else fact
    return lines


def _ranking(modules: Sequence[ModuleScan], index: str, width: int, against: Against | None) -> Table:
    ranked = sharpest(modules, index)
    whole = width >= NARROW
    # Where there is little room, the name goes before all numbers but the one that they are ranked by.
    columns = told_with(index) if whole else told_with(index)[:1]
    standing = () if against is None else ("pct", "z")
    heads = [{"frobenius": "‖ΔW‖"}.get(name, name) for name in (*columns[:1], *standing, *columns[1:])]
    rows = []
    for module in ranked[:SHOWN]:
        cells = [_number(module.indices[name]) for name in columns]
        if against is not None:
            mark = mark_of(against, module.path, index)
            cells[1:1] = [percentile(mark), robust_z(mark)]
        rows.append([*cells, f"{module.shape[0]}×{module.shape[1]}"] if whole else cells)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", width=1)
    table.add_column("sharpest modules" if index == "ssi" else f"by {index}")
    number_columns(table, [*heads, "m × n"] if whole else heads, rows)
    names = tuple(module.path for module in ranked[:SHOWN])
    for module, cells in zip(ranked, rows, strict=False):
        style = "bold" if module.selected else ""
        table.add_row("×" if module.selected else "", NameCell(module.path, names), *cells, style=style)
    if len(ranked) > SHOWN:
        table.add_row("", f"… and {len(ranked) - SHOWN} more", style="dim")
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"


def _without_cap(notes: Sequence[str], plan: Plan) -> tuple[list[str], str]:
    """Return the notes without that of a rule that is capped, and how the line of the plan says it."""
    start = f"{plan.rule} is capped at"
    capped = [note.removeprefix(f"{plan.rule} is ") for note in notes if note.startswith(start)]
    return [note for note in notes if not note.startswith(start)], f" ({capped[0]})" if capped else ""


def _plan_line(plan: Plan, capped: str = "") -> Text:
    only = f" ({printable(plan.only)})" if plan.only else ""
    refused = plan.flat and bool(plan.chosen)
    does = " chooses " if refused else " would prune "
    text = Text.assemble((f"{plan.rule} by {plan.index}{only}{capped}", "bold"), does, _share(plan.share))
    if refused:
        text.append("\nprune will refuse", "bold")
        text.append(f", as {plan.index} does not tell these modules apart; --force-flat insists.")
    return text


def _share(share: Share, *, compute: bool = True) -> Text:
    """Return the share in words; `compute` is saved only where modules leave."""
    parameters = share.parameters / share.parameters_total if share.parameters_total else 0.0
    parts = [f"{parameters:.1%} of LoRA parameters", f"{share.frobenius_energy:.1%} of Frobenius energy"]
    if compute:
        parts.append(f"{share.compute:.1%} of LoRA compute")
    return Text.assemble((f"{share.modules} of {share.modules_total} modules", "bold"), f": {', '.join(parts)}.")


def _without_repetition(notes: Sequence[str]) -> list[str]:
    """Return the notes without that of the scan on a flat SSI where the plan says the same of its candidates."""
    said = any(note.startswith(f"ssi {_FLAT}") for note in notes)
    return [note for note in notes if not (said and note.startswith(f"the SSI {_FLAT}"))]


def noted(notes: Sequence[str]) -> list[RenderableType]:
    """Return notes as they stand below every text, after an empty line."""
    return [Text(), *labelled([("note", note) for note in notes], "yellow")] if notes else []


def wrote(out: str, done: str, source: Source | None = None, written: Written | None = None) -> Text:
    """Return where an adapter was written and what was done, with the sizes of the source and of what is written."""
    sizes = ""
    if source is not None and written is not None:
        before = sum(file.bytes for file in source.files if not file.name.endswith(".json"))
        sizes = f" {size(before)} → {size(sum(file.bytes for file in written.files))},"
    told = f"  {done};{sizes} verified by reading it again"
    return Text.assemble(("wrote ", "green"), (printable(out), "bold"), told)


def behind(written: Written) -> list[str]:
    """Return a note for each file that was left behind."""
    return [f"left behind: {name}" for name in written.left_behind]


def prune_text(provenance: Provenance, written: Written, out: str) -> RenderableType:
    """Return what `prune` did."""
    text = wrote(out, provenance.done, provenance.source, written)
    notes = noted([*_without_repetition(provenance.warnings), *behind(written)])
    if not provenance.modules:
        return Group(text, *notes)
    text.append(f"\n{provenance.plan.rule} by {provenance.plan.index} took ", "dim")
    text.append_text(
        _share(provenance.plan.share, compute={module.action for module in provenance.modules} == {"removed"})
    )
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", justify="right")
    table.add_column("module", no_wrap=True)
    table.add_column(provenance.plan.index if provenance.plan.index in INDICES else "", justify="right")
    table.add_column("")
    for module in provenance.modules[:SHOWN]:
        table.add_row(str(module.position), NameCell(module.path), _number(module.value), module.action)
    if len(provenance.modules) > SHOWN:
        table.add_row("", f"… and {len(provenance.modules) - SHOWN} more, all in s3lora.json", "", "", style="dim")
    return Group(text, Text(), table, *notes)
