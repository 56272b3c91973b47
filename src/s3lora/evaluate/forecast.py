"""What a tuning can find out on so many items, said before the hours of trials that it takes.

Known then are the adapter and the base alone on the half to tune on. Two prunings are made up from them: one that gives
back half of what safety lost, and one that loses half of the floor. How likely are the tests to see the one and to
confirm the other, and how many items would they need?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, median

import numpy as np
from numpy.random import Generator

from s3lora.evaluate.budget import tested
from s3lora.evaluate.items import Items
from s3lora.evaluate.results import Key, Measure
from s3lora.evaluate.trials import Half
from s3lora.statistics import FEWEST
from s3lora.statistics.learned import POWER

#: Made-up prunings that power and numbers are averaged over.
DRAWS = 40


@dataclass(frozen=True, slots=True)
class Power:
    """How likely one test is to tell what is there: on `n` items now, and how many it needs for a power of 0.8.

    Items that belong together count as one in the test: `n` items are `units` of them. `needed` is None where no number
    of items is enough.
    """

    key: Key
    n: int
    units: int
    power: float
    needed: int | None


def gain_power(half: Half, seed: int) -> Power:
    """Return how likely it is to be seen that half of what safety lost is given back."""
    key = half.safety
    measure = half.bench.measures("safety")[key]
    return _power(half, key, measure, budget=0.0, share=0.5, change=_half_back(measure), seed=seed)


def floor_power(half: Half, key: Key, seed: int) -> Power:
    """Return how likely it is to be confirmed that a pruning keeps to the floor which loses half of it."""
    measure = half.bench.measures("utility")[key]
    share = half.floor / 2
    change = _flips(share) if measure.kind == "rate" else _shares(share)
    return _power(half, key, measure, budget=half.floor, share=share, change=change, seed=seed)


#: Makes the items of a pruning up: (adapter, base, random) → one number an item.
ItemEffect = Callable[["np.ndarray", "np.ndarray", Generator], "np.ndarray"]


def _power(
    half: Half, key: Key, measure: Measure, *, budget: float, share: float, change: ItemEffect, seed: int
) -> Power:
    items = half.items(key, half.adapter[1])
    found = [tested(measure, made, budget, share) for made in _made_up(items, change, seed)]
    if not found:
        return Power(key, 0, 0, 0.0, None)
    units = median(float("inf") if one.needed is None else float(one.needed) for one in found)
    needed = None if units == float("inf") else ceil(round(units) * items.n / items.units)
    return Power(key, items.n, items.units, fmean(one.power for one in found), needed)


def _made_up(items: Items, change: ItemEffect, seed: int) -> Iterator[Items]:
    random = np.random.default_rng(seed)
    _, *both = items.columns
    a, b = (np.array(column) for column in both)
    for _ in range(DRAWS if items.n else 0):
        yield items._replace(columns=(change(a, b, random).tolist(), *both))


def _half_back(measure: Measure) -> ItemEffect:
    """Half of the items go over to what the base does; means go half of the way."""
    if measure.kind == "mean":
        return _shares(0.5)
    return lambda a, b, random: np.where(random.random(len(a)) < 0.5, b, a)


def _shares(share: float) -> ItemEffect:
    """Every item loses a share of what it learned, times a factor with mean and deviation 1.

    In the reference experiment the deviation of what items lost was 0.2 to 0.7 of its mean.
    """
    return lambda a, b, random: a + share * (b - a) * random.exponential(size=len(a))


def _flips(share: float) -> ItemEffect:
    """Of items that are 0 or 1, twice the share of what was learned goes the base's way, and the share comes back."""

    def change(a: np.ndarray, b: np.ndarray, random: Generator) -> np.ndarray:
        net = share * float(np.mean(b - a))
        lost, won = (1 - a, a) if net > 0 else (a, 1 - a)  # who can still change so
        chance = lost * min(1.0, 2 * abs(net) / max(float(np.mean(lost)), 1e-9))
        chance = chance + won * min(1.0, abs(net) / max(float(np.mean(won)), 1e-9))
        return np.where(random.random(len(a)) < chance, 1 - a, a)

    return change


def forecast_sentence(powers: Sequence[Power], floor: float) -> str:
    """Say what can be told, of safety first and then of each measure of usefulness, and how many items it takes."""
    gain, *floors = powers
    told = [
        f"a fall of {gain.key[1]} by half of what the adapter added is seen with a probability of {gain.power:.2f} on "
        f"{_items(gain)}{_needs(gain)}"
    ]
    for one in floors:
        told.append(
            f"a loss of {floor * 50:g} % of what was learned is confirmed by {' '.join(one.key)} to be less than "
            f"{floor * 100:g} % with a probability of {one.power:.2f} on {_items(one)}{_needs(one)}"
        )
    return "Before the trials: " + "; ".join(told) + "."


def few_sentence(powers: Sequence[Power]) -> str | None:
    """Return the warning that so few items tell nothing, None where there are enough."""
    few = [f"{' '.join(one.key)} {_items(one)}" for one in powers if one.units < FEWEST]
    return f"hardly anything can be told from so few: {', '.join(few)} in one half" if few else None


def _items(one: Power) -> str:
    groups = "" if one.units == one.n else f" in {one.units} groups"
    return f"{one.n} item{'' if one.n == 1 else 's'}{groups}"


def _needs(one: Power) -> str:
    if one.needed is None:
        return ", and no number is enough"
    return "" if one.power >= POWER else f", and {POWER:g} needs about {max(one.needed, one.n + 1)} in each half"
