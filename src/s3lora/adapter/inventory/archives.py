"""Pickles in what they come packed in: compressed by joblib, members of zip and tar archives, arrays of objects.

Archives within archives are looked into as well, and a member is told by its name or by its first bytes. What is
unpacked is bounded in bytes, whatever the archive claims. Nothing is written and nothing is run.
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
from itertools import chain
from typing import Any

import numpy as np

from s3lora.adapter.inventory.pickle_source import PickleBudget, PickleSource
from s3lora.adapter.inventory.pickles import IDENTIFIER, PickleNames, looks_like_pickle, names_in
from s3lora.errors import printable

#: Bytes that decide what a file is.
HEAD = 4096
#: Most bytes unpacked of one file, members of an archive that are looked at, and archives within one another.
MAX_UNPACKED = 64 * 1024 * 1024
MAX_MEMBERS = 2000
MAX_PACKED = 4
#: Largest directory of a zip archive that is read, in bytes.
MAX_DIRECTORY = 4 * 1024 * 1024
_PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".dill")
_ZIP, _NPY = b"PK\x03\x04", b"\x93NUMPY"
#: 7z, RAR, zstd and lz4, which are not unpacked here.
_CLOSED = (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
#: Bits of a zip entry that say it is encrypted or patched. Readers differ in what they make of them.
_SEALED = 0x1 | 0x20 | 0x40
_OBJECTS = re.compile(rb"'descr':[^}]*?'\|?O")
_PIECE = 256 * 1024
#: Bytes of a header of a tar archive.
_BLOCK = 512


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


def pickles_in(
    view: ByteView, budget: PickleBudget, *, named: bool = False, depth: int = MAX_PACKED
) -> PickleNames | None:
    """Return what the pickles in a file name, None if it is none and holds none.

    Parameters:
        view: the file.
        budget: how much may be read.
        named: the name of the file says that it is a pickle, so that it is read as one whatever it begins with.
        depth: how many archives within one another are looked into.
    """
    head = view.head()
    unpack = _unpacker(head)
    if (head.startswith(_ZIP) or is_tar(head) or unpack) and depth <= 0:
        return PickleNames(frozenset(), f"has more than {MAX_PACKED} archives within one another, which were not read")
    if head.startswith(_ZIP):
        return _joined(_in_zip(view, budget, depth))
    if is_tar(head):
        return _joined(chain(_in_tar(view, budget, depth), _before_tar(view, budget)))
    if head.startswith(_NPY):
        return _in_array(view, head, budget)
    if unpack is not None:
        if not named and not _worth(_unpacked(view, unpack, HEAD)[0]):
            return None
        most = max(0, min(MAX_UNPACKED, budget.unpacked))
        raw, whole = _unpacked(view, unpack, most)
        budget.unpacked -= min(len(raw), most)
        found = pickles_in(view_of(raw), budget, named=named, depth=depth - 1)
        if found is None or whole:
            return found
        return PickleNames(found.names, "was not unpacked to its end, so not all of it was read", found.whole)
    if named or looks_like_pickle(head, view.size):
        return names_in(PickleSource(view.read_at, view.size, budget))
    return None


def _worth(head: bytes) -> bool:
    """Return whether what begins so is a pickle, or may hold one."""
    if head.startswith(_NPY):
        return _OBJECTS.search(head) is not None
    return is_archive(head) or looks_like_pickle(head, len(head))


def is_archive(head: bytes) -> bool:
    """Return whether a file that begins so is an archive, or compressed, and can be unpacked here."""
    return head.startswith(_ZIP) or is_tar(head) or _unpacker(head) is not None


def is_closed(head: bytes) -> bool:
    """Return whether a file that begins so is an archive that is not unpacked here."""
    return head.startswith(_CLOSED)


def is_tar(head: bytes) -> bool:
    """Return whether a tar archive begins so, by the sum in its first header: old ones have no sign of their own."""
    digits = head[148:156].strip(b" \0")
    if len(head) < _BLOCK or not digits or not all(digit in b"01234567" for digit in digits):
        return False
    header = np.frombuffer(head[:148] + b" " * 8 + head[156:_BLOCK], np.uint8)
    # Some programs have summed the bytes with a sign.
    return int(digits, 8) in (int(header.sum(dtype=np.int64)), int(header.view(np.int8).sum(dtype=np.int64)))


def _before_tar(view: ByteView, budget: PickleBudget) -> Iterator[PickleNames]:
    """Yield what a pickle names that a tar archive also is: the name of its first member may be a program."""
    found = names_in(PickleSource(view.read_at, view.size, budget))
    if names := frozenset(name for name in found.names if IDENTIFIER.fullmatch(name)):
        yield PickleNames(names, found.note, found.whole)


def member_names(view: ByteView) -> list[str]:
    """Return the names of the members of a zip or tar archive, as far as they can be read."""
    if is_tar(view.head()):
        return [name for name, _ in _tar_members(view)]
    archive = _zip(view)
    return [] if archive is None else [entry.filename for entry in archive.infolist()[:MAX_MEMBERS]]


def _joined(parts: Iterator[PickleNames]) -> PickleNames | None:
    found = list(parts)
    if not found:
        return None
    notes = dict.fromkeys(part.note for part in found if part.note)
    return PickleNames(frozenset().union(*(part.names for part in found)), "; ".join([*notes][:3]))


def _member_names(view: ByteView, budget: PickleBudget, named: bool, depth: int) -> Iterator[PickleNames]:
    """Yield what a member names. Numbers may begin as a pickle does: of one that breaks off, only real names count."""
    found = pickles_in(view, budget, named=named, depth=depth - 1)
    if found is not None and not (named or found.whole):
        names = frozenset(name for name in found.names if IDENTIFIER.fullmatch(name))
        found = PickleNames(names, found.note, found.whole) if names else None
    if found is not None:
        yield found


def _in_zip(view: ByteView, budget: PickleBudget, depth: int) -> Iterator[PickleNames]:
    archive = _zip(view)
    if archive is None:
        yield PickleNames(frozenset(), "is an archive that cannot be read")
        return
    entries = archive.infolist()
    left = MAX_UNPACKED
    for entry in entries[:MAX_MEMBERS]:
        named = entry.filename.lower().endswith(_PICKLES)
        most = max(0, min(left, budget.unpacked))
        try:
            raw = _member(archive, entry, most, whole=named)
        except Exception as error:  # whatever a hostile archive makes zipfile stumble over
            where = printable(entry.filename, 60)
            yield PickleNames(frozenset(), f"its member {where} cannot be read ({printable(error, 60)})")
            continue
        left -= len(raw)
        budget.unpacked -= len(raw)
        if named or _worth(raw[:HEAD]):
            yield from _member_names(view_of(raw), budget, named, depth)
        if len(raw) > most:
            yield PickleNames(frozenset(), f"unpacks to more than {MAX_UNPACKED:,} bytes, which were not all read")
            return
    if len(entries) > MAX_MEMBERS:
        yield PickleNames(frozenset(), f"has more than {MAX_MEMBERS:,} members, which were not all read")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int, *, whole: bool) -> bytes:
    """Return at most `most` + 1 bytes of a member, only its first ones if they are not worth more.

    A wrong checksum and a mark of encryption are passed over: there are loaders that do not look at them.
    """
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile("is packed in a way that is not read")  # zipfile unpacks it without any bound
    entry.flag_bits &= ~_SEALED
    del entry.CRC
    with archive.open(entry) as member:
        head = member.read(min(HEAD, most + 1))
        return head + member.read(most + 1 - len(head)) if whole or _worth(head) else head


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


def _in_tar(view: ByteView, budget: PickleBudget, depth: int) -> Iterator[PickleNames]:
    """Yield what the pickles of a tar archive name; torch kept its oldest checkpoints so."""
    for name, part in _tar_members(view):
        if part is None:
            yield PickleNames(frozenset(), "is an archive that cannot be read to its end")
            return
        named = name.endswith(_PICKLES) or name in ("pickle", "tensors", "storages")
        yield from _member_names(part, budget, named, depth)


def _tar_members(view: ByteView) -> Iterator[tuple[str, ByteView | None]]:
    """Yield the names and contents of a tar archive; None where a content has no end."""
    at = 0
    for _ in range(MAX_MEMBERS):
        header = view.read_at(at, 512)
        if len(header) < 512 or not is_tar(header):
            return
        name = header[:100].split(b"\0")[0].decode("utf-8", "replace").lower()
        digits = header[124:136].strip(b" \0")
        if not re.fullmatch(rb"[0-7]+", digits):
            yield name, None
            return
        size = int(digits, 8)
        yield name, view.part(at + 512, size)
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


def _unpacked(view: ByteView, make: Callable[[], Any], most: int) -> tuple[bytes, bool]:
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
