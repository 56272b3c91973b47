"""A comparison as text for people: each step of more than two adapters, and the modules that changed most."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.measure.comparison import Comparison
from s3lora.report.blocks import at_most, labelled, warned
from s3lora.report.compare_others import others
from s3lora.report.compare_view import (
    ComparedModule,
    ComparisonView,
    cosine,
    distance_text,
    known,
    number,
    signed,
    view_of,
)
from s3lora.report.names import NameCell, tail

SHOWN = 10
#: Columns of the labels of what is not LoRA.
LABEL = 11
#: Heights of a sharpness, from the least to the greatest of all that are shown.
BARS = "▁▂▃▄▅▆▇█"


def compare_text(comparison: Comparison) -> RenderableType:
    """Return what changed from the first adapter to the last, the modules without a match, and the warnings."""
    view = view_of(comparison)
    moved = view.moved
    many = f"{len(view.labels)} {'looks' if view.watched else 'adapters'}, {view.common} common modules"
    held = f"{view.common} modules in both" if view.pair else many
    apart = f", {len(comparison.reshaped)} of another shape and not compared" if comparison.reshaped else ""
    names = [printable(name, 40 if view.pair else 30) for name in view.names]
    head = Text.assemble(
        (names[0], "bold"),
        " → ",
        (names[-1], "bold"),
        (f"  {held}, {len(moved)} changed{apart}", "dim"),
    )
    body: list[RenderableType] = [] if view.pair else [Text(), _stages(view)]
    if view.looks:
        body += [Text(), _refusals(view)]
    if moved:
        body += [Text(), _most(view, moved)]
    # Two adapters are told apart by their names, where these differ; for more, steps and numbers are shorter.
    called = names if view.pair and names[0] != names[1] else view.labels
    beside = others(comparison.tensors, called)
    nothing = "seen in training: what is not LoRA was not looked at"
    nothing = nothing if view.watched else f"nothing but LoRA in {'both' if view.pair else 'all'}"
    told = labelled(beside, "yellow", LABEL) if beside else [Text(nothing)]
    absent = [f"{about}: {_some(paths)}" for about, paths in view.absent(called)]
    return Group(head, *told, *body, *warned([*absent, *comparison.warnings]))


def _stages(view: ComparisonView) -> RenderableType:
    counted = view.axis == "training step"
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("step" if counted else "", no_wrap=True, justify="right")
    if not counted:
        table.add_column("adapter", ratio=1, no_wrap=True)
    for name in ("modules", f"median {_short(view)}", "highest", "‖ΔW‖", "distance", "cosine"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in view.stages():
        named = [] if counted else [NameCell(stage.name)]
        numbers = (stage.sharp, stage.sharpest, stage.frobenius, stage.distance)
        table.add_row(stage.label, *named, str(stage.modules), *map(number, numbers), cosine(stage.cosine))
    return table if counted else at_most(table)


def _refusals(view: ComparisonView) -> Table:
    """Return what became of the base's refusals while the adapter was trained."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("step", "refusal loss", "rise", "± error", "over-refusal", ""):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for look in view.looks:
        numbers = (number(look.loss), signed(look.rise), number(look.error), number(look.over_refusal))
        table.add_row(str(look.step), *numbers, "beyond" if look.beyond else "")
    return table


def _most(view: ComparisonView, moved: list[ComparedModule]) -> RenderableType:
    """Return the modules that moved farthest: for two adapters with both norms, for more with the sharpness drawn."""
    values = known([row.sharp[i] for row in moved[:SHOWN] for i in view.shown])
    low, high = min(values, default=0.0), max(values, default=1.0)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("changed most", ratio=1, no_wrap=True)
    heads = ("distance", "cosine", _short(view), "‖ΔW‖" if view.pair else "drawn")
    for name in heads:
        table.add_column(name, justify="left" if name == "drawn" else "right", no_wrap=True)
    for row in moved[:SHOWN]:
        drawn = "".join(_bar(row.sharp[i], low, high) for i in view.shown)
        last = _ends(row.norms) if view.pair else drawn
        told = (distance_text(row), cosine(row.module.net_cosine), _ends((row.sharp[0], row.sharp[-1])), last)
        table.add_row(NameCell(row.module.path), *told)
    if len(moved) > SHOWN:
        table.add_row(f"… and {len(moved) - SHOWN} more", *[""] * len(heads), style="dim")
    return at_most(table)


def _ends(values: tuple[float | None, float | None]) -> str:
    return f"{number(values[0])} → {number(values[1])}"


def _bar(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    share = (value - low) / (high - low) if high > low else 0.5
    return BARS[min(int(share * len(BARS)), len(BARS) - 1)]


def _short(view: ComparisonView) -> str:
    return "ssi" if view.index == "SSI" else "norm. ssi"


def _some(paths: list[str]) -> str:
    shown = ", ".join(tail(path, 60) for path in paths[:3])
    return f"{len(paths)} module{'' if len(paths) == 1 else 's'} ({shown}{', …' if len(paths) > 3 else ''})"
