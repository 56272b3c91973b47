"""What `resize` did, as text and as CSV, and what `compose` wrote."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.adapter.write import Written
from s3lora.errors import printable
from s3lora.report.documents import to_csv
from s3lora.report.names import NameCell
from s3lora.report.text import behind, noted, wrote
from s3lora.rewrite.resize_record import ResizeProvenance
from s3lora.rewrite.sum_record import SumProvenance

SHOWN = 10


def resize_text(record: ResizeProvenance, written: Written, out: str) -> RenderableType:
    """Return what was written, the error in all, and the modules that lost most."""
    text = wrote(out, record.done, record.source, written)
    notes = noted([*record.warnings, *behind(written)])
    if record.error is None or not record.changed:
        return Group(text, *notes)
    text.append(f"\n{record.asked} loses ‖ΔW − ΔW′‖ / ‖ΔW‖ = ", "dim")
    text.append(_error(record.error), "bold")
    text.append(" in all", "dim")
    if record.worst is not None:
        text.append(f"; most in {printable(record.worst.path)}: {_error(record.worst.error)}", "dim")
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for title in ("module", "rank", "error"):
        table.add_column(title, justify="left" if title == "module" else "right", no_wrap=True)
    ordered = sorted(record.changed, key=lambda module: -(module.error or 0.0))
    for module in ordered[:SHOWN]:
        table.add_row(NameCell(module.path), f"{module.before} → {module.rank}", _error(module.error))
    if len(ordered) > SHOWN:
        table.add_row(f"… and {len(ordered) - SHOWN} more, all in s3lora.json", "", "", style="dim")
    return Group(text, Text(), table, *notes)


def sum_text(record: SumProvenance, out: str) -> RenderableType:
    """Return what was written, and how far it is from the exact sum."""
    text = wrote(out, record.done)
    if record.error is None:
        return text.append("\nevery update of the sum is zero", "dim")
    text.append("\nit differs from the exact sum by ‖ΔW − ΔW′‖ / ‖ΔW‖ = ", "dim")
    return text.append(_error(record.error), "bold")


def resize_csv(record: ResizeProvenance) -> str:
    """Return one row a module: rank before and after, and the error, empty for a zero update."""
    rows: list[list[object]] = [["path", "rank_before", "rank", "error"]]
    rows += [[module.path, module.before, module.rank, module.error] for module in record.modules]
    return to_csv(rows)


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
