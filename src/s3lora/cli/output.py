"""Where output goes: results to standard output or a file, everything else to standard error."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from s3lora.errors import OutputError, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from s3lora.scan import Progress

#: Seconds before a progress line appears.
PATIENCE = 1.0


def complain(message: str, status: int) -> int:
    """Print one line on standard error and return the status."""
    print(f"s3lora: {printable(message, 2000)}", file=sys.stderr)
    return status


def emit(text: str, output: str | None) -> None:
    """Print text, or write it to a file whole or not at all."""
    if output is None:
        sys.stdout.write(text)
        return
    path = Path(output)
    partial: str | None = None
    try:
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(partial).chmod(0o666 & ~mask)
        Path(partial).replace(path)
        partial = None
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", file=path) from None
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def show(renderable: RenderableType, output: str | None) -> None:
    """Print a rich renderable, or write it as plain text."""
    from s3lora.report.text import console_for, to_text

    if output is not None:
        emit(to_text(renderable), output)
    else:
        console_for(sys.stdout).print(renderable)


def progress_line(label: str) -> Progress | None:
    """Return a callback that counts modules on standard error, if that is a terminal and the work takes long."""
    if not sys.stderr.isatty():
        return None
    start = time.monotonic()

    def show_count(done: int, total: int) -> None:
        if done == total:
            sys.stderr.write("\r\x1b[K" if time.monotonic() - start > PATIENCE else "")
        elif time.monotonic() - start > PATIENCE:
            sys.stderr.write(f"\r\x1b[Kscanning {printable(label, 40)}: {done} of {total} modules")
        sys.stderr.flush()

    return show_count
