"""Pages in a real browser: Debian's Chromium, driven by Playwright. No browser is ever downloaded.

A test takes the fixture `show`, calls it with the text of a page or the path of one, and gets a Playwright `Page`:

    def test_the_slider_marks_what_would_go(show: Show) -> None:
        page = show(text, width=400, dark=True)
        page.get_by_role("slider").fill("0.5")
        assert page.locator("tr.pruned").count() == 7
        assert not (found := overflow(page) + axe(page)), "\n".join(found)
        picture(page, "slider")

Every call opens the page anew, from disk, in a context of its own: one test may look at several. `scripts=False` is a
reader who allows no JavaScript; below `TELEPHONE` pixels the page is shown as on a telephone, with a finger
instead of a mouse, so that `page.tap` works. All is closed when the test ends.

What a page must not do makes its test fail at its end: any request besides the one for the file itself, a warning or an
error on the console, a breach of its Content-Security-Policy, an uncaught error, a dialog, a second window, a crash. A
test that wants one of these looks at it by `show.problems()`, which also forgets it:

        assert "Content Security Policy" in show.problems()[0]

`presentable(show, text, "scan")` is what every page must pass: at 400, 768, 1280 and 1920 pixels, light and dark,
nothing reaches beyond the window, axe-core finds nothing, and the words in drawings are not faint. A test that takes
`looks` sees two of these eight in the default run, and all in the thorough one. Where S3LORA_SCREENSHOTS names a folder
it leaves pictures of them there, and the page as printed; `picture` adds one of any other state:

    S3LORA_SCREENSHOTS=build/pages .venv/bin/python -m pytest tests/report -k chromium -m thorough

There is one browser for all tests of a process. Where Chromium or Playwright is missing, tests that take `show` are
skipped, and only those.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.report.contrast import pale

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, WebError

NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Windows that every page must fit, in CSS pixels.
WIDTHS = (400, 768, 1280, 1920)
HEIGHT = 900
#: Below this width a window is a telephone's.
TELEPHONE = 600
#: The width of A4 less margins of 14 mm, in CSS pixels.
SHEET = 688
#: Milliseconds in which a page must be there: plenty, for a machine that has much else to do.
PATIENCE = 120_000

#: Chromium is silent on some breaches that the page catches, such as an `eval` in `try`.
BREACH = """addEventListener("securitypolicyviolation", event => console.error(
  "breach of the Content Security Policy: " + event.effectiveDirective + " forbids " + event.blockedURI));"""

#: The outermost elements that reach beyond a width, without what is cut off or scrolled by one around it.
BEYOND = """width => {
  if (document.documentElement.scrollWidth <= width) return [];
  const kept = element => {
    for (let at = element.parentElement; at && at !== document.body; at = at.parentElement)
      if (getComputedStyle(at).overflowX !== "visible") return true;
    return false;
  };
  const wide = [...document.body.querySelectorAll("*")]
    .filter(element => element.getBoundingClientRect().right > width + 0.5 && !kept(element));
  const outer = wide.filter(element => !wide.includes(element.parentElement));
  const named = outer.map(element => element.outerHTML.slice(0, 100).replace(/\\s+/g, " ") + " reaches to " +
    Math.round(element.getBoundingClientRect().right) + " pixels");
  return named.length ? named : ["something reaches to " + document.documentElement.scrollWidth + " pixels"];
}"""

#: Marks all but three of the rows that differ in their text alone: most of axe-core's time goes to their contrast.
ALIKE = """() => {
  const seen = new Map();
  const told = element => [element.tagName, ...[...element.attributes]
    .map(({name, value}) => ["class", "style", "fill"].includes(name) ? name + value : name)].join();
  for (const row of document.querySelectorAll("tr, li")) {
    const like = [row.parentElement, row, ...row.querySelectorAll("*")].map(told).join();
    seen.set(like, (seen.get(like) ?? 0) + 1);
    if (seen.get(like) > 3) row.dataset.alike = "";
  }
}"""
UNMARK = "for (const row of document.querySelectorAll('[data-alike]')) row.removeAttribute('data-alike')"


def found() -> str | None:
    """Return the path of Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


class Chromium:
    """A browser that runs until `close`, and is spoken to while `in_use`."""

    def __init__(self, program: str) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        # Playwright leaves its loop marked as the one that runs, and so to any other `asyncio.run` in the process.
        self._loop = asyncio._get_running_loop()
        with self.in_use():
            try:
                self.browser: Browser = self._playwright.chromium.launch(
                    executable_path=program, args=["--disable-gpu"], timeout=PATIENCE
                )
            except BaseException:
                self._playwright.stop()
                raise

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Mark Playwright's loop as running for the while, and for no longer: other tests run loops of their own."""
        asyncio._set_running_loop(self._loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        with self.in_use():
            self.browser.close()
            self._playwright.stop()


class Show:
    """Opens pages from a folder and writes down what they do that no page should."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser = browser
        self._folder = folder
        self._contexts: list[BrowserContext] = []
        self._problems: list[str] = []

    def __call__(self, source: str | Path, *, width: int = 1280, dark: bool = False, scripts: bool = True) -> Page:
        """Return a page that is loaded, in a window of this width in CSS pixels."""
        path = source if isinstance(source, Path) else self._folder / f"page-{len(self._contexts) + 1}.html"
        if isinstance(source, str):
            path.write_text(source, encoding="utf-8")
        telephone = width < TELEPHONE
        context = self._browser.new_context(
            viewport={"width": width, "height": HEIGHT}, is_mobile=telephone, has_touch=telephone, offline=True,
            color_scheme="dark" if dark else "light", reduced_motion="reduce", java_script_enabled=scripts,
        )  # fmt: skip
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.add_init_script(BREACH)
        page = context.new_page()
        self._listen(context, page, path.as_uri())
        page.goto(path.as_uri())
        return page

    def _listen(self, context: BrowserContext, page: Page, address: str) -> None:
        def requested(request: Request) -> None:
            # What the page itself holds or made is no request to anywhere.
            if request.url.partition("#")[0] != address and not request.url.startswith(("data:", "blob:")):
                self._problems.append(f"request: {request.method} {request.url}")

        def told(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning", "assert"):
                self._problems.append(f"console {message.type}: {message.text}")

        def failed(error: WebError) -> None:
            self._problems.append(f"uncaught error: {error.error}")

        def asked(dialog: Dialog) -> None:
            self._problems.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        context.on("request", requested)
        context.on("console", told)
        context.on("weberror", failed)
        context.on("dialog", asked)
        context.on("page", lambda second: self._problems.append(f"second window: {second.url}"))
        page.on("websocket", lambda socket: self._problems.append(f"socket: {socket.url}"))
        page.on("crash", lambda _: self._problems.append("the page crashed"))

    def problems(self) -> list[str]:
        """Return what no page should have done until now, in order, and forget it."""
        for page in (page for context in self._contexts for page in context.pages):
            page.evaluate("0")  # whatever happened before this answer has been told by then
        told, self._problems = self._problems, []
        return told

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def axe(page: Page, *, alike: bool = True) -> list[str]:
    """Return what axe-core finds, one entry for each rule and element.

    It includes contrast, but not that of words in drawings; see `contrast.pale`. `alike=False` leaves out all but three
    of the rows and entries that differ in nothing but their text, and is several times faster where there are many.
    """
    from axe_playwright_python.sync_playwright import Axe

    assert page.evaluate("!matchMedia('(scripting: none)').matches"), "axe-core cannot run where scripts are off"
    if not alike:
        page.evaluate(ALIKE)
    answer: dict[str, Any] = Axe().run(page, context={"exclude": ["[data-alike]"]}).response
    page.evaluate(UNMARK)
    return [
        f"axe {rule['impact']}: {rule['id']}: {node['target']}: {' '.join(node['failureSummary'].split())}"
        for rule in answer["violations"]
        for node in rule["nodes"]
    ]


def overflow(page: Page) -> list[str]:
    """Return what makes the whole page scroll sideways, one entry for each outermost element."""
    assert page.viewport_size is not None
    beyond: list[str] = page.evaluate(BEYOND, page.viewport_size["width"])
    return beyond


def picture(page: Page, name: str) -> None:
    """Leave a picture of the whole page in the folder S3LORA_SCREENSHOTS, if there is such a folder."""
    if (folder := _pictures()) is not None:
        page.screenshot(path=folder / f"{name}.png", full_page=True, animations="disabled")


Looks = Sequence[tuple[int, bool]]
#: Every width in both colours, as (CSS pixels, dark).
LOOKS: Looks = tuple((width, dark) for width in WIDTHS for dark in (False, True))
#: A telephone's and a usual one, one of each colour.
FEW: Looks = ((400, True), (1280, False))


def presentable(show: Show, source: str | Path, name: str, *, looks: Looks = LOOKS) -> None:
    """Fail where a page is wider than a window of `WIDTHS` or a sheet, or axe-core finds a fault in it.

    `looks` are the windows to see it in: fewer do for a page like one that was seen in all.
    """
    wrong = []
    for number, (width, dark) in enumerate(looks):
        look = f"{width}-{'dark' if dark else 'light'}"
        page = show(source, width=width, dark=dark)
        # What has nothing to do with width and colour is found the first time.
        faults = axe(page, alike=not number and looks is LOOKS)
        wrong += [f"{look}: {line}" for line in overflow(page) + faults + pale(page)]
        picture(page, f"{name}-{look}")
    page = show(source, width=SHEET)
    page.emulate_media(media="print")
    wrong += [f"print: {line}" for line in overflow(page)]
    if (folder := _pictures()) is not None:
        page.pdf(path=folder / f"{name}-print.pdf", prefer_css_page_size=True)
    assert not wrong, f"{name}:\n" + "\n".join(wrong)


def _pictures() -> Path | None:
    folder = os.environ.get("S3LORA_SCREENSHOTS")
    if not folder:
        return None
    made = Path(folder)
    made.mkdir(parents=True, exist_ok=True)
    return made
