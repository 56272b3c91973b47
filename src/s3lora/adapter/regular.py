"""A regular file that is read, never mapped: who truncates it meanwhile causes an error, not the end of the program.

Touching a page of a map that lies beyond the end of a shortened file raises SIGBUS, which no handler in Python can
turn into a sentence. Reading costs a copy: 10 ms for 84 MB in pieces of 256 KB, where mapping costs 5 ms and every page
that is touched a fault besides (measured). Larger pieces cost more, for fresh memory is cleared before it is given.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3lora.errors import AdapterFileError

Bytes = NDArray[np.uint8]

#: Bytes read at a time: memory of this size is used again without being asked for anew.
CHUNK = 256 * 1024
#: Bytes of tensors that a file remembers having read, the last two in any case: experts share the tensors of their two
#: factors, and each would read them again.
RECENT = 16 * 1024 * 1024
# O_NONBLOCK: opening a named pipe must not wait for a writer.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class RegularFile:
    """An open regular file. Reads may come from several threads."""

    def __init__(self, path: Path) -> None:
        """Open `path`; raise AdapterFileError if it is missing, unreadable or no regular file."""
        refused = AdapterFileError("is not a regular file", file=path.name, fix="give a weights file or its folder")
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise refused  # before it is opened: opening a device or a pipe can have effects
            descriptor = os.open(path, _FLAGS)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AdapterFileError(f"cannot be opened ({reason})", file=path.name) from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # another file came in its place
            os.close(descriptor)
            raise refused
        self.path = path
        self.size = status.st_size
        self._status = _identity(status)
        self._descriptor = descriptor
        self._close_descriptor = weakref.finalize(self, os.close, descriptor)
        self._lock = threading.Lock()
        self._recent: OrderedDict[tuple[int, int], Bytes] = OrderedDict()
        self._remembered = 0  # bytes of them all: an adapter has tens of thousands of tensors
        #: What a pass over the file has read already, and what it must find when it reads a range again: its SHA-256.
        self.held: dict[tuple[int, int], Bytes] = {}
        self.seen: dict[tuple[int, int], bytes] = {}

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[RegularFile]:
        """Open `path` for as long as somebody needs it, but close it at once where reading it raises."""
        file = cls(path)
        with ExitStack() as stack:
            stack.callback(file.close)
            yield file
            stack.pop_all()

    def bytes(self, offset: int, count: int) -> bytes:
        """Return a copy of `count` bytes from `offset`, fewer at the end of the file."""
        count = max(0, min(count, self.size - offset))
        return self.fresh(offset, count).tobytes() if count else b""

    def fresh(self, offset: int, count: int) -> Bytes:
        """Return `count` bytes from `offset`, read now; raise AdapterFileError where the file has become shorter."""
        made = np.empty(count, np.uint8)
        self._fill(made.data, offset)
        return made

    def range(self, offset: int, count: int) -> Bytes:
        """Return `count` bytes from `offset`, which are read if they are not at hand.

        Raises AdapterFileError where the file has become shorter, or where these bytes are not what was hashed.
        """
        key = (offset, count)
        found = self.held.get(key)
        if found is not None:
            return found
        with self._lock:
            if key in self._recent:
                self._recent.move_to_end(key)
                return self._recent[key]
        made = self.fresh(offset, count)
        if key in self.seen and hashlib.sha256(made.data).digest() != self.seen[key]:
            raise self._changed()
        made.flags.writeable = False
        with self._lock:
            replaced = self._recent.pop(key, None)  # where another thread read the same
            self._remembered += count - (0 if replaced is None else replaced.nbytes)
            self._recent[key] = made
            while len(self._recent) > 2 and self._remembered > RECENT:
                self._remembered -= self._recent.popitem(last=False)[1].nbytes
        return made

    def chunks(self, offset: int, count: int) -> Iterator[memoryview]:
        """Yield `count` bytes from `offset` in bounded pieces; the next piece overwrites the one before it."""
        buffer = memoryview(bytearray(min(CHUNK, count)))
        for start in range(offset, offset + count, CHUNK):
            piece = buffer[: min(CHUNK, offset + count - start)]
            self._fill(piece, start)
            yield piece

    def _fill(self, target: memoryview, offset: int) -> None:
        if not self._close_descriptor.alive:
            raise AdapterFileError("was closed before it was read", file=self.path.name)
        done = 0
        while done < len(target):
            try:
                length = os.preadv(self._descriptor, [target[done:]], offset + done)
            except OSError as error:
                raise AdapterFileError(f"cannot be read ({error.strerror})", file=self.path.name) from None
            if length == 0:
                raise AdapterFileError("became shorter while it was read", file=self.path.name, fix="run this again")
            done += length

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file, in hexadecimal."""
        digest = hashlib.sha256()
        for chunk in self.chunks(0, self.size):
            digest.update(chunk)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raise AdapterFileError if the file was written to, or another one put in its place, since it was opened."""
        try:
            now = _identity(os.stat(self.path))
        except OSError:
            now = ()
        if now != self._status or _identity(os.fstat(self._descriptor)) != self._status:
            raise self._changed()

    def _changed(self) -> AdapterFileError:
        return AdapterFileError("was changed while it was read", file=self.path.name, fix="run this again")

    def close(self) -> None:
        """Close the file and forget what was read."""
        self.held.clear()
        self._recent.clear()
        self._remembered = 0
        self._close_descriptor()


def _identity(status: os.stat_result) -> tuple[Any, ...]:
    """Return what differs between two files, and changes when one is written to: its ctime cannot be set back."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
