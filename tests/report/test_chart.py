"""Drawings of a page: well-formed, on their axes, with every interval that there is and none that there is not."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.evaluate.results import Measure, Metric, Sweep
from s3lora.report.axes import axis, axis_label, measure_axis
from s3lora.report.chart import (
    PENTAGON,
    RING,
    SIGNS,
    STAR,
    Chart,
    against_modules,
    against_utility,
    forest,
    legend,
    look,
)
from s3lora.report.colours import HUES
from s3lora.report.labels import beside
from s3lora.report.page import evaluation_page, sweep_page
from s3lora.report.sweep_view import apart, lines
from tests.examples import examples
from tests.report import measured
from tests.report.test_page import ATTACK
from tests.report.test_text import HOSTILE

TOPS = len(measured.TOPS)
RANKINGS, CONTROLS = len(measured.CURVES), len(measured.CONTROLS)


def drawings(sweep: Sweep) -> tuple[Chart, Chart]:
    modules, utility = against_modules(sweep), against_utility(sweep)
    assert modules is not None
    assert utility is not None
    return modules, utility


def without_intervals(sweep: Sweep) -> Sweep:
    def bare(metric: Metric) -> Metric:
        return dataclasses.replace(metric, low=None, high=None, interval="none")

    points = (dataclasses.replace(one, metrics=tuple(map(bare, one.metrics))) for one in sweep.points)
    return dataclasses.replace(sweep, points=tuple(points))


@pytest.mark.parametrize("name", [*HOSTILE, ATTACK])
def test_svg_is_well_formed(name: str) -> None:
    pages = [sweep_page(measured.hostile_sweep(name)), evaluation_page(measured.hostile_evaluation(name))]
    for page, least in zip(pages, (2, 2), strict=True):
        found = re.findall(r'<svg viewBox="[^"]*" role="img".*?</svg>', page, re.DOTALL)
        assert len(found) >= least
        for text in found:
            tree = ElementTree.fromstring(text)
            assert {element.tag for element in tree.iter()} <= {
                "svg", "title", "desc", "g", "text", "path", "polygon", "polyline",
            }  # fmt: skip
            ids = [element.get("id") for element in tree.iter() if element.get("id")]
            assert str(tree.get("aria-labelledby")).split() == ids


def test_everything_lies_within_the_frame() -> None:
    for chart in (*drawings(measured.sweep()), *drawings(measured.one_point_sweep_with_numbers())):
        spots = [spot for path in (*chart.areas, *chart.lines) for spot in path.spots]
        spots += [(sign.x, sign.y) for sign in chart.signs]
        assert spots
        for x, y in spots:
            assert chart.left - 0.1 <= x <= chart.right + 0.1
            assert chart.top - 0.1 <= y <= chart.bottom + 0.1


def test_every_interval_of_a_ranking_is_drawn() -> None:
    sweep = measured.sweep()
    chart = drawings(sweep)[0]
    bars = [path for path in chart.lines if "interval" in path.css]
    assert len(bars) == RANKINGS * TOPS
    step = apart(lines(sweep)) * (chart.x.at(1) - chart.x.at(0))
    ends = {tuple(round(y, 3) for _, y in bar.spots): bar for bar in bars}
    for point in sweep.points:
        metric = point.metric(*measured.ASR)
        if not point.control and metric is not None and metric.low is not None and metric.high is not None:
            bar = ends[round(chart.y.at(metric.low), 3), round(chart.y.at(metric.high), 3)]
            assert abs(bar.spots[0][0] - bar.spots[1][0]) < 1e-9
    for bar in bars:
        assert min(abs(bar.spots[0][0] - chart.x.at(top)) for top in measured.TOPS) <= 1.5 * step + 1e-9


def test_no_interval_is_drawn_where_there_is_none() -> None:
    for chart in drawings(without_intervals(measured.sweep())):
        css = [path.css for path in chart.lines if "interval" in path.css]
        assert all("control" in one for one in css)
    assert not [path for path in drawings(without_intervals(measured.sweep()))[0].lines if "interval" in path.css]


def test_the_front_has_its_rings_and_both_of_its_intervals() -> None:
    chart = drawings(measured.sweep())[1]
    front = len(measured.sweep().pareto)
    assert measured.sweep().pareto_variants == ("base",)
    assert sum(sign.shape == RING for sign in chart.signs) == front + 1
    at = [(sign.x, sign.y) for sign in chart.signs if sign.shape == PENTAGON]
    assert {(sign.x, sign.y) for sign in chart.signs if sign.shape == RING} >= set(at)
    bars = [path for path in chart.lines if "interval" in path.css and "control" not in path.css]
    assert len(bars) == 2 * front
    assert sum(bar.spots[0][1] == bar.spots[1][1] for bar in bars) == front, "across"
    assert sorted(label.text for label in chart.labels) == ["0", "30", "45", "60", "80"]
    [line] = [path for path in chart.lines if path.css == "front"]
    assert len(line.spots) == front + 1
    assert set(at) <= set(line.spots)


def test_controls_are_a_mean_with_the_range_of_their_seeds() -> None:
    sweep = measured.sweep()
    modules, utility = drawings(sweep)
    assert len(modules.areas) == CONTROLS
    means = {round(modules.y.at(s.mean), 3) for s in sweep.spreads if (s.suite, s.measure) == measured.ASR}
    shown = [path for path in modules.lines if path.css.startswith("control")]
    assert {round(y, 3) for path in shown for _, y in path.spots} == means
    signs = [sign for sign in utility.signs if sign.css.startswith("control")]
    assert len(signs) == CONTROLS * TOPS, "one a number of modules, and not one a seed"
    spread = next(s for s in sweep.spreads if (s.ranking, s.top, s.measure) == ("random", 80, "asr"))
    band = next(area for area in modules.areas if area.title == "random")
    at = [y for x, y in band.spots if abs(x - modules.x.at(80)) < 1e-6]
    assert sorted(at) == pytest.approx(sorted(modules.y.at(end) for end in (spread.least, spread.greatest)))


def test_one_seed_is_no_spread() -> None:
    sweep = measured.sweep()
    points = tuple(one for one in sweep.points if one.seed in (None, 0))
    spreads = tuple(dataclasses.replace(one, seeds=1, least=one.mean, greatest=one.mean) for one in sweep.spreads)
    alone = dataclasses.replace(sweep, points=points, spreads=spreads, pareto=())
    assert drawings(alone)[0].areas == []
    assert "random, seed 0" in sweep_page(alone)


def test_lines_never_reach_the_next_point() -> None:
    sweep = measured.sweep()
    many = [
        dataclasses.replace(one, ranking=f"{one.ranking} {i}")
        for i in range(12)
        for one in sweep.points
        if not one.control
    ]
    near = [dataclasses.replace(one, top=one.top // 10) for one in many]
    for points in (sweep.points, many, near):
        found = lines(dataclasses.replace(sweep, points=tuple(points), pareto=()))
        tops = sorted({point.top for point in points})
        rankings = sum(not line.control for line in found)
        gap = min(b - a for a, b in itertools.pairwise(tops))
        assert 0 < apart(found) * (rankings - 1) <= min(gap / 3, 0.03 * max(tops)) + 1e-12


def test_base_and_unpruned_are_there_for_comparison() -> None:
    modules, utility = drawings(measured.sweep())
    levels = {path.css: path.spots[0][1] for path in modules.lines if path.css.startswith("reference")}
    assert levels == {"reference unpruned": modules.y.at(1.0), "reference base": modules.y.at(0.02)}
    assert {sign.shape for sign in utility.signs} >= {STAR, PENTAGON}


def test_looks_differ() -> None:
    assert len({look(i) for i in range(2 * HUES)}) == 2 * HUES
    assert len({look(i)[1] for i in range(HUES)}) == HUES == len(SIGNS), "nobody needs the colour"
    assert len({look(i, control=True) for i in range(3)}) == 3


def test_the_legend_names_everything() -> None:
    texts = [entry.text for entry in legend(measured.sweep())]
    assert texts == [
        *measured.CURVES, *(f"{name} (control)" for name in measured.CONTROLS),
        "adapter, nothing pruned: 1.00 [0.96, 1.00]", "base model alone: 0.02 [0.01, 0.07]",
        "Pareto front, with its number of modules",
    ]  # fmt: skip


def test_no_drawing_without_numbers() -> None:
    assert against_modules(measured.bare_sweep()) is None
    assert against_utility(measured.bare_sweep()) is None
    assert against_utility(measured.one_point_sweep()) is None
    evaluation = measured.bare_evaluation()
    assert forest(evaluation, measured.SAFETY, measured.SAFETY.measures[0]) is None


def test_a_forest_has_a_line_a_variant() -> None:
    evaluation = measured.evaluation()
    chart = forest(evaluation, measured.SAFETY, measured.SAFETY.measures[0])
    assert chart is not None
    assert [text for _, text in chart.y.ticks] == [variant.name for variant in evaluation.variants]
    bars = [path for path in chart.lines if "interval" in path.css]
    for variant, bar, sign in zip(evaluation.variants, bars, chart.signs, strict=True):
        metric = variant.metric(*measured.ASR)
        assert metric is not None
        assert [x for x, _ in bar.spots] == [chart.x.at(end) for end in (metric.low, metric.high) if end is not None]
        assert sign.x == chart.x.at(metric.value or 0.0)


# --- axes and labels


@settings(max_examples=examples(300), derandomize=True)
@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.booleans())
def test_ticks_are_few_round_and_on_the_axis(low: float, size: float, whole: bool) -> None:
    made = axis((low, low + size), 40.0, 440.0, "x", whole=whole)
    assert len(made.ticks) <= 9
    pixels = [at for at, _ in made.ticks]
    assert pixels == sorted(set(pixels))
    assert all(made.start - 0.5 <= at <= made.end + 0.5 for at in pixels)
    if not whole:
        assert len(made.ticks) >= 3
    for at, text in made.ticks:
        assert math.isclose(made.at(float(text)), at, abs_tol=0.51)
        assert re.fullmatch(r"-?\d+", text) if whole else True


def test_rates_go_from_0_to_1_whatever_was_found() -> None:
    made = measure_axis(measured.SAFETY.measures[0], measured.ASR, [0.4, 0.5], 300.0, 10.0)
    assert (made.low, made.high) == (0.0, 1.0)
    assert [text for _, text in made.ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert made.label == "asr, lower is better"


@pytest.mark.parametrize("name", HOSTILE)
def test_labels_of_axes_fit(name: str) -> None:
    label = axis_label(Measure(name, "mean", "higher", "", unit=name), ("s", name))
    assert len(label) <= 58
    assert label.endswith(", higher is better")


@settings(max_examples=examples(300), derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=20))
def test_labels_stay_within_the_frame(spots: list[tuple[float, float]]) -> None:
    x, y = beside(spots[0], spots, (10.0, 8.0), ((0.0, 0.0), (100.0, 100.0)))
    assert 5 <= x <= 95
    assert 4 <= y <= 96


def test_labels_avoid_other_points() -> None:
    area = ((0.0, 0.0), (100.0, 100.0))
    free = beside((50.0, 50.0), [(50.0, 50.0)], (10.0, 8.0), area)
    assert beside((50.0, 50.0), [(50.0, 50.0), free], (10.0, 8.0), area) != free
