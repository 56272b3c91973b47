"""How many directions stand above noise: none of random factors, and those that were made larger."""

from __future__ import annotations

import numpy as np
import pytest

from s3lora.spectrum.nearest import above_noise, core_svd
from s3lora.spectrum.tall import Float


def drawn(m: int, n: int, r: int, larger: int = 0, count: int = 40) -> Float:
    """Return the singular values of products of random factors, the first `larger` directions ten times as large."""
    random = np.random.default_rng((m, n, r))
    sigma = []
    for _ in range(count):
        b = random.standard_normal((m, r))
        b[:, :larger] *= 10
        sigma.append(core_svd(random.standard_normal((r, n)), b).sigma)
    return np.array(sigma)


@pytest.mark.parametrize(("m", "n", "r"), [(64, 48, 4), (256, 256, 8), (300, 70, 16), (96, 64, 2), (40, 40, 40)])
def test_of_random_factors_none_does(m: int, n: int, r: int) -> None:
    assert set(above_noise(drawn(m, n, r), m, n)) == {0}


@pytest.mark.parametrize("larger", [1, 2, 3])
def test_larger_directions_do(larger: int) -> None:
    assert set(above_noise(drawn(256, 200, 12, larger), 256, 200)) == {larger}


def test_each_is_held_against_what_is_left() -> None:
    falling = 10.0 ** -np.arange(6)
    flat = np.ones(6)
    rows = np.array([falling, flat, np.zeros(6), [1, 0, 0, 0, 0, 0]])
    # Of the last two directions none stands out, for two are within what one of two random ones has.
    scales = np.array([[1e-200], [1e200], [1], [1]])
    counts = above_noise(rows * scales, 1000, 1000)
    assert counts == above_noise(rows, 1000, 1000)
    assert counts[1:] == [0, 0, 1]
    assert counts[0] in (4, 5)


def test_at_rank_1_nothing_is_known() -> None:
    assert above_noise(np.array([[3.0]]), 5000, 5000) == [0]
    assert above_noise(np.zeros((2, 0)), 10, 10) == [0, 0]
