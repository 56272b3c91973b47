"""Processes that a test watches: they start as a terminal starts them, and are waited for by what they do.

No test asks how long something took: on a busy machine everything takes long. Where "at once" is what is tested, the
alternative is made to last for ever.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds after which what a test waits for is taken to hang. Nothing that works comes near it.
PATIENCE = 900.0


@contextlib.contextmanager
def default_signals() -> Iterator[None]:
    """Let signals reach what starts in here: under `nohup`, or behind `&` in a script, it would ignore them."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def start(command: Sequence[object], **options: Any) -> subprocess.Popen[Any]:
    """Start a process that signals reach."""
    with default_signals():
        return subprocess.Popen(list(map(str, command)), **options)


def wait_until(event: Callable[[], T], running: subprocess.Popen[Any] | None = None) -> T:
    """Return the first true value of `event`; fail if the process ends before it."""
    hung = time.monotonic() + PATIENCE
    while True:
        ended = running is not None and running.poll() is not None
        if value := event():
            return value
        assert not ended, "the process ended before what was waited for"
        assert time.monotonic() < hung, "what was waited for does not come"
        time.sleep(0.005)
