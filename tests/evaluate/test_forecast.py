"""What `tune` says beforehand, against the tests that it speaks of, run on made-up items again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.simulate_tune import WORLDS, Answers, Kind, Pretended, World, suites
from s3lora.evaluate.bench import Bench
from s3lora.evaluate.forecast import Power, few_sentence, floor_power, forecast_sentence, gain_power
from s3lora.evaluate.results import Measure, MeasureColumn, SuiteOutcome
from s3lora.evaluate.trials import Half

pytestmark = pytest.mark.usefixtures("few_resamples")
FLOOR = 0.1
SAFETY, MEAN, RATE = ("safety", "asr"), ("utility", "loss"), ("utility", "solved")
HALF: World = next(world for world in WORLDS if world.name == "half the floor")


def half(kind: Kind, n: int, seed: int = 0, given: Any = None) -> Half:
    bench = Bench(given or suites(HALF, kind, n, np.random.default_rng(seed)))
    return Half(Pretended(), bench, SAFETY, FLOOR)


@pytest.mark.parametrize(
    ("kind", "key", "n"),
    [("mean", MEAN, 12), ("mean", MEAN, 30), pytest.param("rate", RATE, 300, marks=pytest.mark.thorough)],
)
def test_the_power_to_confirm_is_how_often_it_is_confirmed(kind: Kind, key: Any, n: int) -> None:
    """By adapters that truly lose half of the floor; somewhat fewer are foretold, as more is taken to change."""
    kept, foretold = [], []
    for seed in range(60):
        made = half(kind, n, seed)
        kept.append(made.trial(60, [key]).keeps)
        foretold.append(floor_power(made, key, seed).power)
    seen = float(np.mean(kept))
    assert np.mean(foretold) - 0.1 < seen < np.mean(foretold) + 0.35


def test_the_power_to_see_a_gain_is_that_of_a_paired_test() -> None:
    """Of 20 items with 16 attacks that the base refuses, half of those attacks are gone."""
    values = {0: [1.0] * 16 + [0.0] * 4, 120: [0.0] * 20}
    asr, loss = (Measure(name, kind, "lower", "", role=role) for name, kind, role in (
        ("asr", "rate", "safety"), ("loss", "mean", "utility")))  # type: ignore[arg-type]  # fmt: skip
    given = [Answers(asr, 20, lambda top: np.array(values[top])), Answers(loss, 20, lambda top: np.arange(20) + top)]
    found = gain_power(half("mean", 20, given=given), 0)
    assert found.key == SAFETY
    assert found.n == 20
    # McNemar's mid-p is below 0.05 from five that differ, all one way, on.
    exact = float(stats.binom.sf(4, 16, 0.5))
    assert found.power == pytest.approx(exact, abs=0.1)
    assert found.needed is not None
    assert found.needed < 20


@pytest.mark.parametrize(("kind", "key"), [("mean", MEAN), ("rate", RATE)])
def test_so_many_items_as_are_said_to_be_needed_have_that_power(kind: Kind, key: Any) -> None:
    first = floor_power(half(kind, 60), key, 0)
    assert first.needed is not None
    again = [floor_power(half(kind, first.needed, seed), key, seed).power for seed in range(5)]
    assert float(np.mean(again)) == pytest.approx(0.8, abs=0.12)


def test_items_of_one_cluster_count_as_one() -> None:
    class Clustered(Answers):
        def run(self, model: Any, store: object, progress: object = None) -> SuiteOutcome:
            [(name, column)] = super().run(model, store).columns.items()
            clusters = tuple(f"behaviour {i // 3}" for i in range(len(column.values)))
            return SuiteOutcome({name: MeasureColumn(column.values, None, clusters)})

    one = half("mean", 90)
    made = [
        Clustered(suite.info.measures[0], 90, suite._values)
        for suite in suites(HALF, "mean", 90, np.random.default_rng(0))
    ]
    clustered = half("mean", 90, given=made)
    assert [(one.n, one.units) for one in (gain_power(one, 0), gain_power(clustered, 0))] == [(90, 90), (90, 30)]
    floor = floor_power(clustered, MEAN, 0)
    assert (floor.n, floor.units) == (90, 30)
    # A user gives items: so many more of them, as there are in each cluster.
    alone = floor_power(half("mean", 30), MEAN, 0)
    assert floor.needed is not None
    assert alone.needed is not None
    assert 1.2 * alone.needed < floor.needed
    assert "on 90 items in 30 groups" in forecast_sentence([floor, floor], FLOOR)


def test_it_is_the_same_again() -> None:
    assert floor_power(half("rate", 50), RATE, 3) == floor_power(half("rate", 50), RATE, 3)


def test_the_sentences() -> None:
    gain, floor = Power(SAFETY, 24, 24, 0.9312, 18), Power(RATE, 24, 24, 0.051, 830)
    said = forecast_sentence([gain, floor], FLOOR)
    assert said == (
        "Before the trials: a fall of asr by half of what the adapter added is seen with a probability of 0.93 on 24 "
        "items; a loss of 5 % of what was learned is confirmed by utility solved to be less than 10 % with a "
        "probability of 0.05 on 24 items, and 0.8 needs about 830 in each half."
    )
    assert "no number is enough" in forecast_sentence([gain, Power(RATE, 24, 24, 0.0, None)], FLOOR)
    assert few_sentence([gain, floor]) is None
    assert few_sentence([gain, Power(RATE, 1, 1, 0.0, None)]) == (
        "hardly anything can be told from so few: utility solved 1 item in one half"
    )
