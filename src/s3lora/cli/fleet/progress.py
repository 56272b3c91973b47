"""The progress of a fleet scan on standard error: a bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from s3lora.cli.output import complain, live
from s3lora.cli.progress import EVERY
from s3lora.fleet.run import FleetProgress, Watch


class Last:
    """Remembers the progress of a run, and lets another look at it."""

    def __init__(self, watch: Watch | None) -> None:
        """Take who looks at it, None for nobody."""
        self.watch = watch
        self.progress = FleetProgress()

    def __call__(self, progress: FleetProgress) -> None:
        """Keep it, and pass it on."""
        self.progress = progress
        if self.watch is not None:
            self.watch(progress)


@contextlib.contextmanager
def watching(*, quiet: bool) -> Iterator[Watch | None]:
    """Give what shows the progress, None if nothing is to be shown."""
    if quiet:
        yield None
    elif live():
        with _bar() as watch:
            yield watch
    else:
        yield _Lines()


@contextlib.contextmanager
def _bar() -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[errors]}", style="yellow"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("listing", total=None, rate="", errors="")
        start = time.monotonic()

        def show(progress: FleetProgress) -> None:
            rate = f"{_rate(progress, time.monotonic() - start):.1f}/s"
            bar.update(
                task,
                description="scanning",
                total=progress.total,
                completed=progress.done,
                rate=rate,
                errors=_errors(progress.errors),
            )

        yield show


class _Lines:
    """Prints a line every half minute."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()

    def __call__(self, progress: FleetProgress) -> None:
        """Print a line if that time has gone since the last."""
        now = time.monotonic()
        if now - self.last < EVERY:
            return
        self.last = now
        rate = _rate(progress, now - self.start)
        left = f", {_duration((progress.total - progress.done) / rate)} left" if rate else ""
        errors = f", {_errors(progress.errors)}" if progress.errors else ""
        complain(f"{progress.done:,} of {progress.total:,} adapters, {rate:.1f}/s{errors}{left}", 0)


def _rate(progress: FleetProgress, seconds: float) -> float:
    return progress.done / seconds if seconds > 0 else 0.0


def _errors(count: int) -> str:
    return "" if not count else f"{count:,} error{'s' if count > 1 else ''}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
