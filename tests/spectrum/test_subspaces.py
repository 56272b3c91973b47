"""Numerical ranks and principal angles, against dense updates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.subspaces import bases, numerical_rank, overlap
from tests.reference import dense
from tests.reference import subspaces as oracle
from tests.spectrum.cases import ILL, WELL, Factors, gaussian, orthogonal
from tests.spectrum.strategies import integer_factors, ranks, scalings, seeds, sizes


@pytest.mark.parametrize("name", WELL)
def test_a_full_rank_is_full(name: str) -> None:
    A, B = WELL[name]()
    assert numerical_rank(FactoredUpdate(A, B)) == len(A)


@pytest.mark.parametrize(
    ("name", "rank"),
    [("rank above m", 5), ("rank above n", 5), ("rank above both", 3), ("one entry", 1), ("dependent components", 4)],
)
def test_a_deficient_rank_is_found(name: str, rank: int) -> None:
    assert numerical_rank(FactoredUpdate(*ILL[name]())) == rank


@given(integer_factors(), scalings)
def test_the_rank_is_that_of_the_update(factors: Factors, scaling: float) -> None:
    A, B = factors
    assert numerical_rank(FactoredUpdate(A, B, scaling)) == oracle.rank(dense.delta(A, B))


def test_rounding_of_long_factors_is_no_rank() -> None:
    """Sums of adapters that were trained with one frozen A have its rank."""
    for seed in range(10):
        random = np.random.default_rng(seed)
        A = random.standard_normal((1, 20_000))
        assert numerical_rank(FactoredUpdate(np.repeat(A, 8, axis=0), random.standard_normal((2_000, 8)))) == 1


def test_an_update_that_is_not_zero_has_a_rank() -> None:
    """Both columns and rows survive here, and the singular values are below the rounding of what cancels."""
    update = FactoredUpdate([[1e20, 1.0], [1e20, -1.0]], [[1e20, -1e20], [1.0, 1.0]])
    assert not update.is_zero
    assert numerical_rank(update) == 1


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Factors, Factors]:
    """Draw factors of two updates of one shape, small integers, none of them a zero update."""
    m, n = draw(sizes), draw(sizes)
    found = []
    for _ in range(2):
        random, r = np.random.default_rng(draw(seeds)), draw(ranks)
        found.append((random.integers(-2, 3, (r, n)).astype(float), random.integers(-2, 3, (m, r)).astype(float)))
    assume(all(dense.delta(*factors).any() for factors in found))
    return found[0], found[1]


@given(pairs())
def test_overlaps_against_projectors(drawn: tuple[Factors, Factors]) -> None:
    """The integers are small, so that many updates are deficient, and many a space of a factor is larger than ΔW's."""
    first, second = (dense.delta(*factors) for factors in drawn)
    a, b = (bases(FactoredUpdate(*factors)) for factors in drawn)
    for left, right, x, y in ((a.columns, b.columns, first, second), (a.rows, b.rows, first.T, second.T)):
        assert left.shape == (len(x), oracle.rank(x))
        np.testing.assert_allclose(left.T @ left, np.eye(left.shape[1]), atol=1e-12)
        found = overlap(left, right)
        assert found.largest == pytest.approx(oracle.largest_cosine(x, y), abs=1e-6)  # the oracle takes a root
        assert found.mean_square == pytest.approx(oracle.mean_square(x, y), abs=1e-9)
        assert found.chance == max(oracle.rank(x), oracle.rank(y)) / len(x)
        assert 0.0 <= found.mean_square <= found.largest**2 + 1e-12 <= 1.0 + 1e-12


def test_known_angles() -> None:
    """Planes in four dimensions, one turned against the other by 30° and by 80°."""
    turned = np.cos(np.radians([30.0, 80.0]))
    first = np.eye(4)[:, :2]
    second = np.vstack((np.diag(turned), np.diag(np.sqrt(1 - turned**2))))
    frame = orthogonal(4, 5)
    found = overlap(frame @ first, frame @ second @ orthogonal(2, 1))
    assert found.largest == pytest.approx(turned[0])
    assert found.mean_square == pytest.approx(float(np.mean(turned**2)))
    assert found.chance == 0.5


def test_the_chance_is_that_of_random_subspaces() -> None:
    drawn = [
        overlap(*(bases(FactoredUpdate(*gaussian(40, 30, r, seed))).columns for r in (8, 3))).mean_square
        for seed in range(200)
    ]
    assert np.mean(drawn) == pytest.approx(8 / 40, abs=0.01)


@pytest.mark.parametrize("sizes", [(1e-30, 1e-30), (1e30, 1e30), (1e-150, 1e150), (1e120, 1e-90)])
def test_the_size_of_the_factors_does_not_matter(sizes: tuple[float, float]) -> None:
    A, B = gaussian(30, 20, 4)
    plain, scaled = bases(FactoredUpdate(A, B)), bases(FactoredUpdate(A * sizes[0], B * sizes[1]))
    assert overlap(plain.columns, scaled.columns).mean_square == pytest.approx(1.0)
    assert overlap(plain.rows, scaled.rows).mean_square == pytest.approx(1.0)
