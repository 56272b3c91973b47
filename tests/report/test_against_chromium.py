"""The page of an adapter held against a reference, in a real browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from s3lora.report.scan_page import scan_page
from tests.report.browser import Show, presentable
from tests.report.made_against import against
from tests.report.scanned import DEMO, reported
from tests.report.test_page import ATTACK

LONG = "a registry of adapters with a name as long as it may be, " * 3


def page(path: Path, name: str = "ours", **more: Any) -> str:
    one = reported(path)
    made = against(one.document, name=name, coarse=7, **more)
    return scan_page([replace(one, document=replace(one.document, reference=made))])


def test_it_is_presentable(show: Show) -> None:
    presentable(show, page(DEMO, LONG), "scan-reference", looks=((400, False), (1280, True)))


def test_it_is_printed_on_four_sheets(show: Show) -> None:
    opened = show(page(DEMO, LONG))
    paper = opened.pdf(format="A4", prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page[^s]", paper)) <= 4


def test_the_table_can_be_sorted_by_percentile_and_z(show: Show) -> None:
    one = reported(DEMO)
    made = against(one.document)
    opened = show(page(DEMO))
    for head, key in (("percentile", "percentile"), ("robust z", "z")):
        button = opened.locator(".modules thead").get_by_role("button", name=head)
        for down in (True, False):
            button.click()
            names = opened.evaluate("[...document.querySelectorAll('.modules tbody th')].map(cell => cell.textContent)")
            values = [getattr(made.standings[name].marks["ssi"], key) for name in names]
            known = [value for value in values if value is not None]
            assert known == sorted(known, reverse=down)
            assert None not in values[: len(known)], "what has no number comes last"


def test_marks_are_drawn_where_they_are(show: Show) -> None:
    opened = show(page(DEMO, percentile=95.0, z=1.0))
    places = opened.evaluate(
        "[...document.querySelectorAll('.against > .scroll .track circle')].map(dot => dot.getAttribute('cx'))"
    )
    assert places == ["100", "55"]
    assert opened.locator(".against details").count() == 1


def test_a_hostile_name_does_nothing(show: Show) -> None:
    opened = show(page(DEMO, ATTACK))
    assert opened.locator(".against h2").inner_text().startswith("Against the reference")
    assert not show.problems()


def test_it_is_whole_without_scripts(show: Show) -> None:
    opened = show(page(DEMO), scripts=False)
    assert opened.locator(".against tbody tr").count() > 2


def test_what_lies_beyond_the_band_is_ringed(show: Show) -> None:
    made = against(reported(DEMO).document, coarse=7)
    marks = [standing.marks["ssi"] for standing in made.standings.values()]
    beyond = sum(mark.percentile > 95 or mark.percentile < 5 for mark in marks)
    opened = show(page(DEMO))
    rings = opened.locator("svg.scatter .beyond")
    assert (rings.get_attribute("d") or "").count("M") == beyond > 0
    opened.locator('select[name="index"]').select_option(label="magnitude")
    assert rings.get_attribute("d") == "", "the reference is of another index"
