"""The page of a population in a real browser."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from s3lora.fleet.run import fleet_scan
from s3lora.report.population_page import Own, population_page
from tests.command import call
from tests.fleet.inline import Inline
from tests.report import made_population as made
from tests.report.browser import WIDTHS, Show, overflow, picture, presentable
from tests.report.test_page import ATTACK
from tests.support import make_adapter
from tests.watched import wait_until

OUT = """[...document.querySelectorAll("svg.ridges text, svg.spread text")].filter(text => {
    const box = text.getBoundingClientRect(), whole = text.closest("svg").getBoundingClientRect();
    return box.left < whole.left - 1 || box.right > whole.right + 1;
}).map(text => text.textContent)"""
LONG = ("stable-diffusion-xl", "privacy-filter", "command-r-plus", "DeepSeek-Coder-V2")


def test_a_page_is_presentable_with_all_numbers_open(show: Show) -> None:
    """One distribution of long names stands for five: they differ in nothing but their numbers."""
    reports = {"registry/adapter/1": Own("./pages/001-a.html"), "registry/adapter/2": Own(note="no report: it is gone")}
    found = made.population(distributions=(made.distribution("ssi", LONG),))
    text = population_page(found, reports).replace("<details>", "<details open>")
    presentable(show, text, "population-open", looks=((400, True), (1280, False)))


def test_a_page_of_errors_alone_is_presentable(show: Show) -> None:
    presentable(show, population_page(made.bare()), "population-bare", looks=((400, False),))


@pytest.mark.thorough
def test_hostile_names_are_presentable(show: Show) -> None:
    found = made.population(ATTACK)
    text = population_page(dataclasses.replace(found, distributions=found.distributions[:1]))
    presentable(show, text, "population-hostile", looks=((400, False), (1280, True)))
    assert ATTACK[-40:] in show(text).title()


@pytest.mark.parametrize(
    "width", [pytest.param(width, marks=pytest.mark.thorough) if width in (768, 1920) else width for width in WIDTHS]
)
def test_drawings_are_seen(show: Show, width: int) -> None:
    names = made.population(distributions=tuple(made.distribution(index, LONG) for index in made.MIDDLE))
    page = show(population_page(names), width=width, scripts=False)
    picture(page, f"population-{width}")
    assert not overflow(page)
    for drawing in ("svg.ridges", "svg.spread"):
        boxes = [page.locator(drawing).nth(i).bounding_box() for i in range(2)]
        assert all(box is not None and box["width"] > 300 and box["height"] > 100 for box in boxes)
        assert len({round(box["x"]) for box in boxes if box}) == (2 if width > 1000 else 1)
    assert page.locator("svg.ridges").count() == 10
    assert page.locator("svg.dumbbell").first.bounding_box()["width"] > 80  # type: ignore[index]
    assert page.evaluate(OUT) == [], "letters stay within their drawings"
    unusual = page.locator(".ranked tbody th .tag", has_text="unusual")
    assert unusual.count() == 2
    assert unusual.first.is_visible()
    colours = (
        page.locator("svg.spread")
        .first.locator(".bars")
        .evaluate_all("bars => bars.map(bar => getComputedStyle(bar).fill)")
    )
    assert len(set(colours)) == 2, "what may be unusual has a colour of its own"


def test_the_numbers_open_and_scroll_by_the_keyboard(show: Show) -> None:
    page = show(population_page(made.population()), width=400)
    for summary in page.locator("summary").all():
        summary.focus()
        page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == page.locator("details").count() == 6
    page.locator("[aria-labelledby=most]").focus()
    page.keyboard.press("ArrowRight")
    # The policy forbids Playwright to wait in the page itself.
    wait_until(lambda: page.evaluate("document.activeElement.scrollLeft") > 0)


def test_links_lead_to_the_pages(show: Show, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    for number in range(22):
        make_adapter(
            tmp_path / "in" / f"{number:02d}", {f"layers.{i}.q_proj": (8, 8, 4) for i in range(2)}, seed=number
        )
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline)
    output = tmp_path / "of the population" / "page.html"
    output.parent.mkdir()
    reports = tmp_path / "single pages"
    assert (
        call(capsys, "fleet", "report", tmp_path / "out", "--most", 2, "--reports", reports, "-o", output).status == 0
    )
    page = show(output)
    first = page.locator(".ranked a").first
    name = first.inner_text()
    first.click()
    page.wait_for_url("**/001-*.html")
    assert page.locator("h1").inner_text() == name
    assert all(line.startswith("request: GET file:///") for line in show.problems())
