"""Reaching a level: what is returned was measured, lies on its side, and is near where the loss rises steadily."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from s3lora.repair.rising import MOST, reach


class Measured:
    """A loss that remembers where it was measured, and is never measured twice."""

    def __init__(self, loss: Callable[[float], float | None]) -> None:
        self.loss = loss
        self.known: dict[float, float] = {}

    def __call__(self, at: float) -> float | None:
        assert 0 < at <= 1
        assert at not in self.known
        found = self.loss(at)
        self.known[at] = math.inf if found is None else found
        return found


def sound(measured: Measured, level: float, low: float, high: float | None) -> None:
    """Hold what came out against what was measured."""
    assert len(measured.known) <= MOST
    assert low == 0 or measured.known[low] <= level
    if high is None:
        assert low == 1
    else:
        assert low < high
        assert measured.known[high] > level


@given(st.floats(0.01, 5), st.floats(1, 4), st.floats(0.02, 0.5), st.booleans())
def test_a_power(cost: float, power: float, level: float, above: bool) -> None:
    measured = Measured(lambda t: cost * t**power)
    low, high = reach(measured, level, 0.1, above=above)
    sound(measured, level, low, high)
    if high is not None:
        near = measured.known[high] - level if above else level - measured.known[low]
        assert near <= 0.1 * level + 1e-12
        assert len(measured.known) <= 5


@given(st.integers(0, 10**6), st.floats(0, 1), st.booleans())
def test_whatever_a_loss_does(seed: int, level: float, above: bool) -> None:
    def wild(at: float) -> float | None:
        rng = random.Random(f"{seed} {at}")
        return rng.choice((None, rng.random(), -rng.random(), 10 ** rng.uniform(-300, 300), 0.0, math.inf))

    measured = Measured(wild)
    sound(measured, level, *reach(measured, level, 0.1, above=above))


@given(st.integers(1, 120), st.floats(0.05, 0.9))
def test_steps(steps: int, level: float) -> None:
    """As where whole modules go: the level lies between two steps."""
    measured = Measured(lambda t: math.floor(t * steps) / steps)
    low, high = reach(measured, level, 0.1)
    sound(measured, level, low, high)
    assert high is not None
    assert high - low <= 0.5 or measured.known[low] >= 0.9 * level


def test_what_is_gained_is_no_loss() -> None:
    assert reach(lambda t: -t, 0.1, 0.1) == (1.0, None)
    low, high = reach(lambda t: t * (t - 0.5), 0.1, 0.1)
    assert high is not None
    assert 0.5 < low < 0.653 < high
