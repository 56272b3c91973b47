"""Hypothesis strategies for factors."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from tests.spectrum.cases import Factors, conditioned, gaussian

Float = NDArray[np.float64]

sizes = st.integers(1, 12)
ranks = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)
powers = st.floats(-20.0, 20.0)
#: Scalings that are no power of two, of either sign.
scalings = st.builds(lambda sign, power: sign * 10.0**power, st.sampled_from([-1.0, 1.0]), powers)


@st.composite
def integer_factors(draw: st.DrawFn) -> Factors:
    """Draw factors of small integers: repeated, zero and cancelling rows and columns, deficient ranks, zero updates."""
    m, n, r = draw(sizes), draw(sizes), draw(ranks)
    small = st.integers(-3, 3)
    A: NDArray[Any] = draw(npst.arrays(np.int8, (r, n), elements=small))
    B: NDArray[Any] = draw(npst.arrays(np.int8, (m, r), elements=small))
    return A.astype(np.float64), B.astype(np.float64)


@st.composite
def gaussian_factors(draw: st.DrawFn) -> Factors:
    """Draw Gaussian factors at least five times as long as wide, so that their condition is below ten or so."""
    rank = draw(ranks)
    m, n = draw(st.integers(5 * rank, 60)), draw(st.integers(5 * rank, 60))
    return gaussian(m, n, rank, draw(seeds))


@st.composite
def gauges(draw: st.DrawFn, rank: int) -> tuple[Float, Float]:
    """Draw R (rank × rank) of condition up to 100, and R⁻¹."""
    return conditioned(rank, draw(st.floats(1.0, 100.0)), draw(st.integers(0, 2**31)))


#: Descending lists with at least one positive value, some of them zeros.
spectra = st.lists(st.floats(0.0, 1e6).map(lambda x: x if x > 1e-6 else 0.0), min_size=1, max_size=20).map(
    lambda values: np.array(sorted([*values, 1.0], reverse=True))
)
