from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.spectrum import dense as module
from s3lora.spectrum import leading as decomposition
from s3lora.spectrum.dense import DenseMatrix, dense, inner_of, plus_matrix, plus_product
from s3lora.spectrum.dense_scores import DENSE_METHODS, dense_scores
from s3lora.spectrum.indices import INDICES
from s3lora.spectrum.intruders import base_directions, intruders
from s3lora.spectrum.leading import leading
from tests.reference import base_weights as reference
from tests.reference import dense as slow

PLAIN = ["ssi", "normalised_ssi", "weighted_ssi", "magnitude", "frobenius", "stable_rank", "effective_rank",
         "spectral_entropy", "energy", "kurtosis"]  # fmt: skip


def random(m: int, n: int, seed: int = 0, decay: float = 1.0) -> np.ndarray:
    """Return a matrix with singular values decay^k."""
    generator = np.random.default_rng(seed)
    p = min(m, n)
    u, v = np.linalg.qr(generator.normal(size=(m, p)))[0], np.linalg.qr(generator.normal(size=(n, p)))[0]
    return (u * decay ** np.arange(p)) @ v.T


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold nothing, and read three rows at a time of matrices with 7 columns."""
    monkeypatch.setattr(module, "HELD", 0)
    monkeypatch.setattr(module, "PIECE", 21)


@pytest.fixture
def randomised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decompose nothing as it is."""
    monkeypatch.setattr(decomposition, "is_exact", lambda shape, count=None: False)


def test_norms_and_products_by_pieces_are_those_of_the_whole(pieces: None) -> None:
    values = np.random.default_rng(1).normal(size=(11, 7))
    matrix, right = dense(values.astype(np.float32)), np.random.default_rng(2).normal(size=(7, 3))
    values = values.astype(np.float32).astype(np.float64)
    assert [rows for rows, _ in matrix.pieces()] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 11)]
    assert np.allclose(matrix.norms.rows, slow.row_norms(values), rtol=1e-14)
    assert np.allclose(matrix.norms.columns, slow.column_norms(values), rtol=1e-14)
    assert matrix.norms.frobenius == pytest.approx(np.linalg.norm(values), rel=1e-14)
    assert np.allclose(matrix.times(right), values @ right)
    left, back = matrix.squared(right)
    assert np.allclose(left, values @ right)
    assert np.allclose(back, values.T @ (values @ right))
    rows, columns = np.arange(11.0), np.arange(7.0)
    assert np.allclose(matrix.scaled(rows=rows).whole(), values * rows[:, None])
    assert np.allclose(matrix.scaled(columns=columns).whole(), values * columns)
    assert inner_of(matrix, matrix) == pytest.approx(matrix.norms.frobenius**2)
    assert plus_matrix(matrix, matrix, -1.0).is_zero


def test_a_product_is_added_row_by_row(pieces: None) -> None:
    generator = np.random.default_rng(3)
    weight, a, b = generator.normal(size=(11, 7)), generator.normal(size=(2, 7)), generator.normal(size=(11, 2))
    assert np.allclose(plus_product(dense(weight), a, b, 0.5).whole(), weight + slow.delta(a, b, 0.5))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_found_when_it_is_read(bad: float) -> None:
    values = np.ones((4, 3))
    values[2, 1] = bad
    with pytest.raises(FloatingPointError):
        _ = dense(values).norms


@pytest.mark.parametrize("shape", [(9, 7), (7, 9), (1, 5), (5, 1), (12, 12)])
@pytest.mark.parametrize("method", ["svd", "mas-svd", "spsvd"])
def test_scores_of_a_small_matrix_are_those_of_the_dense_one(method: str, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(4).normal(size=shape)
    count = min(3, *shape)
    found = dense_scores(dense(values), method, count, 0, PLAIN)
    expected = {"svd": slow.svd, "mas-svd": slow.mas_svd, "spsvd": slow.spsvd_l2}[method](values, count)
    assert np.allclose(found.sigma, expected, rtol=1e-10)
    assert found.error == 0.0
    every = slow.singular_values(values)
    share = every / every.sum()
    assert found.indices["frobenius"] == pytest.approx(np.linalg.norm(values))
    assert found.indices["stable_rank"] == pytest.approx(np.sum(every**2) / every[0] ** 2)
    assert found.indices["energy"] == pytest.approx(every[0] ** 2 / np.sum(every**2))
    assert found.indices["effective_rank"] == pytest.approx(math.exp(-np.sum(share * np.log(share))))
    centred = values - values.mean()
    assert found.indices["kurtosis"] == pytest.approx(np.mean(centred**4) / np.mean(centred**2) ** 2 - 3)
    assert found.indices["ssi"] == pytest.approx(expected[0] / np.sum(expected))
    assert found.indices["magnitude"] == pytest.approx(expected[0])


@pytest.mark.parametrize("method", DENSE_METHODS)
def test_scores_of_a_large_matrix_are_near_those_of_the_dense_one(method: str, randomised: None) -> None:
    values = random(60, 80, decay=0.9)
    exact = {"svd": slow.svd, "mas-svd": slow.mas_svd, "spsvd": slow.spsvd_l2}[method](values, 4)
    found = dense_scores(dense(values), method, 4, 0, PLAIN)
    assert np.allclose(found.sigma, exact, rtol=1e-3)
    assert found.indices["stable_rank"] == pytest.approx(np.sum(slow.singular_values(values) ** 2), rel=1e-3)
    assert 0 < found.error < 0.1


def test_what_needs_the_whole_spectrum_is_not_told_of_a_large_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3lora.spectrum.dense_scores.is_exact", lambda shape: False)
    monkeypatch.setattr(decomposition, "is_exact", lambda shape, count=None: False)
    found = dense_scores(dense(random(60, 50, decay=0.9)), "svd", 4, 0, list(INDICES))
    unknown = {name for name, value in found.indices.items() if value is None}
    assert unknown == {"effective_rank", "spectral_entropy"}


def test_a_method_that_is_not_computed_gives_no_components() -> None:
    found = dense_scores(dense(random(6, 5)), "released", 3, 0, PLAIN)
    assert found.sigma == ()
    assert found.indices["ssi"] is None
    assert found.indices["frobenius"] is not None


def test_a_zero_matrix_has_no_components() -> None:
    found = dense_scores(dense(np.zeros((4, 3))), "mas-svd", 2, 0, PLAIN)
    assert found.sigma == ()
    assert found.indices["frobenius"] == 0.0
    assert found.indices["ssi"] is None


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 12),
    st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.01]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 1e-30, 1e30]),
)
def test_no_randomised_value_is_above_the_true_one_and_the_bound_holds(
    m: int, n: int, count: int, decay: float, seed: int, scale: float
) -> None:
    values = scale * random(m, n, seed, decay)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decomposition, "is_exact", lambda shape, count=None: False)
        found = leading(dense(values), count, seed)
    true = slow.singular_values(values)[: len(found.values)]
    slack = 1e-12 * true[0]
    assert np.all(found.values <= true + slack)
    assert np.all(true <= found.values + found.error + slack)
    assert np.allclose(found.left.T @ found.left, np.eye(len(true)), atol=1e-8)
    assert np.allclose(found.right.T @ found.right, np.eye(len(true)), atol=1e-8)
    # The vectors belong to the values: A·v = σ̂·u exactly, as far as rounding lets them.
    assert np.allclose(values @ found.right, found.left * found.values, atol=1e-9 * scale)


def test_the_bound_says_something_where_the_spectrum_falls_slowly(randomised: None) -> None:
    values = np.random.default_rng(6).normal(size=(300, 400))
    values += 3 * np.outer(np.ones(300), np.ones(400)) / 10
    found = leading(dense(values), 4)
    true = slow.singular_values(values)[:4]
    assert np.all(true - found.values <= found.error)
    assert found.error < 0.5 * true[0]


def test_the_angle_is_no_smaller_than_the_true_one(randomised: None) -> None:
    for decay, passes in ((0.5, 6), (0.9, 2), (0.9, 6), (0.99, 6), (0.9, 40)):
        values = random(80, 60, 5, decay)
        found = leading(dense(values), 5, passes=passes)
        true = np.linalg.svd(values)[2][:5].T
        sine = np.linalg.norm(found.right - true @ (true.T @ found.right), 2)
        assert sine <= found.angle + 1e-12
    assert found.angle < 1e-9
    equal = leading(dense(np.eye(60)), 5)
    assert equal.angle == 1.0


def test_the_seed_decides(randomised: None) -> None:
    matrix = dense(np.random.default_rng(7).normal(size=(60, 60)))
    assert np.array_equal(leading(matrix, 3, 1).values, leading(matrix, 3, 1).values)
    assert not np.array_equal(leading(matrix, 3, 1).values, leading(matrix, 3, 2).values)


def test_rows_are_made_again_where_they_are_not_held(pieces: None) -> None:
    calls: list[tuple[int, int]] = []

    def rows(start: int, stop: int) -> np.ndarray:
        calls.append((start, stop))
        return np.ones((stop - start, 7))

    matrix = DenseMatrix((6, 7), rows)
    assert matrix.norms.frobenius == pytest.approx(math.sqrt(42))
    matrix.times(np.ones((7, 1)))
    assert calls == [(0, 3), (3, 6)] * 2


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 3.0])
def test_intruders_are_those_of_the_published_algorithm(strength: float) -> None:
    generator = np.random.default_rng(8)
    weight = generator.normal(size=(40, 30))
    tuned = weight + strength * generator.normal(size=(40, 3)) @ generator.normal(size=(3, 30))
    found = intruders(base_directions(dense(weight)), dense(tuned))
    assert found == (reference.intruders(weight, tuned), 10, 30)
    assert (found.found == 0) == (strength == 0.0)


def test_a_large_weight_is_compared_by_its_largest_directions(
    randomised: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3lora.spectrum.intruders.is_exact", lambda shape: False)
    monkeypatch.setattr("s3lora.spectrum.intruders.COMPARED", 20)
    weight, change = random(90, 70, decay=0.8), np.zeros((90, 70))
    change[:, 3] = 0.7
    found = intruders(base_directions(dense(weight)), dense(weight + change))
    assert found.compared == 20
    assert found.found == reference.intruders(weight, weight + change) > 0
