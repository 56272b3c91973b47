"""Every bounded read, of regular files only, and every write: whole or not at all, through no link, onto no input.

What is no regular file is refused before it is opened. A named pipe would wait for a writer for ever, a device may
never end, and in both a library written in C does not even listen to SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from s3lora.errors import OutputError, S3LoRAError, UsageError, printable
from s3lora.partial import collect, hold, moved_away, new_partial_file, new_partial_folder, remove_tree
from s3lora.wording import worded

#: What a result is never written over, by its name: a slip of the hand would cost the adapter.
ADAPTER_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".gguf", "adapter_config.json")
LINK = "is a link, and its target would be overwritten"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError unless `path` is a regular file or a link to one: for libraries that open files by themselves."""
    try:
        status = os.stat(path)
    except ValueError:  # a null character in the name
        raise OSError(errno.EINVAL, "not the name of a file") from None
    _regular(status)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or what a link leads to, for reading; raise OSError for anything else."""
    check_regular(path)
    # Not waiting: a named pipe may have come in its place since.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _regular(os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a regular file; raise OSError for anything else, and above `limit` bytes."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes")
    return content


def read_whole(
    path: Path, limit: int, error: type[S3LoRAError] = UsageError, *, label: object = None, fix: str | None = None
) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; raise `error` for any other.

    Parameters:
        path: what to read; a link is followed.
        limit: most bytes.
        error: class of the error.
        label: what the error calls the file, if not `path`.
        fix: what the error says to do.
    """
    try:
        return read_bytes(path, limit)
    except OSError as problem:
        raise error(f"cannot be read ({reason(problem)})", file=path if label is None else label, fix=fix) from None


def reason(problem: Exception) -> str:
    """Return why a file could not be read or written, without its name and the number of the error."""
    return printable(getattr(problem, "strerror", None) or problem)


def _regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def check_writable(path: Path, inputs: Iterable[Path] = (), option: str = "--output") -> None:
    """Raise OutputError if a file obviously cannot be written to `path`, or must not be.

    A link is refused wherever it leads, except to a device or a pipe. So is a part of an adapter, and whatever is the
    same file as one of `inputs`, under any name. `option` is what names the path.
    """
    try:
        if path.is_symlink() and not _is_stream(path):
            target = _target(path)
            other = "" if target.lower().endswith(ADAPTER_FILES) else f"{printable(target)}, or "
            raise OutputError(LINK, file=path, fix=f"give {option} {other}another file")
        if path.is_dir():
            raise OutputError("is a folder", file=path, fix="give the name of a file")
        if not path.parent.is_dir():
            raise OutputError("cannot be written (no such folder)", file=path)
        _refuse_disk(path)
        if not path.is_file():
            return
        # The real name counts: a folder on the way may be a link, and some systems ignore the case of names.
        if path.name.lower().endswith(ADAPTER_FILES):
            raise OutputError("is part of an adapter", file=path, fix=f"give {option} another file")
        if any(other.is_file() and path.samefile(other) for other in inputs):
            raise OutputError("is read by this command", file=path, fix=f"give {option} another file")
    except OSError as error:
        raise _unwritable(path, error) from None
    except ValueError:  # a null character
        raise UsageError(f"{option} is no name of a file", fix="give the file to write") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step: whoever looks sees the old file or the new one, and no part of either.

    Character devices and pipes are written to, never replaced. What killed runs left of writing to `path` goes. Raises
    OutputError where the system refuses, and where `path` is a link to anything else.
    """
    partial: Path | None = None
    lock: int | None = None
    try:
        if _is_stream(path):
            with path.open("wb") as stream:
                stream.write(content)
            return
        if path.is_symlink():
            raise OutputError(LINK, file=path)
        _refuse_disk(path)
        settle(path)
        partial, descriptor, lock = new_partial_file(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            _flush(file)
        partial.chmod(_mode(path))
        partial.replace(path)  # a link that came meanwhile is replaced by this, not followed
        partial = None
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                partial.unlink()
        _close(lock)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a new file to write, and flush it to the disk; raise OSError if there is anything of that name."""
    with path.open("xb") as file:
        yield file
        _flush(file)


def write_json(path: Path, content: object) -> None:
    """Write a new file of indented JSON, and flush it to the disk; raise OSError if there is anything of that name."""
    import msgspec

    with new_file(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a regular file into a new one, and flush it to the disk; raise OSError where that fails."""
    import shutil

    with open_regular(source) as original, new_file(target) as copy:
        shutil.copyfileobj(original, copy, 1 << 20)


def settle(out: Path) -> None:
    """Remove what killed runs left of writing to `out`; if one of them had moved the old folder away, put it back."""
    out = Path(os.path.abspath(out))  # without "..", whose name could not be that of a new folder
    collect(out.parent, out.parent, out.name)


@contextlib.contextmanager
def replacing(out: Path, workshop: Path | None = None, *, force: bool = True) -> Iterator[Path]:
    """Give an empty folder beside `out`; when the block ends well, it takes the place of `out` in one step.

    If the block fails, or the process dies, `out` is as it was.

    Parameters:
        out: a folder, or nothing yet.
        workshop: an existing folder of the same file system to work in, where nothing else may lie beside `out`.
        force: replace what is at `out`. Without it, `out` must still be empty or missing when the block ends: of two
            runs that write to one place at once, the second fails.

    Raises OutputError where the system refuses.
    """
    out = Path(os.path.abspath(out))
    if out.is_symlink():
        raise OutputError("is a link", file=out, fix="name the folder itself")
    workshop = out.parent if workshop is None else workshop
    partial: Path | None = None
    lock: int | None = None
    made: list[Path] = []
    try:
        made = [folder for folder in out.parents if not folder.exists()]  # innermost first
        out.parent.mkdir(parents=True, exist_ok=True)
        partial, lock = new_partial_folder(out, workshop)
        yield partial
        partial.chmod(0o777 & ~_umask())
        sync_folder(partial)
        if force:
            _swap(partial, out, workshop)
        else:
            _take(partial, out)
        for folder in (out, *made):
            _settled(folder)
    except OSError as error:
        raise _unwritable(out, error) from None
    finally:
        if partial is not None:
            remove_tree(partial)
        _close(lock)
        with contextlib.suppress(OSError):  # which says that they are not empty
            for folder in made:
                folder.rmdir()


def locked(path: Path) -> BinaryIO:
    """Return an open file, made if there is none, that one process can hold; closing it lets it go.

    The system lets it go as well when the process ends, however it ends. Raises BlockingIOError if another process
    holds it, and OSError if it is a link or no regular file. Where the system has no such locks, it is not held.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(path, flags, 0o666), "rb")
    try:
        status = os.fstat(file.fileno())
        _regular(status)
        # A run that ends without a result removes its lock: then this one is of a file that nobody else can see.
        if hold(file.fileno()) is False or not os.path.samestat(status, path.lstat()):
            raise BlockingIOError(errno.EAGAIN, "is held by another process")
    except OSError:
        file.close()
        raise
    return file


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())  # else a power cut could leave the new name with no content


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot be written ({reason(error)})", file=path)


def _is_stream(path: Path) -> bool:
    """Return whether what is written to `path` goes somewhere else: a character device or a pipe."""
    mode = path.stat().st_mode if path.exists() else 0
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _refuse_disk(path: Path) -> None:
    """Raise OutputError for a disk or a socket, which can be neither written to nor replaced."""
    if path.exists() and not (path.is_file() or path.is_dir() or _is_stream(path)):
        raise OutputError("is neither a file nor a pipe", file=path)


def _target(link: Path) -> str:
    return os.path.relpath(os.path.realpath(link))


def _mode(path: Path) -> int:
    """Return the permissions of the file that is replaced, or of a new one."""
    return stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk; raise OSError where that fails."""
    if os.name == "nt":  # opens no folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settled(folder: Path) -> None:
    """Flush the name of a folder that is in its place."""
    try:
        sync_folder(folder.parent)
    except OSError as error:
        raise OutputError(f"is written, but may not outlast a power cut ({reason(error)})", file=folder) from None


def _take(new: Path, out: Path) -> None:
    """Put `new` at `out` if that is still empty or missing."""
    try:
        if os.name == "nt" and out.is_dir():
            out.rmdir()  # elsewhere the rename does it, if it is empty
        new.rename(out)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        fix = worded("give {out} a new folder, or {force} to replace it")
        raise OutputError("was written by another run meanwhile", file=out, fix=fix) from None


def _swap(new: Path, out: Path, workshop: Path) -> None:
    """Put `new` in the place of `out`; what was there is afterwards at `new`, or gone."""
    if not out.exists():
        new.rename(out)
        return
    if _exchange(new, out):
        return
    # Without an atomic exchange there is a moment without `out`; the old folder then lies in the workshop, whole.
    with moved_away(out, workshop) as old:
        new.rename(out)
    remove_tree(old)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths atomically (Linux, renameat2); return whether the system could."""
    import ctypes

    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)
