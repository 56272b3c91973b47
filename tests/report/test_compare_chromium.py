"""The page of a comparison in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from s3lora.measure.comparison import Comparison
from s3lora.report.compare_page import compare_page
from tests.report import made_comparison as made
from tests.report.browser import WIDTHS, Looks, Show, presentable
from tests.report.test_compare_page import MADE
from tests.report.test_page import ATTACK
from tests.watched import wait_until

#: Few layers: axe-core looks at every cell of every table, and rows are much alike.
SHOWN: dict[str, Callable[[], Comparison]] = {
    **MADE,
    "pair": lambda: made.model(2, layers=3),
    "run": lambda: made.model(5, layers=3),
    "many-adapters": lambda: made.model(40, layers=1),
}


@pytest.mark.parametrize("kind", [pytest.param("pair", marks=pytest.mark.thorough), "run", "many-adapters"])
def test_pages_are_presentable(show: Show, looks: Looks, kind: str) -> None:
    presentable(show, compare_page(SHOWN[kind]()), f"compare-{kind}", looks=looks)


@pytest.mark.thorough
def test_hostile_names_are_presentable(show: Show) -> None:
    text = compare_page(made.hostile(ATTACK))
    presentable(show, text, "compare-hostile")
    assert ATTACK[-60:] in show(text).title()


@pytest.mark.parametrize(
    "width", [pytest.param(width, marks=pytest.mark.thorough) if width in (768, 1920) else width for width in WIDTHS]
)
def test_maps_and_panels_are_seen(show: Show, width: int) -> None:
    """The colours of the scales are there, light and dark, and the maps stand in pairs where there is room."""
    text = compare_page(SHOWN["run"]())
    for dark in (False, True):
        page = show(text, width=width, dark=dark)
        fills = "s => new Set([...document.querySelectorAll(s)].map(e => getComputedStyle(e).fill)).size"
        assert page.evaluate(fills, "svg.heat .h0, svg.heat .h5, svg.heat .h9") == 3
        assert page.evaluate(fills, ".d0, .d1, .d2, .d3, .d4, .d5, .d6, .d7, .d8") == 9
        left = [page.locator("svg.heat").nth(i).bounding_box()["x"] for i in range(4)]  # type: ignore[index]
        assert len({round(x) for x in left}) == (2 if width > 1000 else 1)
        boxes = [page.locator("svg.panel").nth(i).bounding_box() for i in range(7)]
        assert all(box is not None and box["width"] > 160 for box in boxes)


def test_wide_parts_can_be_scrolled_by_the_keyboard(show: Show) -> None:
    page = show(compare_page(SHOWN["run"]()), width=400)
    reached: set[str] = set()
    wanted = {"stages", "map1", "map2", "map3", "map4", "moved", "modules"}
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('aria-labelledby')"))
        if wanted <= reached:
            break
    assert wanted <= reached
    page.locator("[aria-labelledby=modules]").focus()
    before = page.evaluate("document.activeElement.scrollLeft")
    page.keyboard.press("ArrowRight")
    # The policy forbids Playwright to wait in the page itself.
    wait_until(lambda: page.evaluate("document.activeElement.scrollLeft") > before)
