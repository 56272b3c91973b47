"""Where output goes: results to standard output or a file, everything else to standard error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from s3lora.errors import OutputError, UsageError, printable
from s3lora.files import check_writable, write_whole
from s3lora.outside import without_commands

if TYPE_CHECKING:
    from rich.console import RenderableType

CLEAR = "\r\x1b[K"


def complain(message: str, status: int) -> int:
    """Print one line on standard error and return the status."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # nobody listens; the status still tells
            print(f"{CLEAR if live() else ''}s3lora: {printable(message, 2000)}", file=sys.stderr, flush=True)
    return status


def misused(error: click.ClickException) -> int:
    """Print what click says of a wrong use, and return the status."""
    told = io.StringIO()
    error.show(told)
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            lines = (printable(line, 2000) for line in told.getvalue().splitlines())
            print(without_commands("\n".join(lines)), file=sys.stderr, flush=True)
    return 2


def check_output(output: str | None, option: str = "--output") -> None:
    """Raise before any work is done if a result can obviously not be written to `output`, or must not be.

    `option` is what names it. Whatever else the running command names on its command line, and that is a file, is an
    input: never written onto.
    """
    if output is None:
        return
    if not output.strip():
        raise UsageError(f"{option} has no name", fix="give the file to write")
    context = click.get_current_context(silent=True)
    check_writable(Path(output), () if context is None else _inputs(context, option), option)


def check_apart(report: str | None, output: str | None) -> None:
    """Raise if a report would lie in the folder that `--output` writes."""
    if report is None or output is None or not (report.strip() and output.strip()):
        return
    # realpath, for resolve() raises on a loop of links
    inside = Path(os.path.realpath(report))
    if Path(os.path.realpath(output)) in (inside, *inside.parents):
        raise UsageError("--report lies in the folder of --output", fix="give it a place of its own")


def _inputs(context: click.Context, option: str) -> Iterator[Path]:
    for name, value in context.params.items():
        if name not in ("output", option.strip("-")):
            yield from (Path(one) for one in (value if isinstance(value, tuple) else (value,)) if _is_name(one))


def _is_name(value: object) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and 0 < len(value) < 4096 and "\0" not in value)


def emit(content: str | bytes, output: str | None) -> None:
    """Print text as UTF-8, whatever the locale, or bytes as they are; or write them to a file whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    if output is not None:
        write_whole(Path(output), data)
        return
    stream = _stdout()
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(data.decode())
    else:
        stream.flush()
        buffer.write(data)
    stream.flush()


def show(renderable: RenderableType, output: str | None) -> None:
    """Print a rich renderable, or write it as plain text."""
    from s3lora.report.text import console_for, render, to_text

    if output is not None:
        emit(without_commands(to_text(renderable)), output)
    else:
        stream = _stdout()
        # Rendered first: rich would end the process by itself when the reader has gone.
        stream.write(without_commands(render(renderable, console_for(stream))))
        stream.flush()


def _stdout() -> TextIO:
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    return sys.stdout


def live() -> bool:
    """Return whether standard error is a terminal that can overwrite a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
