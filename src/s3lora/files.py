"""Reading a file whole, bounded and regular; writing one whole or not at all, never through a link or onto an input."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from s3lora.errors import OutputError, UsageError, printable

#: What a result is never written over, by its name: a slip of the hand would cost the adapter.
ADAPTER_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".gguf", "adapter_config.json")
LINK = "is a link, and its target would be overwritten"


def read_settings(path: Path, limit: int) -> bytes:
    """Return the content; raise UsageError if it is missing, unreadable, no regular file or above `limit` bytes."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError("is no regular file", file=path)
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror or error})", file=path) from None
    except ValueError:  # a null character in the name
        raise UsageError("is no name of a file", file=path) from None
    if len(content) > limit:
        raise UsageError(f"is larger than {limit:,} bytes", file=path)
    return content


def check_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise OutputError if a file obviously cannot be written to `path`, or must not be.

    A link is refused wherever it leads, except to a device or a pipe. So is a part of an adapter, and whatever is the
    same file as one of `inputs`, under any name.
    """
    try:
        if path.is_symlink() and not _is_device(path):
            raise OutputError(LINK, file=path, fix=f"give --output {printable(_target(path))}, or another file")
        if path.is_dir():
            raise OutputError("is a folder", file=path, fix="give the name of a file")
        if not path.parent.is_dir():
            raise OutputError("cannot be written (no such folder)", file=path)
        if not path.is_file():
            return
        # The real name counts: a folder on the way may be a link, and some systems ignore the case of names.
        if path.name.lower().endswith(ADAPTER_FILES):
            raise OutputError("is part of an adapter", file=path, fix="give --output another file")
        if any(other.is_file() and path.samefile(other) for other in inputs):
            raise OutputError("is read by this command", file=path, fix="give --output another file")
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", file=path) from None
    except ValueError:  # a null character
        raise UsageError("--output is no name of a file", fix="give the file to write") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step: whoever looks sees the old file or the new one, and no part of either.

    Devices and pipes are written to, never replaced. Raises OutputError where the system refuses, and where `path` is
    a link to anything else.
    """
    partial: str | None = None
    try:
        if _is_device(path):
            with path.open("wb") as device:
                device.write(content)
            return
        if path.is_symlink():
            raise OutputError(LINK, file=path)
        import tempfile  # only here, and slow to import

        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".partial", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name with no content
        Path(partial).chmod(_mode(path))
        Path(partial).replace(path)  # a link that came meanwhile is replaced by this, not followed
        partial = None
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", file=path) from None
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _target(link: Path) -> str:
    return os.path.relpath(os.path.realpath(link))


def _mode(path: Path) -> int:
    """Return the permissions of the file that is replaced, or of a new one."""
    if path.is_file():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
