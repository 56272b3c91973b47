"""Charts beside each other with their legend, as one SVG file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s3lora.report.chart import Chart, LegendEntry
from s3lora.report.names import tail
from s3lora.report.picture import svg_file

#: Room around everything and between two charts, and the least width of a sheet.
EDGE, GAP, LEAST = 14.0, 22.0, 500.0
#: Rows of text: the title with what is above it, one line about it, and the caption of a chart.
TITLE, LINE, CAPTION = 30.0, 16.0, 26.0
#: A line of the legend: its height, its sign, and the pixels of a letter.
ROW, KEY, LETTER = 22.0, 44.0, 7.0
#: The longest title, other line and text of the legend, in letters.
LONGEST, WORDS, MEANING = 50, 64, 60


@dataclass(frozen=True, slots=True)
class Sheet:
    """Where everything lies: lines of text, charts and the entries of the legend, the latter two each at (x, y)."""

    left: float
    about: tuple[str, ...]
    panels: tuple[tuple[float, float, Chart], ...]
    entries: tuple[tuple[float, float, LegendEntry], ...]
    size: tuple[float, float]


def sheet(title: str, about: Sequence[str], charts: Sequence[Chart], entries: Sequence[LegendEntry]) -> str:
    """Return charts as a file, below a title and lines about it, above their legend."""
    made = lay_out([tail(line, WORDS) for line in about], charts, entries)
    return svg_file("sheet.svg.jinja", tail(title, LONGEST), made.size, sheet=made)


def lay_out(about: Sequence[str], charts: Sequence[Chart], entries: Sequence[LegendEntry]) -> Sheet:
    """Return where the parts of a sheet lie."""
    width = max(2 * EDGE + sum(chart.width + GAP for chart in charts) - GAP, LEAST)
    top = TITLE + LINE * len(about)
    panels = tuple(_panels(charts, top + CAPTION))
    foot = max((y + chart.height for _, y, chart in panels), default=top + EDGE)
    texts = [tail(entry.text, MEANING) for entry in entries]
    wide = KEY + LETTER * max(map(len, texts), default=0) + GAP
    columns = max(1, int((width - 2 * EDGE + GAP) / wide))
    rows = -(-len(entries) // columns)
    placed = tuple(
        (
            EDGE + wide * (i // rows),
            foot + ROW * (i % rows),
            LegendEntry(entry.css, entry.shape, text, entry.area, entry.line),
        )
        for i, (entry, text) in enumerate(zip(entries, texts, strict=True))
    )
    return Sheet(EDGE, tuple(about), panels, placed, (width, foot + ROW * rows + EDGE))


def _panels(charts: Sequence[Chart], top: float) -> Iterator[tuple[float, float, Chart]]:
    left = EDGE
    for chart in charts:
        yield left, top, chart
        left += chart.width + GAP
