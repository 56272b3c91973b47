"""How far a command is, on standard error: a line that changes on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from s3lora.cli.output import CLEAR, complain, live
from s3lora.errors import printable

if TYPE_CHECKING:
    from s3lora.measure.scan import Progress

#: Seconds before a line appears on a terminal.
PATIENCE = 1.0
#: Seconds between two lines elsewhere, and before the first.
EVERY = 30.0


class Heartbeat:
    """Says every `EVERY` seconds what `now` gives, from a thread: one module may take minutes, and nobody call.

    `wait` takes seconds and returns whether the work has ended meanwhile.
    """

    def __init__(self, wait: Callable[[float], bool] | None = None) -> None:
        """Say nothing yet."""
        self._end = threading.Event()
        self._wait = wait or self._end.wait
        self._thread: threading.Thread | None = None
        self.now: Callable[[], str | None] = lambda: None

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._thread is None:
            self._end.clear()
            self._thread = threading.Thread(target=self.beat, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; nothing is said after it."""
        if self._thread is not None:
            self._end.set()
            self._thread.join()
            self._thread = None
        self.now = lambda: None

    def beat(self) -> None:
        """Say a line after each wait, until the work has ended."""
        while not self._wait(EVERY):
            if text := self.now():
                complain(text, 0)


HEART = Heartbeat()


def progress_line(label: str, of: str = "modules") -> Progress | None:
    """Return a callback that counts on standard error where the work takes long; None where nothing is to be shown."""
    context = click.get_current_context(silent=True)
    if not live():
        if context is None or context.params.get("quiet"):
            return None
        return _counted(f"{context.info_name} {printable(label, 200)}", of)
    start = time.monotonic()

    def show_count(done: int, total: int) -> None:
        if time.monotonic() - start > PATIENCE:
            count = "" if done == total else f"scanning {printable(label, 40)}: {done} of {total} {of}"
            sys.stderr.write(CLEAR + count)
            sys.stderr.flush()

    return show_count


def share_line() -> Callable[[float, str], None]:
    """Return a callback that takes the share that is done, from 0 to 1, and what is being done."""
    context = click.get_current_context()
    last = (0.0, "looking at what is to be measured")

    def advance(share: float, label: str) -> None:
        nonlocal last
        last = share, label
        HEART.now = said  # a scan in between counts its modules there

    def said() -> str:
        return f"{context.info_name}: {last[0]:.0%} done, {printable(last[1], 60)}"

    HEART.now = said
    HEART.start()
    return advance


def _counted(name: str, of: str) -> Progress:
    last = (0, 0)

    def count(done: int, total: int) -> None:
        nonlocal last
        last = done, total
        HEART.now = said  # it may be another's, where two kinds of work follow each other

    def said() -> str | None:
        done, total = last
        if not total:
            return f"{name}: none of its {of} is done yet"
        return None if done == total else f"{name}: {done:,} of {total:,} {of}"

    HEART.now = said
    HEART.start()
    return count
