"""The figures on the method: the committed file is what the code computes, and the pages say what the file says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT
from tests.support import shared

sys.path.insert(0, str(ROOT))
from experiments.method import measure, render, run

RESULTS = json.loads(render.RESULTS.read_text(encoding="utf-8"))
#: Another BLAS rounds otherwise, which can change places of modules that are nearly equal.
CLOSE = 0.01
#: `released` depends on the basis that LAPACK returns, so that no figure of it is the same everywhere.
LOOSE = 0.15


def assert_close(found: Any, wanted: Any, tolerance: float = CLOSE, place: str = "") -> None:
    """Fail unless two results have the same form, the same texts and counts, and numbers that are close."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), place
        for key in wanted:
            assert_close(found[key], wanted[key], tolerance, f"{place}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), place
        for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
            assert_close(a, b, tolerance, f"{place}[{i}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=tolerance), place
    else:
        assert found == wanted, place


def test_what_takes_seconds_is_what_the_file_says() -> None:
    found = run.quick()
    assert found.pop("agreement") < 1e-12
    assert_close(found, {name: RESULTS[name] for name in found})


def test_the_script_orders_random_updates_by_size() -> None:
    """And where m > n it fails."""
    found = measure.released(measure.values_of(measure.random_updates(), turned=False))
    assert_close(found, {name: RESULTS["released"]["random"][name] for name in found}, LOOSE)
    assert found["size"] > 0.95
    assert found["sharpness"] < 0.05
    with pytest.raises(ValueError, match="m > n"):
        measure.released_value(measure.FactoredUpdate(measure.np.ones((1, 3)), measure.np.ones((4, 1))))


def test_another_basis_of_the_null_space_is_another_result() -> None:
    """`turned_value` checks by itself that its decomposition is one, and that its steps are those of the script."""
    for update in measure.random_updates(3, 64):
        value = measure.released_value(update)
        assert measure.turned_value(update, value, 0) != pytest.approx(value, rel=0.01)


def test_published_adapters_are_what_the_file_says() -> None:
    found = measure.published(shared() / "adapters", with_released=False)
    known = {name: {k: v for k, v in one.items() if k != "rho_released"} for name, one in RESULTS["published"].items()}
    assert_close(found, known)
    assert len([one for one in known.values() if "refused" not in one]) >= 9


@pytest.mark.slow
def test_what_takes_minutes_is_what_the_file_says() -> None:
    """The turned bases are random, and the numbers that they give are of no use but to be far from 1."""
    found = run.released()
    for group in (found["random"], found["example"], *found["projections"].values()):
        assert group["turned_factor"] > 1.2
    assert all(group["turned"] < 0.9 for group in found["projections"].values())
    assert_close(found["rows"], RESULTS["released"]["rows"], LOOSE)
    assert_close(found["random"]["size"], RESULTS["released"]["random"]["size"], LOOSE)


@pytest.mark.parametrize("page", render.PAGES, ids=lambda page: page.stem)
def test_the_pages_show_the_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == render.filled(text, render.parts(RESULTS)), "show it again: python -m experiments.method.render"


def test_every_part_is_shown_once() -> None:
    marks = [match["name"] for page in render.PAGES for match in render.PART.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(marks) == sorted(render.parts(RESULTS))


def test_a_number_that_was_changed_by_hand_is_found() -> None:
    text = render.PAGES[0].read_text(encoding="utf-8")
    changed = text.replace("| `svd` | 0.1", "| `svd` | 0.9", 1)
    assert changed != text
    assert render.filled(changed, render.parts(RESULTS)) == text


def test_a_mark_without_its_end_swallows_nothing() -> None:
    head = "<!-- from results/method.json: {} -->\n"
    text = f"{head.format('agreement')}kept\n{head.format('robustness')}<!-- end -->\n"
    found = render.filled(text, dict.fromkeys(("agreement", "robustness"), "new\n"))
    assert found == text.replace("<!-- end -->", "\nnew\n\n<!-- end -->")


def test_the_file_has_no_paths() -> None:
    text = render.RESULTS.read_text(encoding="utf-8")
    assert not any(word in text for word in (str(Path.home()), "/tmp", str(ROOT)))
