"""The series of a training: the rule, what is written and read, and how `compare` shows it."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import s3lora
from s3lora.errors import AdapterFileError, S3LoRAError, UsageError
from s3lora.measure.series import RefusalRule, as_comparison, read_series, rise_of, series_json
from s3lora.report.compare_page import compare_page
from s3lora.report.compare_text import compare_text
from tests.examples import examples
from tests.fuzz.draw import Draw
from tests.report.made_series import small_series

#: Differences in thousandths, so that equal ones are equal.
DIFFERENCES = st.lists(st.integers(-3000, 3000).map(lambda n: n / 1000), min_size=2, max_size=20)


@given(DIFFERENCES, st.integers(0, 1000).map(lambda n: n / 1000), st.integers(0, 4))
def test_the_rule_is_what_its_docstring_says(found: list[float], absolute: float, errors: int) -> None:
    n = len(found)
    rise = math.fsum(found) / n
    error = math.sqrt(math.fsum((one - rise) ** 2 for one in found) / (n - 1) / n)
    assert rise_of(found) == pytest.approx((rise, error), abs=1e-12)
    margin = min(abs(rise - absolute), abs(rise - errors * error))
    if margin > 1e-9:
        assert RefusalRule(absolute, errors).beyond(found) is (rise > absolute and rise > errors * error)


@given(DIFFERENCES, st.integers(1, 1000))
def test_more_rise_counts_wherever_less_does(found: list[float], more: int) -> None:
    rule = RefusalRule()
    assert rule.beyond([one + more / 1000 for one in found]) or not rule.beyond(found)


def test_one_prompt_has_no_error_and_what_is_not_finite_counts() -> None:
    assert rise_of([1.0]) == (1.0, math.inf)
    assert not RefusalRule().beyond([1.0])
    for wrong in (math.nan, math.inf):
        assert RefusalRule().beyond([0.0, wrong])


@pytest.mark.parametrize(
    ("beyond", "looks", "warned"),
    [
        ((True, True), 2, True),
        ((True, False, True), 2, False),
        ((False, True), 1, True),
        ((True,), 2, False),
        ((), 1, False),
    ],
)
def test_it_takes_looks_in_a_row(beyond: tuple[bool, ...], looks: int, warned: bool) -> None:
    look = small_series().refusals[0]
    seen = [dataclasses.replace(look, beyond=one) for one in beyond]
    assert RefusalRule(looks=looks).warns(seen) is warned


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "series.json"
    path.write_bytes(series_json(small_series()))
    assert s3lora.read_series(path) == small_series()
    assert repr(s3lora.read_series(path)) == "<TrainingSeries of 4 modules at 3 steps>"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"steps": [0, 10]}, "has not a value for each of its 2 steps"),
        ({"steps": [0, 10, 5]}, "its steps do not grow"),
        ({"modules": []}, "has no modules"),
        ({"steps": "never"}, "is no series of a training"),
        ({"rule": {"absolute": -1}}, "is no series of a training"),
    ],
)
def test_what_is_no_series_is_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    path = tmp_path / "series.json"
    path.write_text(json.dumps({**json.loads(series_json(small_series())), **change}), encoding="utf-8")
    with pytest.raises(AdapterFileError, match=told):
        read_series(path)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 10_000])
def test_any_other_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "series.json"
    path.write_bytes(raw)
    with pytest.raises(AdapterFileError, match="is no series of a training"):
        read_series(path)
    with pytest.raises(AdapterFileError, match="cannot be read"):
        read_series(tmp_path / "none.json")


def test_a_comparison_has_its_steps_and_no_distances() -> None:
    compared = as_comparison(small_series())
    assert compared.steps == (0, 10, 20)
    assert [source.name for source in compared.sources] == ["step 0", "step 10", "step 20"]
    module = compared["model.layers.1.self_attn.v_proj"]
    assert module.ssi == small_series()["model.layers.1.self_attn.v_proj"].ssi
    assert (module.distance, module.net_distance) == ((None, None), None)
    assert compared.refusals == small_series().refusals
    with pytest.raises(UsageError, match="one look only"):
        as_comparison(small_series(1))


@given(st.binary(max_size=60))
@settings(max_examples=examples(300), deadline=None)
def test_whatever_is_edited_is_read_or_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "series.json"
    path.write_text(json.dumps(Draw(data).edited(json.loads(series_json(small_series())))), encoding="utf-8")
    try:
        series = read_series(path)
        compared = as_comparison(series)
    except S3LoRAError:
        return
    console = Console(width=80, file=io.StringIO())
    console.print(compare_text(compared))
    assert "<html" in compare_page(compared)
