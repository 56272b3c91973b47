"""`compare` of a series that the callback wrote: text, JSON, CSV and the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3lora.measure.series import series_json
from tests.command import call
from tests.report.made_series import small_series


@pytest.fixture
def series(tmp_path: Path) -> Path:
    path = tmp_path / "s3lora-series.json"
    path.write_bytes(series_json(small_series(40)))
    return path


def test_text_shows_refusals_and_claims_nothing_of_files(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = call(capsys, "compare", series)
    assert done.status == 0, done.err
    assert "refusal loss" in done.out
    assert "40 looks, 4 common modules" in done.out
    assert "beyond" in done.out
    assert "what is not LoRA was not looked at" in done.out
    assert "nothing but LoRA" not in done.out
    assert "holds no distances and no cosines" in " ".join(done.out.split())


def test_the_page_shows_them_too(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = call(capsys, "compare", series, "--format", "html").out
    assert "The base’s refusals" in page
    assert "24 of 40 looks, evenly spread" in page
    assert "from their files alone" not in page
    assert "from the adapters’ files alone" not in page


def test_two_looks_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.json"
    path.write_bytes(series_json(small_series(2)))
    assert "refusal loss" in call(capsys, "compare", path).out
    path.write_bytes(series_json(small_series(1)))
    done = call(capsys, "compare", path)
    assert done.status == 2
    assert "one look only" in done.err


@pytest.mark.parametrize("option", [("--method", "svd"), ("--adapter", "a"), ("--base-weights", "base")])
def test_what_would_measure_something_is_refused(
    series: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "compare", series, *option)
    assert done.status == 2
    assert f"{option[0]} cannot be used with a series" in done.err


def test_a_file_that_is_no_series_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}", encoding="utf-8")
    done = call(capsys, "compare", path)
    assert done.status == 2
    assert "is no series of a training" in done.err
    assert "Traceback" not in done.err


def test_no_change_is_drawn_of_what_began_at_zero(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = call(capsys, "compare", series, "--format", "html").out
    assert "change of the SSI" not in page
    assert page.count('<svg class="heat"') == 3
