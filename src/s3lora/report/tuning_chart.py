"""What `tune` tried as a drawing: one measure against the number of modules pruned, on both halves of the data."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.evaluate.results import Key, Metric, Tuning
from s3lora.report.axes import axis, measure_axis
from s3lora.report.chart import BOTTOM, RIGHT, RING, SIGNS, TOP, Chart, LegendEntry, Path, Sign
from s3lora.report.values import measure_of, metric_text

#: Where the axis begins: further in than that of rates alone, for numbers of several digits.
LEFT = 62.0
#: Classes and signs of the halves, and by how many pixels the second stands beside the first.
HALVES = (("tuning half", "c0", SIGNS[0], -4.0), ("held-out half", "c1", SIGNS[1], 4.0))


def tried(tuning: Tuning, key: Key) -> Chart | None:
    """Return one measure at every number of modules that was measured, None where none has a number."""
    halves = [_spots(tuning, key, held_out=held_out) for held_out in (False, True)]
    metrics = [metric for spots in halves for _, metric in spots]
    if not metrics:
        return None
    base = None if tuning.tuning_base is None else tuning.tuning_base.metric(*key)
    level = None if base is None else base.value
    measure = measure_of(tuning.suites, key)
    label = f"LoRA modules pruned, of {tuning.modules_total}"
    x = axis((0, max(tuning.modules_total, 1)), LEFT, RIGHT, label, whole=True)
    ends = [level, *(end for m in metrics for end in (m.value, m.low, m.high))]
    y = measure_axis(measure, key, ends, BOTTOM, TOP)
    said = f"{key[1]}: {measure.about}" if measure is not None and measure.about else ""
    summary = f"{key[1]} at each number of modules that was tried, with 95 % intervals."
    chart = Chart(x, y, f"{key[1]} against modules pruned", summary, said)
    if base is not None and level is not None:
        line = ((chart.left, y.at(level)), (chart.right, y.at(level)))
        chart.lines.append(Path("reference base", line, f"no adapter, tuning half: {metric_text(base)}"))
    for spots, (name, css, shape, shift) in zip(halves, HALVES, strict=True):
        places = [(x.at(top) + shift, y.at(metric.value or 0.0)) for top, metric in spots]
        if len(places) > 1:
            chart.lines.append(Path(css, tuple(places), name))
        for (top, metric), (across, up) in zip(spots, places, strict=True):
            if metric.low is not None and metric.high is not None:
                chart.lines.append(Path(f"interval {css}", ((across, y.at(metric.low)), (across, y.at(metric.high)))))
            chart.signs.append(Sign(css, shape, across, up, f"{name}, {top} pruned: {metric_text(metric)}"))
            if top and top == tuning.top:
                chart.signs.append(Sign("hollow", RING, across, up))
    return chart


def legend(tuning: Tuning) -> list[LegendEntry]:
    """Return what signs and rings mean in the drawings."""
    entries = [LegendEntry(css, shape, name) for name, css, shape, _ in HALVES]
    if tuning.tuning_base is not None:
        entries.append(LegendEntry("reference base", "", "no adapter, on the tuning half"))
    if tuning.top:
        entries.append(LegendEntry("hollow", RING, "chosen", line=False))
    return entries


def _spots(tuning: Tuning, key: Key, *, held_out: bool) -> Sequence[tuple[int, Metric]]:
    """Return (modules pruned, metric) of one half in their order, the unpruned adapter first."""
    unpruned = tuning.held_out_unpruned if held_out else tuning.tuning_unpruned
    points = tuning.tried if not held_out else () if tuning.confirmed is None else (tuning.confirmed,)
    found = [
        (0, None if unpruned is None else unpruned.metric(*key)),
        *((point.top, point.metric(*key)) for point in points),
    ]
    return sorted(
        ((top, metric) for top, metric in found if metric is not None and metric.value is not None),
        key=lambda spot: spot[0],
    )
