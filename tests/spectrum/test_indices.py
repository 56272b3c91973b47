"""The indices against their definitions on the dense matrix, and at the ends of their ranges."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from s3lora.spectrum import indices as ix
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.methods import mas_svd
from tests.command import SOURCE
from tests.reference import dense
from tests.spectrum.cases import SCALING, WELL

Float = NDArray[np.float64]

SHARPNESS = ("ssi", "normalised_ssi", "weighted_ssi", "magnitude")
PLAIN = ("stable_rank", "effective_rank", "spectral_entropy", "energy")


def _function(name: str) -> Callable[[Float], float]:
    function: Callable[[Float], float] = getattr(ix, name)
    return function


@pytest.mark.parametrize("name", [name for name in WELL if name != "rank-1"])
def test_every_index_is_its_definition(name: str) -> None:
    A, B = WELL[name]()
    update, matrix = FactoredUpdate(A, B, SCALING), dense.delta(A, B, SCALING)
    true_sigma = dense.mas_svd(matrix, update.rank)
    for index in SHARPNESS:
        assert _function(index)(mas_svd(update)) == pytest.approx(getattr(dense, index)(true_sigma), rel=1e-9, abs=0)
    for index in PLAIN:
        assert _function(index)(update.singular_values) == pytest.approx(getattr(dense, index)(matrix), rel=1e-9, abs=0)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 64])
def test_ends_of_the_ranges(count: int) -> None:
    flat = np.full(count, 0.3)  # five of them add up to more than 1.5: rounding must not leave the range
    single = np.zeros(count)
    single[0] = 0.3
    for sigma, ssi, rank, entropy in ((flat, 1 / count, count, math.log(count)), (single, 1.0, 1.0, 0.0)):
        assert ix.ssi(sigma) == pytest.approx(ssi, rel=1e-14)
        assert ix.normalised_ssi(sigma) == pytest.approx((ssi - 1 / count) / (1 - 1 / count), abs=1e-14)
        assert 0.0 <= ix.normalised_ssi(sigma) <= 1.0
        assert ix.weighted_ssi(sigma) == pytest.approx(sigma[0] * ssi, rel=1e-14)
        assert ix.magnitude(sigma) == sigma[0]
        assert ix.stable_rank(sigma) == pytest.approx(rank, rel=1e-14)
        assert ix.effective_rank(sigma) == pytest.approx(rank, rel=1e-13)
        assert ix.spectral_entropy(sigma) == pytest.approx(entropy, rel=1e-14)
        assert ix.energy(sigma) == pytest.approx(1 / rank, rel=1e-14)


def test_one_component_is_always_sharp_and_has_no_normalised_index() -> None:
    sigma = np.array([0.7])
    assert ix.ssi(sigma) == 1.0
    assert math.isnan(ix.normalised_ssi(sigma))
    assert ix.weighted_ssi(sigma) == 0.7
    assert ix.effective_rank(sigma) == ix.stable_rank(sigma) == ix.energy(sigma) == 1.0
    assert str(ix.spectral_entropy(sigma)) == "0.0"  # not −0.0, which a report would show


@pytest.mark.parametrize("index", [*SHARPNESS, *PLAIN])
def test_no_update_no_index(index: str) -> None:
    assert math.isnan(_function(index)(np.zeros(0)))
    if index != "magnitude":
        assert math.isnan(_function(index)(np.zeros(3)))


@pytest.mark.parametrize("index", [*SHARPNESS, *PLAIN])
def test_shares_that_underflow_are_nothing_and_no_warning(index: str) -> None:
    sigma, plain = np.array([1e250, 1e240, 1e-250]), np.array([1e250, 1e240])
    found = _function(index)(sigma)
    if index != "normalised_ssi":  # the only one that counts components
        assert found == pytest.approx(_function(index)(plain), rel=1e-14)


def test_the_table_says_which_indices_have_no_scale() -> None:
    sigma = np.array([3.0, 2.0, 0.5])
    for name in (*SHARPNESS, *PLAIN):
        same = bool(_function(name)(sigma) == pytest.approx(_function(name)(1000 * sigma), rel=1e-12))
        assert ix.INDICES[name].scale_free is same
    assert not ix.INDICES["frobenius"].scale_free
    assert ix.INDICES["kurtosis"].scale_free


def test_the_table_says_which_end_is_sharp() -> None:
    blunt, sharp = np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.0, 0.1, 0.1, 0.1])
    for name in (*SHARPNESS, *PLAIN):
        rises = _function(name)(sharp) >= _function(name)(blunt)
        assert ix.INDICES[name].sharp == ("high" if rises else "low")
        assert not ix.INDICES[name].costly


def test_the_table_is_complete() -> None:
    assert set(ix.INDICES) == {*SHARPNESS, *PLAIN, "frobenius", "kurtosis"}
    assert all(name == index.name for name, index in ix.INDICES.items())
    assert set(ix.__all__) == {"INDICES", "Index", "Spectra", "add", "any_costly", *SHARPNESS, *PLAIN}


def test_an_index_has_a_name_of_its_own_that_can_be_a_column() -> None:
    with pytest.raises(ValueError, match="already"):
        ix.add(ix.INDICES["ssi"])
    for name in ("two words", "Ssi", "1st", "", 'a"b', "a-b"):
        with pytest.raises(ValueError, match="cannot be the name"):
            dataclasses.replace(ix.INDICES["ssi"], name=name)


def test_costly_indices_are_those_that_are_asked_for() -> None:
    assert ix.any_costly(["ssi", "kurtosis"])
    assert not ix.any_costly(["ssi", "random", "selected"])


def test_the_method_page_has_the_range_and_the_sharp_end_of_each() -> None:
    page = (SOURCE.parent / "docs/method.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|(?:[^|]*)\|([^|]*\|[^|]*)\|$", page, re.MULTILINE))
    for index in ix.INDICES.values():
        ends = None if index.range is None else index.range.strip("[]()").split(", ")
        told = "as ΔW" if ends is None else f"≥ {ends[0]}" if ends[1] == "∞" else " … ".join(ends)
        assert rows[index.name].split("|") == [f" {told} ", f" {index.sharp} "], index.name
