"""Results as text for people: a heat map, the sharpest modules, and what a rule would prune."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from s3lora.adapter.write import Written
from s3lora.compare import Comparison, ModuleChange
from s3lora.errors import printable
from s3lora.provenance import Provenance
from s3lora.report.documents import ScanDocument
from s3lora.report.heatmap import heat_map
from s3lora.scan import ModuleScan
from s3lora.select import Plan, Share
from s3lora.spectrum.indices import INDICES

MAX_WIDTH = 110
SHOWN = 10


def console_for(stream: TextIO) -> Console:
    """Return a console: as wide as the terminal up to `MAX_WIDTH`, 80 columns elsewhere. NO_COLOR is respected."""
    console = Console(file=stream, highlight=False, soft_wrap=False)
    console.width = min(console.width, MAX_WIDTH) if console.is_terminal else 80
    return console


def to_text(renderable: RenderableType) -> str:
    """Return what a file gets: 80 columns, no colour."""
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None, highlight=False).print(renderable)
    return stream.getvalue()


def _coloured(console: Console | None) -> bool:
    return console is not None and console.is_terminal and console.color_system is not None and not console.no_color


def scan_text(document: ScanDocument, command: str | None, console: Console | None = None) -> RenderableType:
    """Return the report of one scan; `command` is shown as the next step."""
    width = 80 if console is None else console.width
    index = document.plan.index if document.plan is not None and document.plan.index in INDICES else "ssi"
    parts: list[RenderableType] = [_title(document), Text()]
    drawn = heat_map(document.modules, index, width=width - 2, colour=_coloured(console))
    if drawn is not None:
        parts += [Padding(drawn, (0, 0, 0, 1)), Text()]
    parts += [_ranking(document.modules, index, width), Text()]
    if document.plan is not None:
        parts.append(_plan_line(document.plan))
    parts += _notes(document.warnings)
    if command is not None and document.plan is not None and document.plan.chosen:
        parts += [Text(), Text.assemble(("next  ", "dim"), (command, "bold"))]
    return Group(*parts)


def _title(document: ScanDocument) -> Text:
    source, modules = document.source, document.modules
    ranks = sorted({module.rank for module in modules})
    facts = [
        source.format,
        f"{len(modules)} modules",
        f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {ranks[0]}-{ranks[-1]}",
        ", ".join(sorted({module.dtype for module in modules})),
    ]
    text = Text.assemble((printable(source.name, 60), "bold"), "  ", (" · ".join(facts), "dim"))
    lines = []
    if source.base_model:
        lines.append(f"base {printable(source.base_model, 60)}")
    if source.sha256:
        lines.append(f"sha256 {source.sha256[:16]}…")
    lines.append(f"method {document.configuration.method}")
    text.append("\n" + " · ".join(lines), style="dim")
    return text


def _ranking(modules: Sequence[ModuleScan], index: str, width: int) -> Table:
    sign = -1.0 if INDICES[index].sharp == "high" else 1.0
    ranked = sorted(
        (module for module in modules if module.indices.get(index) is not None),
        key=lambda module: sign * (module.indices[index] or 0.0),
    )
    table = Table(box=None, padding=(0, 1), width=min(width, 100), header_style="dim")
    table.add_column("", width=1)
    table.add_column(
        "sharpest modules" if index == "ssi" else f"by {index}", ratio=1, no_wrap=True, overflow="ellipsis"
    )
    columns = list(dict.fromkeys((index, "ssi", "magnitude", "frobenius")))[:3]
    for name in (*columns, "m × n"):
        table.add_column({"frobenius": "‖ΔW‖"}.get(name, name), justify="right", no_wrap=True)
    for module in ranked[:SHOWN]:
        cells = [_number(module.indices[name]) for name in columns]
        style = "bold" if module.selected else ""
        path = printable(module.path)
        table.add_row("×" if module.selected else "", path, *cells, f"{module.shape[0]}×{module.shape[1]}", style=style)
    if len(ranked) > SHOWN:
        table.add_row("", f"… and {len(ranked) - SHOWN} more", *[""] * (len(columns) + 1), style="dim")
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"


def _plan_line(plan: Plan) -> Text:
    only = f" ({printable(plan.only)})" if plan.only else ""
    text = Text.assemble((f"{plan.rule} by {plan.index}{only}", "bold"), " would prune ")
    return text.append_text(_share(plan.share))


def _share(share: Share) -> Text:
    parameters = share.parameters / share.parameters_total if share.parameters_total else 0.0
    return Text.assemble(
        (f"{share.modules} of {share.modules_total} modules", "bold"),
        f": {parameters:.1%} of LoRA parameters, {share.frobenius_energy:.1%} of Frobenius energy, "
        f"{share.compute:.1%} of LoRA compute.",
    )


def _notes(notes: Sequence[str]) -> list[RenderableType]:
    if not notes:
        return []
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(style="yellow", no_wrap=True)
    table.add_column(ratio=1)
    for note in notes:
        table.add_row("note", Text(printable(note, 400)))
    return [Text(), table]


def prune_text(provenance: Provenance, written: Written, out: str) -> RenderableType:
    """Return what `prune` did."""
    actions = Counter(module.action for module in provenance.modules)
    done = ", ".join(f"{count} {action}" for action, count in actions.items())
    size = sum(file.bytes for file in written.files)
    before = sum(file.bytes for file in provenance.source.files if not file.name.endswith(".json"))
    text = Text.assemble(
        ("wrote ", "green"),
        (printable(out), "bold"),
        f"  {done}; {before / 1e6:.2f} MB → {size / 1e6:.2f} MB, verified by reading it again\n",
        (f"{provenance.rule} by {provenance.index} took ", "dim"),
    )
    text.append_text(_share(provenance.share))
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", justify="right")
    table.add_column("module", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(provenance.index if provenance.index in INDICES else "", justify="right")
    table.add_column("")
    for module in provenance.modules[:SHOWN]:
        table.add_row(str(module.position), printable(module.path), _number(module.value), module.action)
    if len(provenance.modules) > SHOWN:
        table.add_row("", f"… and {len(provenance.modules) - SHOWN} more, all in s3lora.json", "", "", style="dim")
    left = [f"left behind: {name}" for name in written.left_behind]
    return Group(text, Text(), table, *_notes([*provenance.warnings, *left]))


def compare_text(comparison: Comparison) -> RenderableType:
    """Return the modules that changed most, and which are in one adapter only."""
    a, b = comparison.sources
    ranked = sorted(comparison.modules, key=lambda change: -_distance(change))
    changed = sum(_distance(change) > 0 for change in ranked)
    head = Text.assemble(
        (printable(a.name, 40), "bold"),
        " → ",
        (printable(b.name, 40), "bold"),
        (f"  {len(ranked)} modules in both, {changed} changed", "dim"),
    )
    table = Table(box=None, padding=(0, 1), header_style="dim", width=80)
    table.add_column("changed most", ratio=1, no_wrap=True, overflow="ellipsis")
    for name in ("distance", "cosine", "ssi", "‖ΔW‖"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in ranked[:SHOWN]:
        norms = f"{_number(change.frobenius[0])} → {_number(change.frobenius[1])}"
        sharp = f"{_number(change.ssi[0])} → {_number(change.ssi[1])}"
        distance = "new" if change.distance is None and change.frobenius[1] else _number(change.distance)
        table.add_row(printable(change.path), distance, _number(change.cosine), sharp, norms)
    if len(ranked) > SHOWN:
        table.add_row(f"… and {len(ranked) - SHOWN} more", *[""] * 4, style="dim")
    only = [
        f"only in {printable(name, 40)}: {_some(paths)}"
        for name, paths in ((a.name, comparison.only_a), (b.name, comparison.only_b))
        if paths
    ]
    reshaped = [f"of other shape, not compared: {_some(comparison.reshaped)}"] if comparison.reshaped else []
    return Group(head, Text(), table, *_notes([*only, *reshaped, *comparison.warnings]))


def _distance(change: ModuleChange) -> float:
    if change.distance is None:
        return float("inf") if change.frobenius[1] else 0.0
    return change.distance


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(printable(path, 80) for path in paths[:3])
    return f"{len(paths)} modules ({shown}{', …' if len(paths) > 3 else ''})"
