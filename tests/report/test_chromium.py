"""The pages in a real browser: they show what they hold, fit a telephone, and ask for nothing.

Run where Chromium is installed (Debian: `apt install chromium`), skipped elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3lora.report.page import evaluation_page, sweep_page
from tests.report import chromium, measured
from tests.report.test_page import ATTACK

#: The widest that anything reaches, without what can be scrolled by itself.
WIDTH = "document.documentElement.scrollWidth"
SHOWN = """(() => {
  const rows = [...document.querySelectorAll("tbody tr")], svg = document.querySelector("figure svg");
  return {
    title: document.title,
    rows: rows.filter(row => row.getBoundingClientRect().height > 0).length,
    drawn: svg.getBoundingClientRect().width,
    paper: getComputedStyle(document.body).backgroundColor,
    colours: new Set([...document.querySelectorAll("polyline")].map(e => getComputedStyle(e).stroke)).size,
  };
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    program = chromium.found()
    if program is None:
        pytest.skip("Chromium is not on the PATH")
    with chromium.Chromium(program, tmp_path_factory.mktemp("profile")) as made:
        yield made


def pages(folder: Path) -> list[Path]:
    made = {
        "sweep": sweep_page(measured.sweep(), "s3lora sweep made-up-adapter --base made-up"),
        "evaluation": evaluation_page(measured.evaluation()),
        "hostile-sweep": sweep_page(measured.hostile_sweep(ATTACK), ATTACK),
        "hostile-evaluation": evaluation_page(measured.hostile_evaluation(ATTACK)),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return [folder / f"{name}.html" for name in made]


def test_pages_render_and_ask_for_nothing(browser: chromium.Chromium, tmp_path: Path) -> None:
    papers: dict[bool, set[str]] = {False: set(), True: set()}
    for page in pages(tmp_path):
        for width, dark in ((1280, False), (400, True)):
            browser.open(page, width=width, dark=dark)
            shown = browser.value(SHOWN)
            assert (
                ATTACK[-60:] in shown["title"]
                if "hostile" in page.name
                else shown["title"].startswith("made-up-adapter")
            )
            assert shown["rows"] > 20
            assert 300 < shown["drawn"] <= width
            assert shown["colours"] >= 3
            papers[dark].add(shown["paper"])
            assert browser.value(WIDTH) <= width, f"{page.name} reaches beyond {width} pixels"
            assert [r["request"]["url"] for r in browser.reported("Network.requestWillBeSent")] == [page.as_uri()]
            for event in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                assert browser.reported(event) == [], page.name
            assert browser.reported("Page.javascriptDialogOpening") == []
    assert [len(found) for found in papers.values()] == [1, 1]
    assert papers[False] != papers[True]


def test_the_policy_is_obeyed(browser: chromium.Chromium, tmp_path: Path) -> None:
    """Even a page into which markup got would run and fetch nothing."""
    text = sweep_page(measured.sweep())
    broken = text.replace("<main>", "<main><script>document.title = 'run'</script><img src='x.png'>", 1)
    (tmp_path / "broken.html").write_text(broken, encoding="utf-8")
    browser.open(tmp_path / "broken.html")
    assert browser.value("document.title").startswith("made-up-adapter")
    assert browser.value("document.images[0].naturalWidth") == 0
    assert len(browser.reported("Log.entryAdded")) >= 2, "the browser tells of both"
