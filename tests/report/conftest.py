"""The browser that pages are shown in; see `tests/report/browser.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import FEW, LOOKS, Chromium, Looks, Show, found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    program = found()
    if program is None:
        pytest.skip("there is no Chromium on the PATH (Debian: apt install chromium)")
    for module in ("playwright.sync_api", "axe_playwright_python.sync_playwright"):
        pytest.importorskip(module, reason=f"{module.partition('.')[0]} is not installed; pip install -e '.[dev]'")
    made = Chromium(program)
    yield made
    made.close()


@pytest.fixture(params=[pytest.param(FEW, id="two"), pytest.param(LOOKS, id="all", marks=pytest.mark.thorough)])
def looks(request: pytest.FixtureRequest) -> Looks:
    """Return the windows to see a page in."""
    found: Looks = request.param
    return found


@pytest.fixture
def show(chromium: Chromium, tmp_path: Path) -> Iterator[Show]:
    """Open pages out of this test's folder, and fail at its end where one did what none should."""
    with chromium.in_use():
        made = Show(chromium.browser, tmp_path)
        yield made
        try:
            told = made.problems()
        finally:
            made.close()
    if told:
        pytest.fail("the page did what none should:\n" + "\n".join(told), pytrace=False)
