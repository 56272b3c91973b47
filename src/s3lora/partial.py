"""What lies beside a target while it is written, and what a run that was killed left of it.

A file or folder in the making is called `.NAME.s3lora-RANDOM.partial`. Where a system cannot exchange two folders, the
old one is for a moment `.NAME.s3lora-RANDOM.old`. Both are locked as long as the run lives, and the system lets the
lock go however the run ends: so the next run can tell what nobody writes any more.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

#: Endings of the names of what exists while something else is replaced.
PARTIAL, OLD = ".partial", ".old"
#: Bytes of a name that leave room for what is put around it: file systems take 255.
_LONGEST = 200
_NAME = re.compile(r"\.(?P<stem>.+)\.s3lora-[a-z0-9_]{8}(?P<kind>\.partial|\.old)", re.DOTALL)


def is_left(name: str) -> bool:
    """Return whether a file or folder of this name is being written, or was when its run was killed.

    >>> is_left(".README.md.s3lora-k3_x8a0q.partial"), is_left(".README.md.partial")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def new_partial_file(target: Path) -> tuple[Path, int, int | None]:
    """Make a file in which `target` is written; return it, its descriptor, and the lock, to be closed at the end."""
    import tempfile  # slow to import

    while True:
        descriptor, name = tempfile.mkstemp(prefix=_prefix(target), suffix=PARTIAL, dir=target.parent)
        path = Path(name)
        try:
            # The file is closed before it takes its place, which Windows would refuse otherwise.
            lock = None if os.name == "nt" else os.dup(descriptor)
            if lock is None or _is_ours(path, lock):
                return path, descriptor, lock
            os.close(lock)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        os.close(descriptor)


def new_partial_folder(target: Path, workshop: Path) -> tuple[Path, int | None]:
    """Make a folder in which `target` is written; return it, and the lock, to be closed at the end."""
    import tempfile

    while True:
        path = Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=PARTIAL, dir=workshop))
        try:
            lock = _opened(path)
            if lock is None or _is_ours(path, lock):
                return path, lock
            os.close(lock)
        except BaseException:
            with contextlib.suppress(OSError):
                path.rmdir()
            raise


@contextlib.contextmanager
def moved_away(target: Path, workshop: Path) -> Iterator[Path]:
    """Move a folder away, locked, and back if the block fails."""
    import tempfile

    lock = _opened(target)
    try:
        if lock is not None:
            hold(lock)
        old = Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=OLD, dir=workshop))
        old.rmdir()  # only its name is needed: not every system renames onto an empty folder
        target.rename(old)
        try:
            yield old
        except OSError:
            old.rename(target)
            raise
    finally:
        if lock is not None:
            os.close(lock)


def collect(workshop: Path, home: Path, name: str | None = None) -> None:
    """Remove what dead runs left in `workshop` of writing to `home`; put an old folder back whose place is empty.

    What a live run writes stays, and so does what belongs to another user, or is of another kind than its name says.

    Parameters:
        workshop: the folder that is looked through; where it cannot be, nothing is done.
        home: the folder that the targets lie in.
        name: of the target; None means all that there are.
    """
    stem = None if name is None else _stem(name)
    try:
        with os.scandir(workshop) as entries:
            found = [match for entry in entries if (match := _NAME.fullmatch(entry.name)) is not None]
    except (OSError, ValueError):  # a null character in the name
        return
    for match in sorted(found, key=lambda match: (match["kind"] != OLD, match[0])):
        if stem in (None, match["stem"]):
            with contextlib.suppress(OSError):
                _collect(workshop / match[0], home / (name or match["stem"]), old=match["kind"] == OLD)


def _collect(path: Path, target: Path, *, old: bool) -> None:
    status = path.lstat()
    folder = stat.S_ISDIR(status.st_mode)
    owner = getattr(os, "geteuid", lambda: status.st_uid)()
    if status.st_uid != owner or not (folder or (stat.S_ISREG(status.st_mode) and not old)):
        return
    lock = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        dead = hold(lock)
        if dead is False or not os.path.samestat(os.fstat(lock), status):
            return
        if old and not os.path.lexists(target):
            path.rename(target)  # which fails if somebody has come first
        elif dead and folder:
            remove_tree(path)
        elif dead:
            path.unlink()
    finally:
        os.close(lock)


def hold(descriptor: int) -> bool | None:
    """Lock an open file or folder; return whether it is ours now, None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def remove_tree(folder: Path) -> None:
    """Remove a folder, however deep; what the system refuses to remove stays. A link goes, never what it leads to."""
    import shutil

    with contextlib.suppress(OSError):
        if stat.S_ISLNK(os.lstat(folder).st_mode):
            os.unlink(folder)
            return
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    # What is nested deeper than Python or the system can follow, or may not be written, comes up to the top first.
    inner, count = [folder], 0
    while inner:
        emptied = inner.pop()
        with contextlib.suppress(OSError):
            emptied.chmod(0o700)
            with os.scandir(emptied) as entries:
                listed = list(entries)
            for entry in listed:
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
                    elif emptied == folder:
                        inner.append(Path(entry.path))
                    else:
                        while os.path.lexists(raised := folder / f".{count}"):
                            count += 1
                        os.rename(entry.path, raised)
                        inner.append(raised)
            if emptied != folder:
                emptied.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _prefix(target: Path) -> str:
    return f".{_stem(target.name)}.s3lora-"


def _stem(name: str) -> str:
    raw = os.fsencode(name)
    return name if len(raw) <= _LONGEST else sha256(raw).hexdigest()


def _opened(folder: Path) -> int | None:
    """Return an open folder, None where the system opens none."""
    return None if os.name == "nt" else os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)


def _is_ours(path: Path, lock: int) -> bool:
    """Lock what was just made; return False if another run took it for left behind before that."""
    try:
        return hold(lock) is not False and os.path.samestat(os.fstat(lock), path.lstat())
    except FileNotFoundError:
        return False
