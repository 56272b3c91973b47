"""The figure of the comparison, as SVG with the same bytes at every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from experiments.repair.analyse import Compared, level_of
from experiments.repair.rows import LEVELS
from s3lora.report.axes import Axis, axis
from s3lora.report.chart import Chart, Label, LegendEntry, Sign, look
from s3lora.report.chart import Path as Line
from s3lora.report.labels import Spot, beside
from s3lora.report.sheet import sheet

NAME = "repair.svg"
#: Row → its name beside its line, its classes and its sign; controls are grey.
LINES = {
    "shrink": ("shrink", *look(0, control=True)),
    "gates": ("gates", *look(0)),
    "permuted": ("permuted", *look(1, control=True)),
    "patch": ("patch", *look(1)),
    "retrain": ("retrain", *look(2)),
    "ssi": ("SSI", *look(3)),
    "matched": ("matched", *look(2, control=True)),
}
ATTACKS = {"benign": "plans alone", "few": "20 openings", "many": "80 openings"}
#: The size of a drawing and its frame: left, top, right, bottom.
SIZE = (380.0, 320.0)
FRAME = (46.0, 12.0, 370.0, 274.0)
#: The height of a label, and the width of a letter.
HEIGHT, LETTER = 11.0, 6.6


def draw(runs: Sequence[Compared], folder: Path) -> None:
    """Draw ASR against the share of what was learned that is lost, attack by attack; nothing without results."""
    panels = [(title, [run for run in runs if run.attack == attack]) for attack, title in ATTACKS.items()]
    charts = [_chart(title, found) for title, found in panels if found]
    if charts:
        about = ["test part, means over adapters, at three strengths each"]
        entries = [
            LegendEntry(css, shape, f"{name}{', a control' * ('control' in css)}")
            for name, css, shape in LINES.values()
        ]
        entries += [
            LegendEntry("reference base", "", "base alone"),
            LegendEntry("reference", "", "the adapter as it is"),
        ]
        text = sheet("ASR against what a repair costs", about, charts, entries)
        (folder / NAME).write_text(text, encoding="utf-8")


def _chart(title: str, runs: Sequence[Compared]) -> Chart:
    """Draw one attack."""
    lines = {row: list(_spots(runs, row)) for row in LINES if all(row in run.rows for run in runs)}
    shares = [share for spots in lines.values() for share, _ in spots]
    x = axis((min(0.0, *shares), max(0.1, *shares)), FRAME[0], FRAME[2], "share of what was learned that is lost")
    y = axis((0.0, 1.0), FRAME[3], FRAME[1], "ASR: harmful prompts not refused")
    chart = Chart(x, y, f"{title}, n = {len(runs)}", "", width=SIZE[0], height=SIZE[1])
    for css, state in (("reference", "adapter_state"), ("reference base", "base_state")):
        level = y.at(fmean(run.test[state]["asr"]["value"] for run in runs))
        chart.lines.append(Line(css, ((chart.left, level), (chart.right, level))))
    taken: list[Spot] = []
    for row, spots in lines.items():
        _, css, shape = LINES[row]
        pixels = tuple((x.at(share), y.at(asr)) for share, asr in spots)
        chart.lines.append(Line(css, pixels))
        chart.signs.extend(Sign(css, shape, *spot) for spot in pixels[1:])
        taken.extend(pixels[1:])
    for row, spots in lines.items():
        _label(chart, LINES[row][0], spots[-1], taken, x, y)
    return chart


def _spots(runs: Sequence[Compared], row: str) -> Iterator[Spot]:
    """Yield (share lost, ASR), means over adapters: of the whole adapter, and at every level."""
    yield 0.0, fmean(run.test["adapter_state"]["asr"]["value"] for run in runs)
    for level in LEVELS:
        pick = level_of(level)
        yield fmean(run.value(row, "share", pick) for run in runs), fmean(run.value(row, "asr", pick) for run in runs)


def _label(chart: Chart, text: str, spot: Spot, taken: list[Spot], x: Axis, y: Axis) -> None:
    """Name a line at its end, where that hides least."""
    anchor = (x.at(spot[0]), y.at(spot[1]))
    area = ((FRAME[0], FRAME[1]), (FRAME[2], FRAME[3]))
    place = beside(anchor, taken, (LETTER * len(text), HEIGHT), area)
    # A label is as wide as several signs: others keep away from its ends too.
    taken.extend((place[0] + shift * LETTER * len(text) / 2, place[1]) for shift in (-0.8, 0.0, 0.8))
    chart.labels.append(Label(*place, text))
