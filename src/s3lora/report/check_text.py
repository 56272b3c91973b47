"""A check as text for people: the verdict of each loader with its reasons, and what does not fit the base."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from s3lora.adapter.hub import HUB, hub_name, with_owner
from s3lora.compat.results import (
    WORDS,
    BaseFacts,
    Check,
    LoaderReason,
    LoaderVerdict,
    ModuleCheck,
    ModuleStanding,
    Verdict,
)
from s3lora.errors import printable
from s3lora.report.blocks import Fitted, section, shell_text
from s3lora.report.names import NameCell, tail

#: Columns of the widest table.
WIDEST = 100

#: Modules that are listed, reasons of one loader, and characters of one sentence.
SHOWN, REASONS, SENTENCE = 10, 12, 600
#: Verdict → how it is set off.
_STYLES: dict[Verdict, str] = {"same": "green", "other": "bold yellow", "fails": "bold red", "unknown": "yellow"}


def check_text(check: Check, path: str = "PATH", shown: int = SHOWN) -> RenderableType:
    """Return the report; `path` is what the adapter is called in commands."""
    body: list[RenderableType] = [_title(check)]
    if check.base is None:
        name = hub_name(check.source.base_model)
        base = "PATH" if name is None else f"{HUB}{with_owner(name)}"
        body.append(Text(f"base model not read: this holds if it has these modules, which --base {base} tells", "dim"))
    else:
        body += section("Base", *_base(check, check.base, shown))
    body += section("Loaders", *(_loader(verdict, path) for verdict in check.loaders))
    notes = [Padding(Text(f"· {printable(note, SENTENCE)}", "dim"), (0, 0, 0, 2)) for note in check.notes]
    return Group(*body, *section("Notes", *notes))


def _title(check: Check) -> Text:
    ranks = sorted({module.rank for module in check.modules})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    scalings = sorted({round(module.scaling, 9) for module in check.modules})
    times = f"scaling {scalings[0]:.4g}" if len(scalings) == 1 else f"scalings {scalings[0]:.4g} to {scalings[-1]:.4g}"
    facts = [check.source.format, f"{len(check.modules)} modules", rank, times]
    return Text.assemble((tail(check.source.name, 60), "bold"), "\n", (" · ".join(facts), "dim"))


def _base(check: Check, base: BaseFacts, shown: int) -> Iterator[RenderableType]:
    kind = base.architecture or "unknown architecture"
    tied = {True: " · embeddings tied", False: "", None: ""}[base.tied]
    yield Text(
        f"  {tail(base.name, 60)} · {printable(kind, 40)} · {base.modules} modules, by its {base.evidence}{tied}"
    )
    words: dict[ModuleStanding, str] = {"found": "found", "expert": "in fused experts", "renamed": "under another name",
                                        "missing": "missing", "unknown": "not known"}  # fmt: skip
    counts = {name: len(check.of_standing(name)) for name in words}
    told = ", ".join(f"{count} {words[name]}" for name, count in counts.items() if count)
    misfits = check.misfits
    fitting = f"{len(misfits) or 'none'} with another shape"
    yield Text(f"  {told}; {fitting}", "bold" if misfits or counts["missing"] else "")
    for renaming in check.renamings[:shown]:
        why = f" ({renaming.why})" if renaming.why else ""
        old, new = (printable(name, 120) or "nothing" for name in (renaming.old, renaming.new))
        yield Padding(Text(f"rename {old} → {new} in {renaming.modules} modules{why}"), (0, 0, 0, 2))
    yield from _modules(misfits, check.of_standing("missing"), shown)
    if base.missing_targets:
        named = ", ".join(base.missing_targets[:shown])
        yield Padding(Text(f"target_modules names what the base has not: {named}"), (0, 0, 0, 2))


def _modules(misfits: Sequence[ModuleCheck], missing: Sequence[ModuleCheck], shown: int) -> Iterator[RenderableType]:
    rows = [
        *((one, f"{one.shape[0]} × {one.shape[1]}", _size(one), one.note) for one in misfits),
        *((one, f"{one.shape[0]} × {one.shape[1]}", "–", one.note or "not in the base") for one in missing),
    ]
    if not rows:
        return
    yield Fitted(lambda width: _misfit_table(rows, shown, min(width, WIDEST)))


def _misfit_table(rows: list[tuple[ModuleCheck, str, str, str]], shown: int, width: int) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", width=width)
    table.add_column("module", ratio=1, no_wrap=True)
    table.add_column("adapter", justify="right", no_wrap=True)
    table.add_column("base", justify="right", no_wrap=True)
    table.add_column("why", ratio=1, overflow="fold")
    for one, mine, theirs, why in rows[:shown]:
        table.add_row(NameCell(one.path), mine, theirs, printable(why, 200))
    if len(rows) > shown:
        table.add_row(f"… and {len(rows) - shown} more", "", "", "", style="dim")
    return table


def _size(one: ModuleCheck) -> str:
    return "–" if one.base_shape is None else f"{one.base_shape[0]} × {one.base_shape[1]}"


def _loader(verdict: LoaderVerdict, path: str) -> RenderableType:
    head = Text.assemble(f"  {verdict.shown:<22}", (WORDS[verdict.verdict], _STYLES[verdict.verdict]))
    lines: list[RenderableType] = [head]
    for reason in verdict.reasons[:REASONS]:
        lines += [*_reason(reason, path)]
    more = [Text(f"it {printable(note, SENTENCE)}", "dim") for note in verdict.notes]
    if left := len(verdict.reasons[REASONS:]):
        more.insert(0, Text(f"… and {left} more reasons", "dim"))
    if verdict.how:
        how = "it was run" if verdict.how == "run" else verdict.how
        more.append(Text(f"seen: {', '.join(verdict.seen)}; {how}", "dim"))
    return Group(*lines, *(Padding(line, (0, 0, 0, 4)) for line in more))


def _reason(reason: LoaderReason, path: str) -> Iterator[RenderableType]:
    yield Padding(Text(f"the adapter {printable(reason.what, SENTENCE)}"), (0, 0, 0, 4))
    yield Padding(Text(f"→ {printable(reason.fix, SENTENCE)}"), (0, 0, 0, 6))
    if reason.command is not None:
        if "--drop" in reason.command:
            yield Padding(Text("or leave them out, which changes what it does:"), (0, 0, 0, 8))
        command = command_for(reason.command, path)
        yield Fitted(lambda width: shell_text(command, width, 8))


def command_for(command: str, path: str) -> str:
    """Return a command for an adapter of this path.

    >>> command_for("s3lora convert PATH --loader vllm -o OUT", "my adapter")
    "s3lora convert 'my adapter' --loader vllm -o OUT"
    """
    return " ".join(shlex.quote(printable(path, 240)) if word == "PATH" else word for word in command.split())
