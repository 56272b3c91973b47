"""The page of a population in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3lora.fleet.run import fleet_scan
from s3lora.report.population_page import Own, population_page
from tests.command import call
from tests.fleet.inline import Inline
from tests.report import made_population as made
from tests.report.browser import WIDTHS, Show, presentable
from tests.report.test_page import ATTACK
from tests.report.test_population_page import MADE
from tests.support import make_adapter


@pytest.mark.parametrize("kind", ["whole", "bare"])
def test_pages_are_presentable(show: Show, kind: str) -> None:
    reports = {"registry/adapter/1": Own("./pages/001-a.html"), "registry/adapter/2": Own(note="no report: it is gone")}
    presentable(show, population_page(MADE[kind](), reports), f"population-{kind}")


def test_hostile_names_are_presentable(show: Show) -> None:
    text = population_page(made.population(ATTACK))
    presentable(show, text, "population-hostile")
    assert ATTACK[-40:] in show(text).title()


@pytest.mark.parametrize("width", WIDTHS)
def test_drawings_are_seen(show: Show, width: int) -> None:
    page = show(population_page(made.population()), width=width, scripts=False)
    for drawing in ("svg.ridges", "svg.spread"):
        boxes = [page.locator(drawing).nth(i).bounding_box() for i in range(2)]
        assert all(box is not None and box["width"] > 300 and box["height"] > 100 for box in boxes)
        assert len({round(box["x"]) for box in boxes if box}) == (2 if width > 1000 else 1)
    assert page.locator("svg.ridges").count() == 10
    assert page.locator("svg.dumbbell").first.bounding_box()["width"] > 80  # type: ignore[index]


def test_letters_stay_within_their_drawings(show: Show) -> None:
    names = ("stable-diffusion-xl", "privacy-filter", "command-r-plus", "DeepSeek-Coder-V2")
    found = made.population(distributions=(made.distribution("ssi", names),))
    for width in WIDTHS:
        page = show(population_page(found), width=width)
        out = page.evaluate("""[...document.querySelectorAll("svg.ridges text, svg.spread text")].filter(text => {
            const box = text.getBoundingClientRect(), whole = text.closest("svg").getBoundingClientRect();
            return box.left < whole.left - 1 || box.right > whole.right + 1;
        }).map(text => text.textContent)""")
        assert out == []


def test_the_numbers_open_and_scroll_by_the_keyboard(show: Show) -> None:
    page = show(population_page(made.population()), width=400)
    for summary in page.locator("summary").all():
        summary.focus()
        page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == page.locator("details").count() == 6
    page.locator("[aria-labelledby=most]").focus()
    page.keyboard.press("ArrowRight")
    for _ in range(200):  # the policy forbids Playwright to wait in the page itself
        if page.evaluate("document.activeElement.scrollLeft") > 0:
            return
        page.wait_for_timeout(50)
    pytest.fail("the arrow key does not scroll the table")


def test_all_numbers_open_are_presentable(show: Show) -> None:
    text = population_page(made.population(distributions=(made.distribution("ssi"),)))
    presentable(show, text.replace("<details>", "<details open>"), "population-open")


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
