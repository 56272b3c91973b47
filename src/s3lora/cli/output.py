"""Where output goes: results to standard output or a file, everything else to standard error."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from s3lora.errors import OutputError, UsageError, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from s3lora.scan import Progress

#: Seconds before a progress line appears.
PATIENCE = 1.0
CLEAR = "\r\x1b[K"
#: What a result is never written over: a slip of the hand would cost the adapter.
ADAPTER_FILES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", "adapter_config.json")


def complain(message: str, status: int) -> int:
    """Print one line on standard error and return the status."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # nobody listens; the status still tells
            print(f"{CLEAR if live() else ''}s3lora: {printable(message, 2000)}", file=sys.stderr, flush=True)
    return status


def check_output(output: str | None) -> None:
    """Raise before any work is done if a result can obviously not be written to `output`, or must not be."""
    if output is None:
        return
    path = Path(output)
    if not output.strip():
        raise UsageError("--output has no name", fix="give the file to write")
    if path.is_dir():
        raise OutputError("is a folder", file=path, fix="give the name of a file")
    if not path.parent.is_dir():
        raise OutputError("cannot be written (no such folder)", file=path)
    if path.is_file() and path.name.endswith(ADAPTER_FILES):
        raise OutputError("is part of an adapter", file=path, fix="give --output another file")


def emit(content: str | bytes, output: str | None) -> None:
    """Print text as UTF-8, whatever the locale, or bytes as they are; or write them to a file whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    if output is not None:
        _write(Path(output), data)
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
        emit(to_text(renderable), output)
    else:
        stream = _stdout()
        # Rendered first: rich would end the process by itself when the reader has gone.
        stream.write(render(renderable, console_for(stream)))
        stream.flush()


def _stdout() -> TextIO:
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    return sys.stdout


def _write(path: Path, data: bytes) -> None:
    partial: str | None = None
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as device:  # /dev/null, a pipe: they are written to, never replaced
                device.write(data)
            return
        path = Path(os.path.realpath(path))  # the file that a link leads to, not the link
        import tempfile  # only here, and slow to import

        descriptor, partial = tempfile.mkstemp(prefix=".s3lora.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(partial).chmod(_mode(path))
        Path(partial).replace(path)
        partial = None
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", file=path) from None
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """Return the permissions of the file that is replaced, or of a new one."""
    if path.is_file():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def progress_line(label: str) -> Progress | None:
    """Return a callback that counts modules on standard error, if that is a terminal and the work takes long."""
    if not live():
        return None
    start = time.monotonic()

    def show_count(done: int, total: int) -> None:
        if time.monotonic() - start > PATIENCE:
            count = "" if done == total else f"scanning {printable(label, 40)}: {done} of {total} modules"
            sys.stderr.write(CLEAR + count)
            sys.stderr.flush()

    return show_count


def live() -> bool:
    """Return whether standard error is a terminal that can overwrite a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
