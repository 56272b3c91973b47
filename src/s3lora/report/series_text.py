"""A series of adapters as text for people: each step, and the modules that changed most."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.measure.series import Series
from s3lora.report.blocks import warned
from s3lora.report.compare_view import Row, View, cosine, distance_text, known, number, view_of
from s3lora.report.names import Name, tail

SHOWN = 10
#: Heights of a sharpness, from the least to the greatest of all that are shown.
BARS = "▁▂▃▄▅▆▇█"


def series_text(series: Series) -> RenderableType:
    """Return the adapters of a series in numbers, and the modules that changed most from the first to the last."""
    view = view_of(series)
    a, b = view.names[0], view.names[-1]
    moved = view.moved
    head = Text.assemble(
        (printable(a, 30), "bold"),
        " → ",
        (printable(b, 30), "bold"),
        (f"  {len(view.labels)} adapters, {view.common} common modules, {len(moved)} changed", "dim"),
    )
    body: list[RenderableType] = [Text(), _stages(view)]
    if moved:
        body += [Text(), _most(view, moved)]
    absent = [f"{about}: {_some(paths)}" for about, paths in view.absent()]
    return Group(head, *body, *warned([*absent, *series.warnings]))


def _stages(view: View) -> Table:
    counted = view.axis == "training step"
    table = Table(box=None, padding=(0, 1), header_style="dim", width=None if counted else 80)
    table.add_column("step" if counted else "", no_wrap=True, justify="right")
    if not counted:
        table.add_column("adapter", ratio=1, no_wrap=True)
    for name in ("modules", f"median {_short(view)}", "highest", "‖ΔW‖", "distance", "cosine"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in view.stages():
        named = [] if counted else [Name(stage.name)]
        numbers = (stage.sharp, stage.sharpest, stage.frobenius, stage.distance)
        table.add_row(stage.label, *named, str(stage.modules), *map(number, numbers), cosine(stage.cosine))
    return table


def _most(view: View, moved: list[Row]) -> Table:
    values = known([row.sharp[i] for row in moved[:SHOWN] for i in view.shown])
    low, high = min(values, default=0.0), max(values, default=1.0)
    table = Table(box=None, padding=(0, 1), header_style="dim", width=80)
    table.add_column("changed most", ratio=1, no_wrap=True)
    table.add_column(_short(view), no_wrap=True)
    for name in ("first → last", "distance", "cosine"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in moved[:SHOWN]:
        drawn = "".join(_bar(row.sharp[i], low, high) for i in view.shown)
        ends = f"{number(row.sharp[0])} → {number(row.sharp[-1])}"
        table.add_row(Name(row.module.path), drawn, ends, distance_text(row), cosine(row.module.net_cosine))
    if len(moved) > SHOWN:
        table.add_row(f"… and {len(moved) - SHOWN} more", *[""] * 4, style="dim")
    return table


def _bar(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    share = (value - low) / (high - low) if high > low else 0.5
    return BARS[min(int(share * len(BARS)), len(BARS) - 1)]


def _short(view: View) -> str:
    return "ssi" if view.index == "SSI" else "norm. ssi"


def _some(paths: list[str]) -> str:
    shown = ", ".join(tail(path, 60) for path in paths[:3])
    return f"{len(paths)} module{'' if len(paths) == 1 else 's'} ({shown}{', …' if len(paths) > 3 else ''})"
