"""Several scans in one table: what is in each adapter, how sharp it is, and where that stands."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.report.blocks import number_columns
from s3lora.report.compare_view import number
from s3lora.report.documents import ScanDocument
from s3lora.report.glance import glance_of
from s3lora.report.names import NameCell, head
from s3lora.report.published_view import band_of

#: What stands besides LoRA in an adapter, in so many columns.
ELSE = 16


def overview_text(found: Sequence[tuple[str, ScanDocument]], failed: int = 0) -> RenderableType:
    """Return one row for each adapter by its path; `failed` were not measured."""
    indices = {document.ranked_by.replace("_", " ") for _, document in found}
    others = {path: ", ".join(dict.fromkeys(line.label for line in glance_of(one).lines)) for path, one in found}
    heads = ["modules", "rank", "median", "highest", "published", *["besides"] * any(others.values())]
    rows = []
    for path, document in found:
        ranks = sorted({module.rank for module in document.modules})
        values = [value for module in document.modules if (value := module.indices.get(document.ranked_by)) is not None]
        against = document.published
        row = [
            str(len(document.modules)),
            str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}",
            number(median(values) if values else None),
            number(max(values, default=None)),
            "–" if against is None or against.median is None else band_of(against.median),
            head(others[path] or "–", ELSE),
        ]
        rows.append(row[: len(heads)])
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("adapter")
    number_columns(table, heads, rows)
    names = tuple(path for path, _ in found)
    for path, row in zip(names, rows, strict=True):
        table.add_row(NameCell(path, names), *row)
    count = f"{len(found)} adapter{'' if len(found) == 1 else 's'}"
    head_line = Text.assemble((count, "bold"), (f"  {' or '.join(sorted(indices))} of their modules", "dim"))
    parts: list[RenderableType] = [head_line, table]
    if any(document.published is not None and document.published.median is not None for _, document in found):
        parts.append(Text("published: of such modules, the share that the median module is sharper than", "dim"))
    if failed:
        parts.append(Text(f"{failed} more could not be measured", "yellow"))
    return Group(*parts)
