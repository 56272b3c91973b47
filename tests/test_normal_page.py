"""`docs/normal.md` and its figures: the table of the shipped reference, and what the numbers of the population give."""

from __future__ import annotations

import pytest

from docs.make_normal import IMAGES, PAGE, PART, cells, energy_figure, made, page
from tests.support import shared


def test_the_table_and_its_figure_are_those_of_the_shipped_reference() -> None:
    assert page({}) == PAGE.read_text(encoding="utf-8")
    assert energy_figure() == (IMAGES / "normal-energy.svg").read_text(encoding="utf-8")
    parts = {found[2]: found[0] for found in PART.finditer(PAGE.read_text(encoding="utf-8"))}
    assert parts["cells"].count("\n| ") == len(cells()) + 1
    assert all(len(part) > 60 for part in parts.values())


def test_every_other_number_is_that_of_the_population() -> None:
    pytest.importorskip("pyarrow")
    folder = shared() / "population"
    if not folder.exists():
        pytest.skip("needs the numbers of the population")
    parts, figures = made(folder)
    assert len(parts) == 8
    assert page(parts) == PAGE.read_text(encoding="utf-8")
    for name, text in figures.items():
        assert text == (IMAGES / name).read_text(encoding="utf-8"), name
