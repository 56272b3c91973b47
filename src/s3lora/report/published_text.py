"""Where an adapter stands among published ones, as text for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from s3lora.measure.against_published import AgainstPublished
from s3lora.report.published_view import CAVEAT, published_lines


def published_text(against: AgainstPublished) -> RenderableType | None:
    """Return what is told of an adapter among published ones, None where there is nothing to tell."""
    lines = list(published_lines(against))
    if not lines:
        return None
    head = Text.assemble(
        ("among published adapters", "bold"),
        (f"  {against.adapters:,} adapters, {against.sources:,} sources, by {against.index}", "dim"),
    )
    caveat = [Text(CAVEAT, "dim")] if against.standings else []
    return Group(head, *map(Text, lines), *caveat)
