"""When an adapter is called unusual against a reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.measure.against import ENDS, FAR, TELLING, Mark, unusual
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import INDICES, Spectra
from s3lora.statistics import wilson


def mark(percentile: float, adapters: int, z: float | None) -> Mark:
    found = wilson(round(percentile / 100 * adapters), adapters)
    return Mark(1.0, percentile, 100 * found.low, 100 * found.high, z)


def test_fewer_adapters_cannot_tell() -> None:
    assert 100 * wilson(TELLING, TELLING).low > ENDS[1]
    assert 100 * wilson(TELLING - 1, TELLING - 1).low <= ENDS[1]
    assert 100 * wilson(0, TELLING).high < ENDS[0] <= 100 * wilson(0, TELLING - 1).high


@pytest.mark.parametrize(
    ("percentile", "adapters", "z", "word"),
    [
        (100, 80, 4.0, "high"),
        (0, 80, -4.0, "low"),
        (100, 80, 3.5, "no"),  # the largest of a population has nothing unusual by itself
        (97, 80, 9.0, "no"),  # far out, as others are as well
        (97, 5000, 9.0, "high"),
        (100, 72, 9.0, "unknown"),
        (0, 20, -9.0, "unknown"),
        (100, 72, 3.0, "no"),
        (50, 3, 0.1, "no"),
        (100, 80, None, "unknown"),
        (50, 80, None, "no"),
        (90, 80, None, "no"),
        (90, 60, None, "unknown"),
    ],
)
def test_what_is_unusual(percentile: float, adapters: int, z: float | None, word: str) -> None:
    assert unusual(mark(percentile, adapters, z), adapters) == word


@given(st.floats(0, 100), st.integers(1, 3000), st.floats(-20, 20))
def test_both_ends_are_alike_and_never_called_lightly(percentile: float, adapters: int, size: float) -> None:
    z = abs(size) if percentile > 50 else -abs(size)
    share = round(percentile / 100 * adapters) / adapters * 100
    one, other = mark(share, adapters, z), mark(100 - share, adapters, -z)
    swapped = {"high": "low", "low": "high"}
    word = unusual(one, adapters)
    assert unusual(other, adapters) == swapped.get(word, word)
    if word in swapped:
        assert adapters >= TELLING
        assert abs(z) > FAR
        assert one.low > ENDS[1] or one.high < ENDS[0]


def test_what_hinders_leaves_no_verdict() -> None:
    for percentile, z in ((100, 9.0), (50, 0.0), (100, None)):
        assert unusual(mark(percentile, 80, z), 80, "mixed_ranks") == "unknown"


def test_which_indices_depend_on_the_rank() -> None:
    """By random updates: what says nothing at rank 1, and what a larger rank moves by itself."""
    random = np.random.default_rng(5)
    found: dict[int, dict[str, list[float]]] = {}
    for rank in (1, 4, 32):
        found[rank] = {name: [] for name in INDICES}
        for _ in range(5):
            update = FactoredUpdate(random.normal(size=(rank, 48)), random.normal(size=(64, rank)), 1 / rank)
            measured = Spectra(update.singular_values, update)
            for name, index in INDICES.items():
                found[rank][name].append(index.of(measured))
    for name in INDICES:
        at_one = np.asarray(found[1][name])
        silent = bool(np.isnan(at_one).all()) or float(np.ptp(at_one)) < 1e-9
        assert INDICES[name].silent == silent, name
        few, many = np.median(found[4][name]), np.median(found[32][name])
        if INDICES[name].by_rank:
            assert max(few / many, many / few) > 1.5, name
