"""The drawings of a population, held against the numbers that they show."""

from __future__ import annotations

import dataclasses
import math
import re
from itertools import pairwise

import pytest

from s3lora.fleet.populations.unusual import ZSpread
from s3lora.measure.against import FAR
from s3lora.report.population_charts import FRAME, ridges, spread
from tests.report import made_population as made

EDGES = tuple(i / 2 - 10 for i in range(41))
BAR = re.compile(r"M([\d.]+) ([\d.]+)v-([\d.]+)H([\d.]+)V[\d.]+z")


def bars(path: str) -> dict[float, float]:
    """Return the upper end of each bar by the middle of the bar."""
    found = (tuple(map(float, bar)) for bar in BAR.findall(path))
    return {(left + right) / 2: bottom - tall for left, bottom, tall, right in found}


@pytest.mark.parametrize("most", [1, 9, 10, 250, 40_000])
def test_bars_reach_the_ticks_of_their_counts(most: int) -> None:
    """The axis is logarithmic, the same for both summaries, and ends above the highest bar of either."""
    _, top, _, bottom = FRAME
    powers = [10**i for i in range(6) if 10**i <= most]
    counts = tuple([*powers, most] + [0] * (40 - len(powers) - 1))
    both = ZSpread(EDGES, counts, tuple(1 for _ in counts))
    ranking = dataclasses.replace(made.ranking(()), spread=both)
    drawn = spread(ranking, counts, "z")
    ends = [at for _, at in sorted(bars(drawn.bars + drawn.beyond).items())]
    ticks = {text.replace(",", ""): at for at, text in drawn.up}
    assert ends[: len(powers)] == pytest.approx([ticks[str(power)] for power in powers], abs=0.06)
    assert min(ticks.values()) >= top - 1e-9
    highest = min(ends)
    assert highest == pytest.approx(top, abs=0.06) if most >= 9 else highest > (top + bottom) / 2
    gaps = [one - other for one, other in pairwise(ticks[str(power)] for power in powers)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps) if gaps else [])
    assert bottom - ticks["1"] == pytest.approx((bottom - top) * math.log(1.6) / math.log(1.6 * max(most, 9)))
    other = spread(ranking, both.sharpest, "z")
    turned = dataclasses.replace(ranking, spread=ZSpread(EDGES, both.sharpest, both.median))
    assert other.up == drawn.up == spread(turned, counts, "z").up, "or the two could not be compared"
    assert list(bars(other.bars + other.beyond).values()) == pytest.approx([ticks["1"]] * 40, abs=0.06)
    assert bottom - ticks["1"] > 3, "one adapter is to be seen"


def test_bars_beyond_the_cuts_are_told_apart() -> None:
    left, _, right, _ = FRAME
    counts = (5,) * 40
    ranking = dataclasses.replace(made.ranking(()), spread=ZSpread(EDGES, counts, counts))
    drawn = spread(ranking, counts, "z")
    middles = [left + (right - left) * (i + 0.5) / 40 for i in range(40)]
    far = [at for at, (low, high) in zip(middles, pairwise(EDGES), strict=True) if low >= FAR or high <= -FAR]
    assert list(bars(drawn.beyond)) == pytest.approx(far, abs=0.06)
    assert len(bars(drawn.bars)) + len(far) == 40
    assert drawn.cuts == pytest.approx((left + (right - left) * 6.5 / 20, left + (right - left) * 13.5 / 20))


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_what_has_no_logarithm_lies_at_the_low_end(value: float) -> None:
    one = made.distribution("magnitude")
    low = dataclasses.replace(one, all=dataclasses.replace(one.all, median=value, q25=value))
    drawn = ridges(low, ())
    assert drawn.middle == drawn.left
