"""Pickles in what they come packed in: compressed by joblib, members of zip and tar archives, arrays of objects.

What is unpacked is bounded in bytes, whatever the archive claims. Nothing is written and nothing is run.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from s3lora.adapter.inventory.pickle_source import PickleBudget, PickleSource
from s3lora.adapter.inventory.pickles import PickleNames, looks_like_pickle, names_in
from s3lora.errors import printable

#: Bytes that decide what a file is.
HEAD = 4096
#: Most bytes unpacked of one file, and members of an archive that are looked at.
MAX_UNPACKED = 64 * 1024 * 1024
MAX_MEMBERS = 2000
#: Largest directory of a zip archive that is read, in bytes.
MAX_DIRECTORY = 4 * 1024 * 1024
_PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".dill")
_ZIP, _NPY = b"PK\x03\x04", b"\x93NUMPY"
_OBJECTS = re.compile(rb"'descr':[^}]*?'\|?O")
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class ByteView:
    """Some bytes and their number, read where they are: `read_at(offset, count)`."""

    read_at: Callable[[int, int], bytes]
    size: int

    def head(self) -> bytes:
        """Return the first bytes."""
        return self.read_at(0, min(HEAD, self.size))

    def part(self, offset: int, size: int) -> ByteView:
        """Return a range of these bytes."""
        size = max(0, min(size, self.size - offset))
        return ByteView(lambda at, count: self.read_at(offset + at, min(count, size - at)), size)


def view_of(raw: bytes) -> ByteView:
    """Return bytes in memory as a view."""
    return ByteView(lambda at, count: raw[at : at + count], len(raw))


def pickles_in(view: ByteView, budget: PickleBudget, *, named: bool = False, packed: bool = True) -> PickleNames | None:
    """Return what the pickles in a file name, None if it is none and holds none.

    Parameters:
        view: the file.
        budget: how much may be read.
        named: the name of the file says that it is a pickle, so that it is read as one whatever it begins with.
        packed: look into what is compressed, too.
    """
    head = view.head()
    if head.startswith(_ZIP):
        return _joined(_in_zip(view, budget))
    if head[257:262] == b"ustar":
        return _joined(_in_tar(view, budget))
    if head.startswith(_NPY):
        return _in_array(view, head, budget)
    if packed and (unpack := _unpacker(head)) is not None:
        if not named and not looks_packed(_unpacked(view, unpack, HEAD)[0]):
            return None
        raw, whole = _unpacked(view, unpack)
        found = pickles_in(view_of(raw), budget, named=named, packed=False)
        if found is None or whole:
            return found
        return PickleNames(found.names, "was not unpacked to its end, so not all of it was read", found.whole)
    if named or looks_like_pickle(head, view.size):
        return names_in(PickleSource(view.read_at, view.size, budget))
    return None


def looks_packed(head: bytes) -> bool:
    """Return whether what begins so is a pickle, or may hold one."""
    return head.startswith((_ZIP, _NPY)) or head[257:262] == b"ustar" or looks_like_pickle(head, len(head))


def is_archive(head: bytes) -> bool:
    """Return whether a file that begins so is an archive, or compressed."""
    return head.startswith(_ZIP) or head[257:262] == b"ustar" or _unpacker(head) is not None


def zip_names(view: ByteView) -> list[str]:
    """Return the names of the members of a zip archive, as far as they can be read."""
    archive = _zip(view)
    return [] if archive is None else [entry.filename for entry in archive.infolist()[:MAX_MEMBERS]]


def _joined(parts: Iterator[PickleNames]) -> PickleNames | None:
    found = list(parts)
    if not found:
        return None
    notes = dict.fromkeys(part.note for part in found if part.note)
    return PickleNames(frozenset().union(*(part.names for part in found)), "; ".join([*notes][:3]))


def _in_zip(view: ByteView, budget: PickleBudget) -> Iterator[PickleNames]:
    archive = _zip(view)
    if archive is None:
        yield PickleNames(frozenset(), "is an archive that cannot be read")
        return
    entries = archive.infolist()
    left = MAX_UNPACKED
    for entry in entries[:MAX_MEMBERS]:
        name = entry.filename.lower()
        if not name.endswith((*_PICKLES, ".npy")):
            continue
        try:
            with archive.open(entry) as member:
                raw = member.read(left + 1)
        except Exception as error:  # whatever a hostile archive makes zipfile stumble over
            where = printable(entry.filename, 60)
            yield PickleNames(frozenset(), f"its member {where} cannot be read ({printable(error, 60)})")
            continue
        left -= len(raw)
        found = pickles_in(view_of(raw), budget, named=name.endswith(_PICKLES), packed=False)
        if found is not None:
            yield found
        if left < 0:
            yield PickleNames(frozenset(), f"unpacks to more than {MAX_UNPACKED:,} bytes, which were not all read")
            return
    if len(entries) > MAX_MEMBERS:
        yield PickleNames(frozenset(), f"has more than {MAX_MEMBERS:,} members, which were not all read")


class _ZipWindow(io.RawIOBase):
    """A view as zipfile wants it, which refuses to read more at once than a directory may have."""

    def __init__(self, view: ByteView) -> None:
        super().__init__()
        self._view = view
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._view.size}[whence]
        if start + offset < 0:
            raise OSError("before the beginning of the file")
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        count = max(0, self._view.size - self._at)
        if size is not None and size >= 0:
            count = min(count, size)
        if count > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"a directory of {count:,} bytes")
        piece = self._view.read_at(self._at, count)
        self._at += len(piece)
        return piece


def _zip(view: ByteView) -> zipfile.ZipFile | None:
    try:
        return zipfile.ZipFile(_ZipWindow(view))
    except Exception:  # of the several classes that zipfile raises
        return None


def _in_tar(view: ByteView, budget: PickleBudget) -> Iterator[PickleNames]:
    """Yield what the pickles of a tar archive name; torch kept its oldest checkpoints so."""
    at = 0
    for _ in range(MAX_MEMBERS):
        header = view.read_at(at, 512)
        if len(header) < 512 or header[257:262] != b"ustar":
            return
        name = header[:100].split(b"\0")[0].decode("utf-8", "replace").lower()
        digits = header[124:136].strip(b" \0")
        if not re.fullmatch(rb"[0-7]+", digits):
            yield PickleNames(frozenset(), "is an archive that cannot be read to its end")
            return
        size = int(digits, 8)
        named = name.endswith(_PICKLES) or name in ("pickle", "tensors", "storages")
        found = pickles_in(view.part(at + 512, size), budget, named=named, packed=False)
        if found is not None:
            yield found
        at += 512 + -(-size // 512) * 512


def _in_array(view: ByteView, head: bytes, budget: PickleBudget) -> PickleNames | None:
    """Return what the pickle in a NumPy file names: arrays of objects are kept so."""
    try:
        length, start = (
            (struct.unpack("<H", head[8:10])[0], 10) if head[6] < 2 else (struct.unpack("<I", head[8:12])[0], 12)
        )
    except (struct.error, IndexError):
        return None
    if not _OBJECTS.search(head[start : start + length]):
        return None
    rest = view.part(start + length, view.size)
    return names_in(PickleSource(rest.read_at, rest.size, budget))


def _unpacker(head: bytes) -> Callable[[], Any] | None:
    """Return what makes a decompressor for a file that begins so."""
    if head[:2] == b"\x1f\x8b":
        return lambda: zlib.decompressobj(31)
    if head[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"):
        return lambda: zlib.decompressobj()
    if head[:3] == b"BZh":
        return bz2.BZ2Decompressor
    if head[:6] == b"\xfd7zXZ\0" or head[:3] == b"\x5d\0\0":
        return lambda: lzma.LZMADecompressor(memlimit=128 * 1024 * 1024)
    return None


def _unpacked(view: ByteView, make: Callable[[], Any], most: int = MAX_UNPACKED) -> tuple[bytes, bool]:
    """Return the first bytes of what is compressed, and whether these are all; the rest of a damaged file is left."""
    made, found = make(), io.BytesIO()
    zipped = hasattr(made, "unconsumed_tail")
    data, at = b"", 0
    try:
        while found.tell() <= most and at <= 2 * MAX_UNPACKED:
            if not data and (zipped or made.eof or made.needs_input):
                data = view.read_at(at, _PIECE)
                at += len(data)
                if not data:
                    return found.getvalue(), bool(made.eof)
            if made.eof:  # readers go on with what is packed behind it
                if _unpacker(data) is None:
                    return found.getvalue(), True
                made = make()
            found.write(made.decompress(data, _PIECE))
            data = made.unused_data if made.eof else made.unconsumed_tail if zipped else b""
    except (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError, MemoryError):
        pass
    return found.getvalue(), False
