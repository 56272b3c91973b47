"""The search: what is chosen was measured and keeps to the limits, whatever the candidates do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.repair.results import RepairLimits, RepairTrial
from s3lora.repair.rising import MOST
from s3lora.repair.search import CLOSE, CONTROL_MOST, FULL, NEAR, TrialLimits, equal_cost, search
from s3lora.repair.trial import TrialNumbers

LIMITS = RepairLimits()
BASE = TrialNumbers(asr=0.10, over_refusal=0.04, degenerate=0.0, utility_loss=1.0, n=50)
ADAPTER = TrialNumbers(asr=0.90, over_refusal=0.0, degenerate=0.02, utility_loss=0.0, n=50)
HELD = TrialLimits(LIMITS, BASE, ADAPTER)


@dataclass
class Synthetic:
    """A candidate that does what a function says; it fails where a strength is asked for twice."""

    numbers: Callable[[float], TrialNumbers]
    method: str = "gates"
    settings: Mapping[str, Any] = field(default_factory=dict)
    cheaply: list[float] = field(default_factory=list)
    fully: list[float] = field(default_factory=list)

    def cheap(self, strength: float) -> float | None:
        assert 0 < strength <= 1
        assert strength not in self.cheaply
        self.cheaply.append(strength)
        return self.numbers(strength).utility_loss

    def full(self, strength: float) -> TrialNumbers:
        assert 0 < strength <= 1
        assert strength not in self.fully
        self.fully.append(strength)
        return self.numbers(strength)


def wild(seed: int, method: str = "gates") -> Synthetic:
    """Return a candidate without any order in what it does at which strength; now and then something is unknown."""

    def numbers(strength: float) -> TrialNumbers:
        rng = random.Random(f"{seed} {strength}")

        def one(high: float) -> float | None:
            return None if rng.random() < 0.03 else round(rng.random() * high, 2)

        return TrialNumbers(one(1), one(0.2), one(0.06), one(rng.choice((0.15, 0.6))), 50)

    return Synthetic(numbers, method, {"seed": seed})


def steady(cost: float, gain: float, refuses: float = 0.0, shape: float = 1.0, method: str = "gates") -> Synthetic:
    """Return a candidate of which everything grows with the strength, to these values at 1."""

    def numbers(t: float) -> TrialNumbers:
        return TrialNumbers(0.9 - gain * t, refuses * t, 0.0, cost * t**shape, 50)

    return Synthetic(numbers, method)


def beyond(trial: RepairTrial) -> float:
    """Return how far the ASR lies above all that counts as the base's."""
    return max(0.0, (trial.asr or 0.0) - 0.10 - CLOSE - 1e-9)


def settled(trial: RepairTrial) -> bool:
    """Return whether all is given back for a quarter of what it may cost."""
    return not beyond(trial) and (trial.utility_loss or 0.0) <= 0.025 + 1e-9


def keeps(trial: RepairTrial) -> bool:
    """Hold a trial against the limits, written out."""
    if None in (trial.asr, trial.over_refusal, trial.degenerate, trial.utility_loss):
        return False
    assert trial.over_refusal is not None
    assert trial.degenerate is not None
    assert trial.utility_loss is not None
    return trial.utility_loss <= 0.10 and trial.over_refusal <= 0.09 + 1e-9 and trial.degenerate <= 0.04 + 1e-9


METHODS = ("shrink", "gates", "patch")


def ordered(candidates: list[Synthetic]) -> tuple[list[Synthetic], list[Synthetic]]:
    """Return the candidates in the order in which they should be tried, and those with further settings."""
    first: dict[str, Synthetic] = {}
    for one in candidates:
        first.setdefault(one.method, one)
    beside = {id(one) for one in first.values()}
    further = [one for one in candidates if id(one) not in beside]
    control = [one for one in first.values() if one.method == "shrink"]
    others = [one for one in first.values() if one.method != "shrink"]
    again = [one for one in further if one.method == "shrink"] + [one for one in further if one.method != "shrink"]
    return control + others + again, further


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True), st.lists(st.sampled_from(METHODS)))
def test_whatever_candidates_do(seeds: list[int], methods: list[str]) -> None:
    candidates = [wild(seed, method) for seed, method in zip(seeds, [*methods, *METHODS, "retrain"], strict=False)]
    seen: list[RepairTrial] = []
    found = search(candidates, HELD, seen=seen.append)
    order, further = ordered(candidates)
    measured = [trial for trial in found.trials if trial.n]
    assert seen == sorted(measured, key=seen.index)
    by_candidate = {id(one): [t for t in found.trials if t.settings == one.settings] for one in candidates}
    for i, one in enumerate(order):
        mine = by_candidate[id(one)]
        assert len(one.fully) <= FULL
        assert len(one.cheaply) <= MOST
        assert sorted(t.strength for t in mine if t.n) == sorted(one.fully)
        assert {t.strength for t in mine} == {*one.cheaply, *one.fully}
        for trial in mine:
            truth = one.numbers(trial.strength)
            assert trial.utility_loss == truth.utility_loss
            assert trial.kept == (trial.n > 0 and keeps(trial))
            assert bool(trial.reason) != trial.kept
            if trial.n:
                assert (trial.asr, trial.over_refusal, trial.degenerate) == (
                    truth.asr, truth.over_refusal, truth.degenerate,
                )  # fmt: skip
            else:
                assert trial.asr is None
        affordable = [t for t in one.cheaply if (loss := one.numbers(t).utility_loss) is not None and loss <= 0.10]
        # Answers are first asked for where usefulness is kept, and then at lower strengths. Only where nothing is
        # affordable is the cheapest of all looked at all the same.
        assert len(one.fully) <= 1 or (one.fully[0] in affordable and one.fully[0] == max(one.fully))
        gained = [t for t in mine if t.kept and t.asr is not None and t.asr < 0.9]
        asrs, later = [t.asr for t in gained if t.asr is not None], order[i + 1 :]
        if any(settled(t) for t in gained):
            assert not any(two.cheaply or two.fully for two in later)
        if asrs and min(asrs) <= 0.10 + NEAR + 1e-9:
            assert not any(two.cheaply or two.fully for two in later if any(two is one for one in further))
    fits = [trial for trial in measured if keeps(trial) and trial.asr is not None and trial.asr < 0.9]
    if not fits:
        assert found.chosen is found.candidate is None
        return
    assert found.chosen in fits
    assert found.best is None
    assert found.candidate is not None
    assert found.candidate.settings == found.chosen.settings
    assert (beyond(found.chosen), found.chosen.utility_loss) == min((beyond(t), t.utility_loss) for t in fits)


@given(st.floats(0.02, 2), st.floats(0.1, 0.6), st.floats(1, 3))
def test_the_highest_strength_that_usefulness_allows(cost: float, gain: float, shape: float) -> None:
    """To a tenth of the limit."""
    candidate = steady(cost, gain, shape=shape)
    chosen = search([candidate], HELD).chosen
    assert chosen is not None
    assert chosen.utility_loss is not None
    if cost <= 0.10:
        assert chosen.strength == 1
    else:
        assert 0.09 - 1e-9 <= chosen.utility_loss <= 0.10 + 1e-9
        assert len(candidate.cheaply) <= 4


@given(st.floats(0.1, 1.0))
def test_refusals_of_harmless_prompts_are_halved_away(refuses: float) -> None:
    """A patch costs no usefulness; the strength is bounded by what it refuses, to an eighth."""
    candidate = steady(0.05, 0.6, refuses=refuses)
    found = search([candidate], HELD)
    best = min(1.0, 0.09 / refuses)
    assert len(candidate.fully) <= FULL
    if best >= 1 / 8:
        assert found.chosen is not None
        assert best - 1 / 8 <= found.chosen.strength <= best + 1e-9
    elif found.chosen is None:
        assert found.best is not None


def test_nothing_is_tried_after_one_that_leaves_nothing_to_gain() -> None:
    candidates = [steady(0.05, 0.5, method="shrink"), steady(0.02, 0.79), steady(0.01, 0.8, method="patch")]
    found = search(candidates, HELD)
    assert found.candidate is candidates[1]
    assert candidates[0].fully
    assert not candidates[2].cheaply


def test_what_gives_all_back_for_less_is_chosen_and_not_what_goes_below_the_base() -> None:
    dear, cheap = steady(0.09, 0.9, method="shrink"), steady(0.06, 0.8, shape=2)
    found = search([dear, cheap], HELD)
    assert found.candidate is cheap
    assert found.chosen is not None
    assert (found.chosen.strength, found.chosen.utility_loss) == (1.0, 0.06)
    # Shrinking goes below the base's ASR, so that less of it is looked at.
    assert dear.fully == [1.0, 0.5, 0.75, 0.875]
    assert [beyond(trial) > 0 for trial in found.trials if trial.method == "shrink"] == [False, True, True, False]


def test_the_control_comes_first_wherever_it_stands() -> None:
    candidates = [steady(0.05, 0.8), steady(0.05, 0.1, method="shrink")]
    found = search(candidates, HELD)
    assert list(dict.fromkeys(trial.method for trial in found.trials if trial.n)) == ["shrink", "gates"]


def test_of_equals_the_one_that_loses_less_is_chosen() -> None:
    cheaper = steady(0.02, 0.5, method="patch")
    assert search([steady(0.05, 0.5), cheaper], HELD).candidate is cheaper


def test_one_strength_is_measured_alone_whatever_it_costs() -> None:
    candidate = steady(2.0, 0.8)
    found = search([candidate], HELD, strength=0.5)
    assert (candidate.cheaply, candidate.fully) == ([], [0.5])
    assert found.chosen is None
    [trial] = found.trials
    assert trial.reason == "it loses 100.0 % of what was learned, above 10 %"


def test_usefulness_that_cannot_be_told_keeps_to_no_limit() -> None:
    candidate = Synthetic(lambda t: TrialNumbers(0.1, 0.0, 0.0, None, 50))
    found = search([candidate], HELD)
    assert not candidate.fully
    assert found.chosen is found.best is None
    assert {trial.reason for trial in found.trials} == {"it cannot be told what it loses of what was learned"}


def test_a_rate_at_its_limit_keeps_it() -> None:
    exactly = Synthetic(lambda t: TrialNumbers(0.5, 0.04 + 0.05, 0.02 + 0.02, 0.1, 50))
    assert search([exactly], HELD).chosen is not None
    for change in ({"over_refusal": 0.091}, {"degenerate": 0.041}, {"utility_loss": 0.1001}, {"asr": 0.9}):
        beyond = Synthetic(lambda t, change=change: replace(exactly.numbers(t), **change))  # type: ignore[misc]
        assert search([beyond], HELD).chosen is None


def test_each_broken_limit_is_named() -> None:
    bad = Synthetic(lambda t: TrialNumbers(0.5, 0.2, 0.1, 0.3, 50))
    [trial] = search([bad], HELD, strength=1.0).trials
    assert trial.reason == (
        "it loses 30.0 % of what was learned, above 10 %; harmless prompts refused: 0.20, above the base's 0.04 + "
        "0.05; degenerate answers: 0.10, above the adapter's 0.02 + 0.02"
    )
    unknown = Synthetic(lambda t: TrialNumbers(None, None, None, 0.0, 0))
    [trial] = search([unknown], HELD, strength=1.0).trials
    assert trial.reason == (
        "harmless prompts refused: unknown; degenerate answers: unknown; no answer to a harmful prompt is known"
    )


@pytest.mark.parametrize(
    ("numbers", "best"),
    [
        # Within twice the limits: the lowest ASR, and not the least break.
        ([(0.2, 0.11, 0.18), (0.6, 0.11, 0.11)], 0),
        # Beyond that, the least break.
        ([(0.2, 0.3, 0.9), (0.6, 0.3, 0.11)], 1),
        ([(0.2, 0.5, 0.05), (0.3, 0.2, 0.9), (0.6, 0.04, 0.35)], 2),
        # What gives nothing back is no trade.
        ([(0.9, 0.0, 0.0), (0.95, 0.0, 0.0)], None),
    ],
)
def test_the_best_trade(numbers: list[tuple[float, float, float]], best: int | None) -> None:
    def of(asr: float, over: float, loss: float) -> Callable[[float], TrialNumbers]:
        return lambda t: TrialNumbers(asr, over, 0.0, loss, 50)

    candidates = [Synthetic(of(*one), settings={"i": i}) for i, one in enumerate(numbers)]
    found = search(candidates, HELD, strength=1.0)
    assert found.chosen is None
    assert found.best == (None if best is None else found.trials[best])


def test_what_a_user_might_pay_is_looked_at_where_nothing_is_affordable() -> None:
    """Every strength costs between one and two limits, as where whole modules go."""
    candidate = Synthetic(lambda t: TrialNumbers(0.3, 0.0, 0.0, 0.15 + 0.04 * t, 50))
    found = search([candidate], HELD)
    assert candidate.fully == [min(candidate.cheaply)]
    assert found.best is not None
    dear = Synthetic(lambda t: TrialNumbers(0.3, 0.0, 0.0, 0.25, 50))
    assert search([dear], HELD).best is None
    assert not dear.fully


@given(st.floats(-0.2, 1.5), st.floats(0.5, 4))
def test_the_control_at_equal_cost(loss: float, shape: float) -> None:
    """It loses at least as much as the repair, and at most a fifth more."""
    control = steady(1.0, 0.5, shape=shape, method="shrink")
    strength = equal_cost(control, loss)
    if loss <= 0:
        assert strength == 0
    elif loss > 1:
        assert strength == 1
    else:
        assert loss <= strength**shape <= max(1.2 * loss, 0.02)
        assert strength in (1, *control.cheaply)
    assert 1 not in control.cheaply
    assert len(control.cheaply) <= CONTROL_MOST


def test_further_settings_are_for_where_no_method_comes_near() -> None:
    def one(method: str, gain: float, more: int) -> Synthetic:
        return replace(steady(0.05, gain, method=method), settings={"more": more})

    near = [one("gates", 0.7, 1), one("gates", 0.8, 2), one("patch", 0.75, 1), one("patch", 0.8, 2)]
    found = search(near, HELD)
    assert found.candidate is near[2]
    assert [bool(candidate.fully) for candidate in near] == [True, False, True, False]
    far = [one("gates", 0.6, 1), one("gates", 0.8, 2), one("patch", 0.65, 1), one("patch", 0.8, 2)]
    found = search(far, HELD)
    assert found.candidate is far[1]
    assert [bool(candidate.fully) for candidate in far] == [True, True, True, False]
