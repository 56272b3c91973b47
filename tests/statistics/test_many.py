from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.statistics import holm, spearman
from tests.reference import statistics as reference


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-5, 5)), max_size=9))
def test_spearman_by_definition(items: list[tuple[int, float]]) -> None:
    x, y = [float(a) for a, _ in items], [b for _, b in items]
    found, wanted = spearman(x, y), reference.spearman(x, y)
    assert (found is None) == (wanted is None)
    if found is not None:
        assert found == pytest.approx(wanted, abs=1e-12)
        assert -1 <= found <= 1
        assert found == spearman(y, x)
        assert spearman(x, [-b for b in y]) == pytest.approx(-found, abs=1e-12)
        assert spearman([a**3 for a in x], y) == found


def test_spearman_by_hand() -> None:
    # 1 − 6·Σd² / (n·(n² − 1)) with d = 0, 1, −1, 0; then ranks 1, 2.5, 2.5 beside 1, 2, 3.
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 5, 5], [1, 2, 3]) == pytest.approx(math.sqrt(0.75))
    assert spearman([1, 2, 3], [10, 100, 1000]) == 1
    assert spearman([1, 1], [1, 2]) is None
    assert spearman([1], [1]) is None


def test_spearman_needs_pairs() -> None:
    with pytest.raises(ValueError, match="as many"):
        spearman([1], [1, 2])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_by_definition(values: list[float]) -> None:
    found = holm(values)
    assert found == pytest.approx(reference.holm(values))
    assert all(p <= q <= 1 for p, q in zip(values, found, strict=True))


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    # 3·0.01, 2·0.02, and the last is no less than the one before it.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.6]) == [1, 1]
