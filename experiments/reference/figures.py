"""The figures of the reference experiment, as SVG with the same bytes at every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from experiments.reference.analyse import LOST, Run
from s3lora.report.axes import Axis, axis
from s3lora.report.chart import SPECKS, Chart, LegendEntry, Sign, look
from s3lora.report.chart import Path as Line
from s3lora.report.labels import Spot
from s3lora.report.sheet import sheet

#: Ranking → classes and sign; controls are grey.
LOOKS = {
    "weighted_ssi (mas-svd)": look(0),
    "ssi (mas-svd)": look(1),
    "magnitude (mas-svd)": look(2),
    "random": look(0, control=True),
    "random-matched to ssi (mas-svd)": look(1, control=True),
    "random-matched to weighted_ssi (mas-svd)": look(2, control=True),
}
ATTACKS = (("few", "20 affirmative openings"), ("many", "80 affirmative openings"))
#: The size of a drawing and its frame: left, top, right, bottom.
SIZE = (430.0, 306.0)
FRAME = (46.0, 12.0, 420.0, 260.0)


def draw(runs: Sequence[Run], folder: Path, names: Mapping[str, str]) -> None:
    """Draw ASR against modules pruned, and against the share of what was learned that is lost, attack by attack."""
    grids = [(title, [run for run in runs if run.grid and run.attack == attack]) for attack, title in ATTACKS]
    entries = [LegendEntry(*LOOKS[ranking], names[ranking]) for ranking in LOOKS]
    for name, title, about, plot in (
        ("asr.svg", "ASR against modules pruned", "means over the training seeds; small signs: each seed", _asr),
        ("tradeoff.svg", "ASR against what was lost", "from the whole adapter to the base model alone", _tradeoff),
    ):
        text = sheet(title, [about], [plot(caption, found) for caption, found in grids], entries)
        (folder / name).write_text(text, encoding="utf-8")


def _chart(title: str, x: Axis) -> Chart:
    y = axis((0.0, 1.0), FRAME[3], FRAME[1], "ASR: harmful prompts not refused")
    return Chart(x, y, title, "", width=SIZE[0], height=SIZE[1])


def _add_line(chart: Chart, ranking: str, spots: Iterable[Spot]) -> None:
    css, shape = LOOKS[ranking]
    pixels = tuple((chart.x.at(x), chart.y.at(y)) for x, y in spots)
    chart.lines.append(Line(css, pixels))
    chart.signs.extend(Sign(css, shape, *spot) for spot in pixels)


def _asr(title: str, runs: Sequence[Run]) -> Chart:
    """Draw means over the training seeds, and each seed as a small sign."""
    tops, total = runs[0].tops, runs[0].total
    whole = [0, *tops, total]
    x = axis((0, total), FRAME[0], FRAME[2], f"modules pruned of {total}")
    chart = _chart(title, replace(x, ticks=tuple((x.at(top), str(top)) for top in whole)))
    for ranking, (css, _) in LOOKS.items():
        columns = [[run.at(ranking, top, "asr") for run in runs] for top in tops]
        ends = [[run.variant(name, "asr") for run in runs] for name in ("unpruned", "base")]
        values = [fmean(column) for column in (ends[0], *columns, ends[1])]
        for top, column in zip(tops, columns, strict=True):
            chart.signs.extend(Sign(css, SPECKS[0], chart.x.at(top), chart.y.at(value)) for value in column)
        _add_line(chart, ranking, zip(whole, values, strict=True))
    return chart


def _tradeoff(title: str, runs: Sequence[Run]) -> Chart:
    """Draw the means over the training seeds, from the whole adapter to the base alone."""
    tops = runs[0].tops
    paths = {}
    for ranking in LOOKS:
        columns = [
            [fmean(run.variant("unpruned", measure) for run in runs)]
            + [fmean(run.at(ranking, top, measure) for run in runs) for top in tops]
            + [fmean(run.variant("base", measure) for run in runs)]
            for measure in (LOST, "asr")
        ]
        paths[ranking] = list(zip(*columns, strict=True))
    shares = [share for path in paths.values() for share, _ in path]
    x = axis((min(shares), max(shares)), FRAME[0], FRAME[2], "share of what was learned that is lost")
    chart = _chart(title, x)
    for ranking, path in paths.items():
        _add_line(chart, ranking, path)
    return chart
