"""What a terminal shows of a detector and of its verdicts."""

from __future__ import annotations

import dataclasses

import pytest

from s3lora.fleet.detection.detector import Detector, LeftOut, judge
from s3lora.fleet.detection.training import train
from s3lora.fleet.signature import FEATURES
from s3lora.report.detector_text import detector_text, verdicts_text
from s3lora.report.text import to_text
from tests.fleet.detection.populations import Made, made

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def rows() -> Made:
    return made(200, shift=1.0, recipes=3)


@pytest.fixture(scope="module")
def detector(rows: Made) -> Detector:
    return train(rows.x, rows.y, recipes=rows.recipes, reference="our own adapters", recipes_from="facts")


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_detector_with_its_figures_and_its_caution(detector: Detector) -> None:
    text = to_text(detector_text(detector))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text.replace("… of a constant", ""), "nothing is cut"
    auc, rate = detector.held_out.auc, detector.held_out.false_positives
    assert auc is not None
    assert rate is not None
    assert f"{auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}] n = {auc.negative + auc.positive}" in text
    assert f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}] n = {rate.n}" in text
    assert "our own adapters" in text
    assert all(recipe.name in text for recipe in detector.recipes)
    assert detector.caution in words(text)
    assert "tells the labels apart" in words(text)


def test_a_detector_that_cannot_tell_says_so() -> None:
    population = made(200, shift=0.0)
    text = words(to_text(detector_text(train(population.x, population.y))))
    assert "cannot tell the labels apart: nothing is called unusual" in text
    assert "nothing is known of adapters of another" in text


def test_rows_left_out_are_named(detector: Detector) -> None:
    left = LeftOut("has no numbers", 4, ("a", "b\x1b[31m", "c", "d"))
    other = dataclasses.replace(detector, training=dataclasses.replace(detector.training, left_out=(left,)))
    text = to_text(detector_text(other))
    assert "4: has no numbers (a, b" in text
    assert "\x1b" not in text


def test_verdicts(detector: Detector, rows: Made) -> None:
    high, low = int(rows.y.argmax()), int(rows.y.argmin())
    values = [dict(zip(FEATURES["plain"], map(float, rows.x[i]), strict=True)) for i in (low, high)]
    far = values[0] | {"o_energy": 1e9}
    verdicts = [
        judge(detector, "adapters/low", values[0], "recipe 1"),
        judge(detector, "adapters/high\x1b[2J", values[1], "recipe 1"),
        judge(detector, "adapters/far", far, "recipe 99"),
        judge(detector, "adapters/none", {}, "recipe 99"),
    ]
    text = to_text(verdicts_text(detector, verdicts))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    lines = {line.split()[0]: line for line in text.splitlines() if "adapters/" in line}
    assert lines["adapters/low"].endswith(" not unusual")
    assert next(line for name, line in lines.items() if "high" in name).endswith("  unusual")
    assert lines["adapters/none"].endswith("nothing can be said")
    for note in (
        "1 adapter: far outside of the reference's range, where a probability is an extrapolation (o_energy)",
        "2 adapters: of a recipe that the reference has no adapter of",
        "1 adapter: no signature: no numbers for q, k, v, o",
    ):
        assert note in words(text)
    assert detector.caution in words(text)
    assert "our own adapters" in text
    assert "backdoor" not in text


def test_many_verdicts_are_cut_after_the_highest(detector: Detector, rows: Made) -> None:
    values = [dict(zip(FEATURES["plain"], map(float, row), strict=True)) for row in rows.x[:50]]
    verdicts = [judge(detector, f"adapter-{i}", value) for i, value in enumerate(values)]
    text = to_text(verdicts_text(detector, verdicts))
    highest = max(verdicts, key=lambda one: one.probability or 0.0)
    shown = [line.split()[0] for line in text.splitlines() if line.startswith(" adapter-")]
    assert len(shown) == 20
    assert shown[0] == highest.uri
    assert "… and 30 more" in text
