"""Which number an answer comes to."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.evaluate.maths.numbers import final_number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("3 + 4 = 7 apples.\n#### 7", 7),
        ("#### 1,250.50", Fraction(2501, 2)),
        ("#### $18", 18),
        ("#### -3", -3),
        ("First #### 4, no: #### 5", 5),
        ("So she pays \\boxed{42} dollars for 3 books", 42),
        ("\\boxed{-1,000}", -1000),
        ("The answer is 7. That took 2 steps.", 7),
        ("**Answer:** 12 km in 3 hours", 12),
        ("The final answer is: $1,000,000", 1_000_000),
        ("The total is $45. In 3 days.", 45),
        ("12 boxes, 24 in all", 24),
        ("She has twelve: 12.", 12),
        ("Es sind 10 000 km", 10_000),
        ("Es sind 10\u202f000 km", 10_000),
        ("It is −3 degrees", -3),
        ("3/4", Fraction(3, 4)),
        ("x=5", 5),
        ("50%", 50),
        ("**72**", 72),
        ("costs $5,", 5),
        ("Answer: 1/0", None),
        ("#### none", None),
        ("no number", None),
        ("version v2", None),
        ("", None),
    ],
)
def test_the_number_an_answer_comes_to(answer: str, number: Fraction | int | None) -> None:
    assert final_number(answer) == number


@given(st.integers(-(10**12), 10**12), st.sampled_from(["#### {}", "The answer is {}.", "so {:,}", "= {:,} pieces"]))
def test_every_whole_number_is_read_as_it_is_written(number: int, form: str) -> None:
    assert final_number(form.format(number)) == number


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    found = final_number(text)
    assert found is None or re.search(r"\d", text)


def test_a_long_answer_is_searched_at_its_end_alone() -> None:
    assert final_number("#### 1 " + "," * 10_000_000 + " 2") == 2
    assert final_number("1" * 1_000_000) is None
