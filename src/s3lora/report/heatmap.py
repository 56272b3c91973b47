"""Layer × projection heat map for a terminal: projections down, layers across, so that 80 columns hold 32 layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from s3lora.adapter.model import natural_key
from s3lora.errors import printable
from s3lora.measure.scan import ModuleScan
from s3lora.report.colours import SCALE, step_of
from s3lora.report.names import tail
from s3lora.spectrum.indices import INDICES

SHADES = "░▒▓█"
#: Rows in the order in which a transformer uses them; others follow by name.
ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MARK = "×"
MAX_LABEL = 20
#: A longer map is no overview any more.
MAX_LINES = 120


@dataclass(frozen=True, slots=True)
class GridCell:
    """The sharpest module of one layer and projection; `value` is None where all are undefined."""

    value: float | None
    selected: bool
    count: int


def grid(modules: Sequence[ModuleScan], index: str) -> tuple[list[str], list[int], dict[tuple[str, int], GridCell]]:
    """Return (row labels, layers, cells): the modules that have a layer, by projection and layer."""
    labels = labels_of(modules)
    members: dict[tuple[str, int], list[ModuleScan]] = {}
    for module in modules:
        if module.layer is not None:
            members.setdefault((labels[module.path], module.layer), []).append(module)
    sharpest = min if _inverse(index) else max
    cells = {}
    for place, found in members.items():
        values = [value for module in found if (value := module.indices.get(index)) is not None]
        cells[place] = GridCell(sharpest(values, default=None), any(module.selected for module in found), len(found))
    rows = list(dict.fromkeys(label for label, _ in members))
    return rows, sorted({layer for _, layer in members}), cells


def _inverse(index: str) -> bool:
    """Return whether low values of an index are the sharp ones."""
    return index in INDICES and INDICES[index].sharp == "low"


class Named(Protocol):
    """A module of which no more is known than what it is called."""

    @property
    def path(self) -> str:
        """Return the path in the model."""

    @property
    def projection(self) -> str:
        """Return the last name of the path."""


def labels_of(modules: Sequence[Named]) -> dict[str, str]:
    """Return a row label for each path: the projection, with its parent where one name stands for two things."""
    parents: dict[str, set[str]] = {}
    split = {}
    for module in modules:
        names = [part for part in module.path.split(".") if not part.isdecimal()]
        parent = names[-2] if len(names) > 1 else ""
        split[module.path] = (parent, module.projection)
        parents.setdefault(module.projection, set()).add(parent)
    return {
        path: f"{parent}.{name}" if parent and len(parents[name]) > 1 else name
        for path, (parent, name) in split.items()
    }


def heat_map(modules: Sequence[ModuleScan], index: str, *, width: int, colour: bool) -> Text | None:
    """Return the map as rich text, no line wider than `width` columns if those are 40 or more.

    None where fewer than two modules have a layer and a value, and where the map would be longer than a screen or two.
    """
    rows, layers, cells = grid(modules, index)
    values = [cell.value for cell in cells.values() if cell.value is not None]
    if len(values) < 2:
        return None
    low, high = (max(values), min(values)) if _inverse(index) else (min(values), max(values))  # from dull to sharp
    margin = min(max(cell_len(printable(row)) for row in rows), MAX_LABEL)
    room = max(width - margin - 2, 8)
    sizes = (5, 2, 1) if all(0 <= value <= 1 for value in values) else (2, 1)
    size = next((size for size in sizes if len(layers) * size <= room), 1)
    fit = room // size
    if -(-len(layers) // fit) * (len(rows) + 2) > MAX_LINES:
        return None
    text = Text(no_wrap=True)
    for start in range(0, len(layers), fit):
        part = layers[start : start + fit]
        text.append(("\n" if start else "") + " " * (margin + 2) + _axis(part, size) + "\n", style="dim")
        for row in sorted((row for row in rows if any((row, layer) in cells for layer in part)), key=row_key):
            label = tail(row, margin)
            text.append(" " * (margin - cell_len(label)) + label + "  ")
            for layer in part:
                _append(text, cells.get((row, layer)), low, high, size, colour=colour)
            text.append("\n")
    legend = _legend(low, high, cells, index, room, shaded=size <= 2, colour=colour)
    indent = margin + 2 if all(line.cell_len <= room for line in legend) else 0
    for i, line in enumerate(legend):
        text.append(("\n" if i else "") + " " * indent).append_text(line)
    return text


def row_key(row: str) -> tuple[int, tuple[tuple[int, int, str], ...]]:
    """Return the sort key of a row."""
    return (ORDER.index(row) if row in ORDER else len(ORDER), natural_key(row))


def _axis(layers: Sequence[int], size: int) -> str:
    """Return the numbers of the layers above their cells, as many as fit."""
    line = ""
    for i, layer in enumerate(layers):
        label = f" {layer}" if size > 2 else str(layer)
        apart = not line or len(line) < i * size
        if (layer % 4 == 0 or size > 2) and apart and i * size + len(label) <= max(len(layers) * size, 4):
            line = line.ljust(i * size) + label
    return line


def _append(text: Text, cell: GridCell | None, low: float, high: float, size: int, *, colour: bool) -> None:
    if cell is None:
        text.append(" " * size)
    elif cell.value is None:
        text.append("·" * size, style="dim")
    else:
        level = (cell.value - low) / (high - low) if high != low else 0.0
        _append_level(text, level, size, selected=cell.selected, colour=colour, value=cell.value)


def _append_level(
    text: Text, level: float, size: int, *, selected: bool, colour: bool, value: float | None = None
) -> None:
    mark = MARK if selected else " "
    label = f"{value:.2f}".removeprefix("0").ljust(3) if value is not None and size > 2 else ""
    if colour:
        background = SCALE[step_of(level, 0.0, 1.0)]
        ink = "#000000" if level > 0.5 else "#ffffff"
        text.append((mark + label).ljust(size), style=Style(color=ink, bgcolor=background))
    else:
        if label:
            text.append((mark + label).ljust(size), style="bold" if selected else "")
            return
        shade = SHADES[min(int(level * len(SHADES)), len(SHADES) - 1)]
        text.append((MARK if selected else shade) + shade * (size - 1))


def _legend(
    low: float,
    high: float,
    cells: dict[tuple[str, int], GridCell],
    index: str,
    room: int,
    *,
    shaded: bool,
    colour: bool,
) -> list[Text]:
    """Return what the map's signs mean, in lines of at most `room` columns where that can be."""
    scale = Text(f"{index} {low:.3g} ")
    if high != low and not (shaded or colour):
        scale.append(f"to {high:.3g}")  # the numbers stand in the cells
    elif high != low:
        steps = len(SCALE) if colour else len(SHADES)
        for i in range(steps):
            _append_level(scale, (i + 0.5) / steps, 1 if colour else 2, selected=False, colour=colour)
        scale.append(f" {high:.3g}")
    else:
        scale.append("everywhere")
    parts = [scale]
    if any(cell.selected for cell in cells.values()):
        parts.append(Text(f"{MARK} selected"))
    if any(cell.value is None for cell in cells.values()):
        parts.append(Text("· no index"))
    if any(cell.count > 1 for cell in cells.values()):
        parts.append(Text(f"{'lowest' if _inverse(index) else 'highest'} of several modules"))
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 3 + part.cell_len <= room:
            lines[-1].append("   ").append_text(part)
        else:
            lines.append(part)
    return lines
