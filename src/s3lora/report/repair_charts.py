"""The drawings of a repair: before and after, what all trials traded, and where it lay by layer and projection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from s3lora.repair.results import ModuleAttribution, PartName, Repair, RepairTrial
from s3lora.report.axes import Axis, axis, measure_axis
from s3lora.report.chart import (
    BOTTOM,
    LEFT,
    NAMED,
    RIGHT,
    RING,
    TOP,
    Chart,
    Label,
    LegendEntry,
    Path,
    Sign,
    StackedRow,
    look,
    stacked,
)
from s3lora.report.colours import SCALE, step_of
from s3lora.report.heatmap import labels_of, row_key
from s3lora.report.labels import Spot, beside
from s3lora.report.repair_view import (
    in_order,
    is_chosen,
    lost,
    measured_keys,
    metric_of,
    signed_percent,
    states,
    trial_name,
)
from s3lora.report.scan_charts import HIGH, NARROW, ROOM, WIDE, HeatMap, HeatMapCell, framed, label_room
from s3lora.report.scan_charts import TOP as MAP_TOP
from s3lora.report.values import decimal, learned_text, measure_of, metric_text

SHARE = "lost of what was learned, in %"


def before_and_after(repair: Repair) -> list[Chart]:
    """Return one drawing a rate, and one of the share of what was learned: each state with its interval."""
    drawn = []
    for key in measured_keys(repair):
        measure = measure_of(repair.suites, key)
        metrics = [(name, metric_of(one, key)) for name, one in states(repair)]
        rows = [StackedRow(name, name, m.value or 0.0, m.low, m.high, metric_text(m)) for name, m in metrics if m]
        x = axis((0.0, 1.0), NAMED, RIGHT, f"{key[1]}, lower is better")
        said = f"{key[1]}: {measure.about}" if measure is not None and measure.about else ""
        drawn.append(stacked(rows, x, f"{key[1]} before and after", f"{key[1]} with its 95 % interval.", said))
    return [chart for chart in (*drawn, _learned(repair)) if chart is not None]


def _learned(repair: Repair) -> Chart | None:
    """Return the share of what was learned that each state has lost: 100 % of the base and 0 % of the adapter."""
    rows = []
    for name, one in states(repair):
        share = lost(repair, one)
        if one.kind in ("base", "adapter"):
            whole = 100.0 * (one.kind == "base")
            rows.append(StackedRow(name, name, whole, None, None, f"{whole:.0f} %"))
        elif share is not None and share.value is not None:
            low, high = (None if end is None else 100 * end for end in (share.low, share.high))
            rows.append(StackedRow(name, name, 100 * share.value, low, high, learned_text(share)))
    if repair.utility is None or len(rows) < 3:  # of base and adapter alone there is nothing to say
        return None
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    x = axis((min(ends), max(ends)), NAMED, RIGHT, f"{SHARE}, lower is better")
    about = f"by {repair.utility[1]} of {repair.utility[0]}: the adapter is 0 %, the base 100 %"
    summary = "The share of what was learned that each state has lost, with its 95 % interval."
    return stacked(rows, x, "what was learned, lost", summary, about)


def trade_off(repair: Repair) -> Chart | None:
    """Return ASR of all trials against the share of what was learned that they lose, None where none has both.

    A trial that keeps to all limits is filled; the one that was proved is ringed; a line joins the strengths of one
    method and its settings, from the adapter as it is.
    """
    spots = _spots(repair)
    if not spots:
        return None
    shares = [100 * share for _, share, _ in spots]
    bound = 100 * repair.limits.utility_loss
    x = axis((min(0.0, *shares), max(bound * 1.3, *shares)), LEFT, RIGHT, SHARE)
    name = repair.safety[1]
    measure = measure_of(repair.suites, repair.safety)
    y = measure_axis(measure, repair.safety, (0.0, 1.0), BOTTOM, TOP) if measure else _rate(name)
    summary = f"{name} and the share of what was learned that is lost, of each trial on the tuning part."
    about = "on the tuning part; numbers are strengths; filled: within all limits, hollow: not"
    chart = Chart(x, y, f"{name} against what was learned, lost", summary, about)
    at = x.at(bound)
    chart.lines.append(Path("reference", ((at, chart.top), (at, chart.bottom)), f"limit: {bound:g} %"))
    part, levels = _levels(repair)
    for state, level in levels:
        ends = ((chart.left, y.at(level)), (chart.right, y.at(level)))
        chart.lines.append(Path(f"reference {state}", ends, f"{state}, {part} part: {decimal(level)}"))
    methods, start = _methods(repair), repair.tuning_asr.get("adapter")
    for trials in _runs(spots).values():
        css, _ = look(methods.index(trials[0][0].method))
        points = [(share, asr) for _, share, asr in trials]
        points = points if start is None else [(0.0, start), *points]
        chart.lines.append(Path(css, tuple((x.at(100 * share), y.at(asr)) for share, asr in points)))
    for trial, share, asr in spots:
        css, shape = look(methods.index(trial.method))
        place = (x.at(100 * share), y.at(asr))
        title = f"{trial_name(trial)} at strength {trial.strength:.3g}: {name} {asr:.2f}, {100 * share:.1f} % lost"
        chart.signs.append(Sign(css if trial.kept else f"{css} open", shape, *place, title))
        if is_chosen(repair, trial):
            chart.signs.append(Sign("hollow", RING, *place))
    _add_strengths(chart, spots)
    return chart


def trade_off_legend(repair: Repair) -> list[LegendEntry]:
    """Return what colours, signs and lines mean in the drawing of all trials."""
    methods = _methods(repair)
    spots = _spots(repair)
    drawn = {trial.method for trial, _, _ in spots}
    entries = [LegendEntry(*look(methods.index(name)), name) for name in methods if name in drawn]
    entries.append(LegendEntry("reference", "", f"limit: {100 * repair.limits.utility_loss:g} % of what was learned"))
    part, levels = _levels(repair)
    entries += [LegendEntry(f"reference {state}", "", f"{state}, {part} part") for state, _ in levels]
    if any(is_chosen(repair, trial) for trial, _, _ in spots):
        entries.append(LegendEntry("hollow", RING, "chosen", line=False))
    return entries


_Spot = tuple[RepairTrial, float, float]


def _spots(repair: Repair) -> list[_Spot]:
    """Return (trial, share of what was learned lost, ASR) of those that have both."""
    return [(t, t.utility_loss, t.asr) for t in in_order(repair) if t.utility_loss is not None and t.asr is not None]


def _runs(spots: Sequence[_Spot]) -> dict[str, list[_Spot]]:
    runs: dict[str, list[_Spot]] = {}
    for spot in spots:
        runs.setdefault(trial_name(spot[0]), []).append(spot)
    return runs


def _methods(repair: Repair) -> list[str]:
    return list(dict.fromkeys(trial.method for trial in repair.trials))


def _rate(name: str) -> Axis:
    return axis((0.0, 1.0), BOTTOM, TOP, f"{name}, lower is better")


def _levels(repair: Repair) -> tuple[PartName, list[tuple[str, float]]]:
    """Return the ASR of adapter and base on the part of the trials, or where that was not kept on the other one."""
    if repair.tuning_asr:
        return "tuning", [(name, repair.tuning_asr[name]) for name in ("adapter", "base") if name in repair.tuning_asr]
    found = (("adapter", repair.adapter), ("base", repair.base))
    known = [(name, m.value) for name, one in found if (m := metric_of(one, repair.safety)) and m.value is not None]
    return repair.measured_on, known


def _add_strengths(chart: Chart, spots: Sequence[_Spot]) -> None:
    taken: list[Spot] = [(chart.x.at(100 * share), chart.y.at(asr)) for _, share, asr in spots]
    area = ((LEFT, TOP - 8), (RIGHT, BOTTOM))
    for (trial, _, _), spot in zip(spots, list(taken), strict=True):
        text = f"{trial.strength:.3g}".removeprefix("0") or "0"
        place = beside(spot, taken, (7.0 * len(text), 11.0), area, gap=7.0)
        taken.append(place)
        chart.labels.append(Label(*place, text))


@dataclass(frozen=True, slots=True)
class RepairMap:
    """A map of one share by layer and projection, with what stands at the ends of its scale and the number of steps."""

    title: str
    about: str
    map: HeatMap
    ends: tuple[str, str, int]


def maps(repair: Repair) -> list[RepairMap]:
    """Return the maps of what was lost and of what was learned, and that of the gates if there are some.

    There are none where fewer than two modules have a layer.
    """
    modules = () if repair.attribution is None else repair.attribution.modules
    placed = [module for module in modules if module.layer is not None]
    if len(placed) < 2:
        return []
    shares: tuple[tuple[str, str, Callable[[ModuleAttribution], float]], ...] = (
        ("what was lost", "its share of the refusals that were lost", lambda module: module.lost),
        ("what was learned", "its share of what the adapter learned", lambda module: module.learned),
    )
    made = []
    for title, about, share in shares:
        cells = _cells(placed, share)
        span = min(0.0, *cells.values()), max(cells.values())
        ends = (signed_percent(span[0]), signed_percent(span[1]), len(SCALE))
        made.append(RepairMap(title, about, _drawn(placed, cells, span, signed_percent), ends))
    gated = [module for module in placed if module.gates]
    if gated:
        kept = _means(gated)
        about = "the mean of what its singular values are multiplied by"
        made.append(RepairMap("gates", about, _drawn(placed, kept, (0.0, 1.0), decimal), ("0", "1", len(SCALE))))
    return made


_Place = tuple[str, int]


def _cells(modules: Sequence[ModuleAttribution], share: Callable[[ModuleAttribution], float]) -> dict[_Place, float]:
    """Return the share of each projection and layer, which several modules add up to."""
    labels = labels_of(modules)
    cells: dict[_Place, float] = {}
    for module in modules:
        place = labels[module.path], module.layer or 0
        cells[place] = cells.get(place, 0.0) + share(module)
    return cells


def _means(modules: Sequence[ModuleAttribution]) -> dict[_Place, float]:
    sums = _cells(modules, lambda module: sum(module.gates))
    counts = _cells(modules, lambda module: len(module.gates))
    return {place: total / counts[place] for place, total in sums.items()}


def _drawn(
    modules: Sequence[ModuleAttribution],
    cells: dict[_Place, float],
    span: tuple[float, float],
    text: Callable[[float], str],
) -> HeatMap:
    """Return a map: projections down, layers across; a place that no module is in stays empty."""
    labels = labels_of(modules)
    names = sorted({labels[module.path] for module in modules}, key=row_key)
    layers = sorted({module.layer for module in modules if module.layer is not None})
    wide = min(max(ROOM / len(layers), NARROW), WIDE)
    high = min(wide, HIGH)
    left = label_room(names)
    rows: list[list[HeatMapCell]] = [[] for _ in names]
    for row, name in enumerate(names):
        for column, layer in enumerate(layers):
            value = cells.get((name, layer))
            if value is not None:
                title = f"layer {layer} {name}: {text(value)}"
                x, y = left + column * wide, MAP_TOP + row * high
                rows[row].append(HeatMapCell(x, y, f"h{step_of(value, *span)}", title))
    return framed(names, layers, rows, (wide, high))
