"""The pages of results in a real browser: they show what they hold, fit a telephone, and ask for nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from s3lora.report.page import evaluation_page, sweep_page, tuning_page
from s3lora.report.repair_page import repair_page
from tests.report import measured, repaired
from tests.report.browser import Looks, Show, axe, overflow, presentable
from tests.report.contrast import pale
from tests.report.test_page import ATTACK
from tests.watched import PATIENCE

PAGES: dict[str, Callable[[], str]] = {
    "sweep": lambda: sweep_page(measured.sweep(), "s3lora sweep made-up-adapter --base made-up"),
    "evaluation": lambda: evaluation_page(measured.evaluation()),
    "tuning": lambda: tuning_page(measured.tuning(), "s3lora tune made-up-adapter --base made-up"),
    "repair": lambda: repair_page(repaired.repair(), "s3lora repair made-up-adapter --base made-up"),
    "refuted-repair": lambda: repair_page(repaired.refuted()),
    "no-repair": lambda: repair_page(repaired.nothing()),
    "hostile-sweep": lambda: sweep_page(measured.hostile_sweep(ATTACK), ATTACK),
    "hostile-evaluation": lambda: evaluation_page(measured.hostile_evaluation(ATTACK)),
    "hostile-tuning": lambda: tuning_page(measured.hostile_tuning(ATTACK), ATTACK),
    "hostile-repair": lambda: repair_page(repaired.hostile(ATTACK), ATTACK),
}
#: What a stranger's names can do to a page takes a browser long to tell.
NAMED = [pytest.param(name, marks=pytest.mark.thorough) if name.startswith("hostile") else name for name in PAGES]
SHOWN = """() => {
  const rows = [...document.querySelectorAll("tbody tr")], svg = document.querySelector("figure svg");
  return {
    rows: rows.filter(row => row.getBoundingClientRect().height > 0).length,
    drawn: svg.getBoundingClientRect().width,
    paper: getComputedStyle(document.body).backgroundColor,
    colours: new Set([...document.querySelectorAll("polyline")].map(e => getComputedStyle(e).stroke)).size,
  };
}"""


@pytest.mark.parametrize("name", NAMED)
def test_pages_show_what_they_hold(show: Show, looks: Looks, name: str) -> None:
    text = PAGES[name]()
    papers: dict[bool, set[str]] = {False: set(), True: set()}
    for width, dark in looks:
        page = show(text, width=width, dark=dark)
        shown = page.evaluate(SHOWN)
        assert ATTACK[-60:] in page.title() if "hostile" in name else page.title().startswith("made-up-adapter")
        assert shown["rows"] > (7 if "tuning" in name else 20)
        assert 300 < shown["drawn"] <= width
        assert shown["colours"] >= (2 if "tuning" in name else 3)
        papers[dark].add(shown["paper"])
    assert [len(found) for found in papers.values()] == [1, 1]
    assert papers[False] != papers[True]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough) if "-" in name else name for name in PAGES]
)
def test_pages_are_presentable(show: Show, looks: Looks, name: str) -> None:
    presentable(show, PAGES[name](), name, looks=looks)


def test_pages_do_without_scripts(show: Show) -> None:
    shown = [show(PAGES["sweep"](), scripts=scripts).locator("body").inner_text() for scripts in (False, True)]
    assert "Pareto front" in shown[0]
    said = re.sub(r"\b(SVG|CSV|Rows with)\b", "", shown[1])
    assert shown[0].split() == said.split(), "a script adds but what sorts, filters and saves"


def test_the_policy_is_obeyed(show: Show) -> None:
    """Even a page into which markup got would run and fetch nothing."""
    foreign = "<script>document.title = 'run'</script><img src='x.png'>"
    page = show(sweep_page(measured.sweep()).replace("<main>", f"<main>{foreign}", 1))
    assert page.title().startswith("made-up-adapter")
    assert page.evaluate("document.images[0].naturalWidth") == 0
    told = [problem for problem in show.problems() if problem.startswith("console error:")]
    assert any("inline script violates the following Content Security Policy" in problem for problem in told)
    assert any("image" in problem and "Content Security Policy" in problem for problem in told)


#: What a page must not do, and how `Show` names it.
MISDEEDS = {
    "<img src='x.png'>": "request: GET file:",
    "<link rel=stylesheet href='https://example.org/x.css'>": "request: GET https://example.org/x.css",
    "<script>console.error('no')</script>": "console error: no",
    "<script>console.warn('no')</script>": "console warning: no",
    "<script>throw new Error('no')</script>": "uncaught error: no",
    "<script>alert('no')</script>": "dialog: no",
    "<script>new WebSocket('ws://127.0.0.1:9')</script>": "socket: ws://127.0.0.1:9",
    "<meta http-equiv=Content-Security-Policy content=\"script-src 'unsafe-inline'\">"
    "<script>try { eval('1') } catch { }</script>": "console error: breach of the Content Security Policy",
    "<script>open('about:blank')</script>": "second window: about:blank",
}


@pytest.mark.parametrize("markup", MISDEEDS)
def test_what_a_page_must_not_do_is_noticed(show: Show, markup: str) -> None:
    page = show(f"<!doctype html><title>misdeed</title>{markup}")
    problems = show.problems()
    ends = time.monotonic() + PATIENCE
    # The browser tells of a socket when it has come to it.
    while not any(problem.startswith(MISDEEDS[markup]) for problem in problems):
        assert time.monotonic() < ends, problems
        page.wait_for_timeout(20)
        problems += show.problems()
    page.goto("about:blank")  # what has begun ends with its page
    show.problems()
    assert show.problems() == []


def test_faults_in_a_page_are_found(show: Show) -> None:
    page = show(
        "<!doctype html><html lang=en><meta name=viewport content='width=device-width'><title>faults</title>"
        "<main><h1>Faults</h1><p style='color: #aaa; background: #fff'>pale</p>"
        "<div id=wide style='width: 900px'>wide</div>"
        "<div style='overflow-x: auto'><div style='width: 2000px'>may be scrolled by itself</div></div></main>",
        width=400,
    )
    (pale,) = axe(page)
    assert pale.startswith("axe serious: color-contrast")
    (wide,) = overflow(page)
    assert 'id="wide"' in wide
    assert "908 pixels" in wide, "with the margin of the body"


def test_faint_words_in_a_drawing_are_found(show: Show) -> None:
    page = show(
        "<!doctype html><body style='background: white'><svg width=300 height=120>"
        "<text y=20 fill='#999'>on paper</text>"
        "<rect y=30 width=300 height=40 fill='#222'/><text y=60 fill=white>white on dark</text>"
        "<rect y=70 width=300 height=40 fill=red fill-opacity=.1 /><text y=90 fill=white>white on pink</text></svg>"
    )
    on_paper, on_pink = pale(page)
    assert on_paper.endswith("rgb(153, 153, 153) on rgb(255, 255, 255): on paper")
    assert on_paper.startswith("contrast 2.85 of 4.5")
    assert "rgb(255, 230, 230)" in on_pink
    page = show(
        "<!doctype html><body style='background: #111'><svg><text y=20 fill=white>white</text></svg>", dark=True
    )
    assert pale(page) == []


def test_rows_alike_are_checked_three_times(show: Show) -> None:
    rows = "<tr><td>1</td></tr>" * 9 + "<tr class=odd><td style='color: #ccc'>pale</td></tr>" * 9
    page = show(f"<!doctype html><html lang=en><title>rows</title><main><h1>Rows</h1><table>{rows}</table></main>")
    assert len(axe(page)) == 9
    assert len(axe(page, alike=False)) == 3
    assert page.locator("[data-alike]").count() == 0
