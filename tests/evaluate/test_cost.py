from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.evaluate.attach import State
from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.cost import MergeState, measure_costs
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.results import Cost
from s3lora.statistics import bootstrap_mean

PROMPTS = [Prompt.ask(text) for text in ("p0", "p1", "p2", "p3")]
#: The bits of State that are looked at here: different ones are different.
STATES = [(name, State(pruned=frozenset({name}))) for name in ("full", "cut", "base")]

Seconds = Callable[[str, int], float]


class Clockwork:
    """A model whose answers take known seconds, by state and round, and the clock that shows them."""

    def __init__(self, seconds: Seconds) -> None:
        self.seconds = seconds
        self.now = 1000.0
        self.adapters = self
        self.state = State(pruned=frozenset({"before"}))
        self.order: list[str] = []
        self.asked: list[tuple[int, int]] = []
        self.folded: list[bool] = []
        self.inside = False
        self.pending = 0.0

    def use(self, state: State) -> None:
        assert not self.inside
        # Switching and merging take time as well, which is not that of answers. A device may do it later.
        self.pending += 50
        self.state = state

    @contextmanager
    def merged(self) -> Iterator[None]:
        self.pending += 70
        self.inside = True
        yield
        self.inside = False
        self.pending += 90

    def wait(self) -> None:
        self.now += self.pending
        self.pending = 0.0

    def answer_exactly(self, prompts: Sequence[Prompt], tokens: int) -> None:
        self.wait()
        (name,) = self.state.pruned
        self.now += self.seconds(name, self.order.count(name))
        self.order.append(name)
        self.asked.append((len(prompts), tokens))
        self.folded.append(self.inside)


def measured(seconds: Seconds, *, names: int = 2, **keywords: Any) -> tuple[list[Cost], Clockwork]:
    model = Clockwork(seconds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: model.now)
        return measure_costs(cast(LocalModel, model), STATES[:names], PROMPTS, **keywords), model


def by_rounds(**rounds: Sequence[float]) -> Seconds:
    """Return known seconds for each timed round, and a warm-up that would spoil every number."""
    return lambda name, turn: 999.0 if turn == 0 else rounds[name][turn - 1]


def test_rounds_are_interleaved_and_turn_round() -> None:
    _, model = measured(lambda name, turn: 1.0, names=3, repeats=3)
    assert model.order == [
        *("full", "cut", "base"), *("base", "cut", "full"), *("full", "cut", "base"), *("base", "cut", "full"),
    ]  # fmt: skip


def test_the_cost_of_each_state() -> None:
    (full, cut), model = measured(by_rounds(full=[2, 4, 9], cut=[1, 2, 3]), repeats=3, tokens=10)
    # The warm-up is left out; medians are 4 and 2 seconds for 4 answers of 10 tokens.
    assert (full.samples, full.repeats, full.seconds_per_sample, full.tokens_per_second) == (4, 3, 1, 10)
    assert (cut.samples, cut.repeats, cut.seconds_per_sample, cut.tokens_per_second) == (4, 3, 0.5, 20)
    assert set(model.asked) == {(4, 10)}
    assert (full.ratio, full.ratio_low, full.ratio_high) == (None, None, None)
    assert full.sentence == "unmerged: 1 s a sample, 10 tokens a second"


def test_the_ratio_is_the_geometric_mean_over_rounds() -> None:
    (_, cut), _ = measured(by_rounds(full=[2, 4, 9] * 4, cut=[1, 2, 3] * 4), repeats=12, seed=5)
    assert cut.ratio is not None
    assert cut.ratio_low is not None
    assert cut.ratio_high is not None
    assert cut.ratio == pytest.approx((1 / 2 * 1 / 2 * 1 / 3) ** (1 / 3))
    logs = bootstrap_mean([math.log(1 / 2), math.log(1 / 2), math.log(1 / 3)] * 4, seed=5)
    assert cut.ratio_low == pytest.approx(math.exp(logs.low))
    assert cut.ratio_high == pytest.approx(math.exp(logs.high))


def test_few_rounds_have_no_interval() -> None:
    (_, cut), _ = measured(by_rounds(full=[2] * 9, cut=[1] * 9), repeats=9)
    assert (cut.ratio, cut.ratio_low, cut.ratio_high) == (pytest.approx(0.5), None, None)
    assert cut.sentence == "unmerged: ratio of seconds of cut to full 0.500; 10 rounds give an interval"


def test_a_machine_that_slows_down_slows_all_alike() -> None:
    load = [1, 3, 9, 2, 7, 1, 30, 4, 2, 5]
    (_, cut), _ = measured(by_rounds(full=load, cut=[0.8 * x for x in load]))
    assert (cut.repeats, cut.ratio, cut.ratio_low, cut.ratio_high) == (10, *[pytest.approx(0.8)] * 3)
    assert cut.sentence == (
        "unmerged: cut takes 20.0 % less time than full (ratio of seconds 0.800, 95 % interval 0.800 to 0.800)"
    )


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ([1.2, 1.3, 1.25, 1.2, 1.3, 1.25] * 2, "base takes"),
        (
            [0.8, 1.25, 0.9, 1.1, 1.0, 1.0] * 2,
            "no difference in speed can be told between base and full (ratio of seconds ",
        ),
        # Five rounds can all fall on one side by chance.
        ([0.5, 0.5, 0.6, 0.5, 0.6], "ratio of seconds of base to full 0.53"),
        ([0.5], "ratio of seconds of base to full 0.5"),
    ],
)
def test_a_sentence_says_no_more_than_the_interval(factors: list[float], words: str) -> None:
    found, _ = measured(
        by_rounds(full=[1] * 12, cut=[1] * 12, base=factors), names=3, repeats=len(factors), mode="merged"
    )
    assert found[2].sentence.startswith(f"merged: {words}")
    assert ("more time than full" in found[2].sentence) == (factors[0] == 1.2)
    assert ("no difference" in found[1].sentence) == (len(factors) >= 10)


@pytest.mark.parametrize("mode", ["unmerged", "merged"])
def test_merging_is_not_timed(mode: MergeState) -> None:
    found, model = measured(lambda name, turn: 8.0, repeats=2, mode=mode)
    assert [c.seconds_per_sample for c in found] == [2, 2]
    assert [c.mode for c in found] == [mode, mode]
    assert set(model.folded) == {mode == "merged"}


def test_the_state_afterwards() -> None:
    _, model = measured(lambda name, turn: 1.0, repeats=3)
    assert model.state == State(pruned=frozenset({"before"}))


def test_the_state_after_a_failure() -> None:
    def failing(name: str, turn: int) -> float:
        if turn == 1:
            raise RuntimeError("out of memory")
        return 1.0

    model = Clockwork(failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_costs(cast(LocalModel, model), STATES, PROMPTS)
    assert model.state == State(pruned=frozenset({"before"}))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=10, max_size=16))
def test_ratios_of_anything(rounds: list[tuple[float, float]]) -> None:
    (_, cut), _ = measured(by_rounds(full=[a for a, _ in rounds], cut=[b for _, b in rounds]), repeats=len(rounds))
    ratios = [b / a for a, b in rounds]
    assert cut.ratio is not None
    assert cut.ratio_low is not None
    assert cut.ratio_high is not None
    assert cut.ratio == pytest.approx(math.prod(ratios) ** (1 / len(ratios)))
    assert min(ratios) * (1 - 1e-9) <= cut.ratio_low <= cut.ratio_high <= max(ratios) * (1 + 1e-9)
    told = "takes" in cut.sentence
    assert not told or not cut.ratio_low <= 1 <= cut.ratio_high
