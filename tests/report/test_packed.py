"""Columns of numbers and names: what is put into a page is what comes out of it."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.choose.ties import rounded
from s3lora.report.packed import digits, integers, names, numbers
from tests.examples import examples
from tests.report.unpacked import paths, unpack

WHOLE = st.one_of(st.none(), st.integers(-(2**42), 2**42))
REAL = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=examples(200))
@given(st.lists(st.one_of(WHOLE, st.integers(-3, 3))))
def test_whole_numbers_come_back(values: list[int | None]) -> None:
    assert unpack(integers(values), len(values)) == values


@settings(max_examples=examples(200))
@given(st.lists(REAL))
def test_numbers_come_back(values: list[float | None]) -> None:
    assert unpack(numbers(values), len(values)) == values


@given(st.lists(st.one_of(st.none(), st.floats(-1e30, 1e30))), st.booleans())
def test_rounded_values_need_no_more_than_a_float32(values: list[float | None], free: bool) -> None:
    known = [None if v is None or abs(v) < 1e-30 else rounded(v, scale_free=free) for v in values]
    column = numbers(known)
    assert column.get("kind") in ("steps", "single")
    assert unpack(column, len(known)) == known


def test_a_column_takes_as_few_bits_as_it_can() -> None:
    assert integers([3] * 1000)["text"] == ""
    assert len(integers([3, 4] * 1000)["text"]) == 4 * math.ceil(250 / 3)
    assert numbers([1.0] * 100)["bits"] == 0


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e300))))
def test_three_digits_come_back(values: list[float | None]) -> None:
    found = unpack(digits(values), len(values))
    assert found == [None if value is None else float(f"{value:.2e}") for value in values]


NAME = st.text(st.sampled_from("ab.0123456789_-é٣"), max_size=20)


@settings(max_examples=examples(200))
@given(st.lists(NAME))
def test_names_come_back(found: list[str]) -> None:
    assert paths(names(found, [None] * len(found)), len(found)) == found


def test_the_number_of_the_layer_is_told() -> None:
    made = names(["m.2.layers.10.q1", "m.2.layers.11.q1", "head"], ["m.2.layers.10", "m.2.layers.11", None])
    assert made["texts"] == [("m.", ".layers.", ".q", ""), ("head",)]
    assert made["layers"] == [1, None]
