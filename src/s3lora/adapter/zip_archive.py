"""A zip archive whose members lie in it as they are: where each of them lies.

Readers of zip archives differ in what they forgive, and what they make of it: torch skips a record that is marked as a
folder and hands out memory that nobody wrote to; it finds names without regard to case. So only the one form is read on
which all readers agree, and which torch and NumPy write: one volume, no comment at the end, a directory that ends
where its end record begins.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from s3lora.adapter.regular import RegularFile
from s3lora.adapter.tensors import check_name
from s3lora.errors import AdapterFileError

#: Largest directory of members read, in bytes; about 40,000 members.
MAX_DIRECTORY = 4 * 1024 * 1024
FETCH = "fetch the file again"
HOSTILE = "do not load this file"

# signature, two disk numbers, members on this disk and of all, size and offset of the directory, length of a comment
_END = struct.Struct("<4s4H2LH")
# signature, size of what follows, two versions, then as above, in longer numbers
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")  # signature, disk of the end record, its offset, number of disks
# signature, two versions, flags, method, time, date, CRC, stored and real size, lengths of name, extra field and
# comment, disk, two attributes, offset of the member's own header
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")  # signature, …, length of the name, length of the extra field
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
#: Flags without an effect on what is read: sizes stand after the data too, and the name is UTF-8.
_HARMLESS = 0x0008 | 0x0800
_FOLDER = 0x10
_LONGEST_NAME = 511  # torch cuts longer ones

#: What a member's flags may say of how hard it was compressed.
_EFFORT = 0x0006
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True, slots=True)
class ZipMember:
    """One member: where its bytes lie in the file, how many there are, and how many once they are unpacked."""

    name: str
    offset: int
    packed: int
    size: int
    crc: int
    deflated: bool


def read_members(file: RegularFile, path: Path, convert: str, *, deflated: bool = False) -> dict[str, ZipMember]:
    """Return the members by name, in the order of the directory.

    Parameters:
        convert: what to do about a member that is compressed in a way that is not read.
        deflated: whether members may be compressed as zip programs do it.

    Raises AdapterFileError unless the archive has the one form that all readers read alike.
    """
    offset, size, count = _directory(file, path)
    return _members(file.bytes(offset, size), count, file, path, convert, deflated=deflated)


def names_files(file: RegularFile, path: Path) -> bool:
    """Return whether an archive seems to hold the files of an adapter, and not the records of a checkpoint of torch."""
    offset, size, _ = _directory(file, path)
    names = file.bytes(offset, size)
    return b"data.pkl" not in names and any(name in names for name in (b"adapter_", b".safetensors", b"adapters."))


def _directory(file: RegularFile, path: Path) -> tuple[int, int, int]:
    """Return the offset and size of the directory, and the number of its entries."""

    def broken(reason: str) -> AdapterFileError:
        return AdapterFileError(f"is no readable zip archive: {reason}", file=path.name, fix=FETCH)

    at = file.size - _END.size
    raw = file.bytes(max(0, at), _END.size)
    if len(raw) != _END.size or not raw.startswith(b"PK\x05\x06"):
        raise broken("it does not end with the end of a directory")
    _, *numbers, comment = _END.unpack(raw)
    if comment:
        raise broken("its end is damaged")
    found = file.bytes(at - _LOCATOR.size, _LOCATOR.size) if at >= _LOCATOR.size + _END_64.size else b""
    if found.startswith(b"PK\x06\x07"):
        at -= _LOCATOR.size + _END_64.size
        _, disk, offset_64, disks = _LOCATOR.unpack(found)
        signature, rest, _, _, *long = _END_64.unpack(file.bytes(at, _END_64.size))
        if signature != b"PK\x06\x06" or (disk, offset_64, disks, rest) != (0, at, 1, _END_64.size - 12):
            raise broken("its 64-bit end is not where it should be")
        limits = [_FULL_16] * 4 + [_FULL_32] * 2
        if numbers != [min(number, limit) for number, limit in zip(long, limits, strict=True)]:
            raise broken("its two ends contradict each other")
        numbers = long
    this_disk, first_disk, count_here, count, size, offset = numbers
    if this_disk or first_disk or count_here != count:
        raise broken("it claims to be one volume of several")
    if offset + size != at:
        raise broken(f"its directory does not reach from byte {offset:,} to its end")
    if size > MAX_DIRECTORY:
        raise broken(f"a directory of {size:,} bytes")
    return offset, size, count


def _members(
    raw: bytes, count: int, file: RegularFile, path: Path, convert: str, *, deflated: bool
) -> dict[str, ZipMember]:
    members: dict[str, ZipMember] = {}
    folded = set()
    at = total = 0
    for _ in range(count):
        if len(raw) - at < _ENTRY.size or raw[at : at + 4] != b"PK\x01\x02":
            break
        fields = _ENTRY.unpack_from(raw, at)
        _, _, _, flags, method, _, _, crc, stored, size, name_size, extra_size, comment_size, disk, _, kind, header = (
            fields
        )
        ends = at + _ENTRY.size + name_size
        coded = raw[at + _ENTRY.size : ends]
        extra = raw[ends : ends + extra_size]
        at = ends + extra_size + comment_size
        name = _name(coded, path)
        where = _Member(name, coded, path)
        if _FULL_32 in (stored, size, header):
            size, stored, header = where.long_numbers(extra, size, stored, header)
        packed = deflated and method == _DEFLATED and not flags & ~(_HARMLESS | _EFFORT)
        if not packed and (method != _STORED or flags & ~_HARMLESS or size != stored):
            raise where.broken("is compressed or encrypted in a way that is not read", convert)
        if disk:
            raise where.broken("claims to lie in another volume", HOSTILE)
        folder = name.endswith("/") and not size  # as other programs write them; no record is called so
        if not folder and (name.endswith("/") or kind & _FOLDER):
            raise where.broken("is marked as a folder, which torch would not read", HOSTILE)
        total += stored
        # torch finds names without regard to case.
        if coded.lower() in folded or total > file.size:
            raise where.broken("repeats or overlaps another member", HOSTILE)
        folded.add(coded.lower())
        members[name] = ZipMember(name, where.offset(header, stored, file), stored, size, crc, packed)
    if at != len(raw) or not members:
        reason = f"its directory does not hold the {count:,} members that it claims"
        raise AdapterFileError(f"is no readable zip archive: {reason}", file=path.name, fix=FETCH)
    return members


def _name(coded: bytes, path: Path) -> str:
    # A byte that is no text becomes a character that no name may have.
    name = coded.decode("utf-8", "surrogateescape")
    if not coded or len(coded) > _LONGEST_NAME:
        raise AdapterFileError(f"has a member with a name of {len(coded)} bytes", file=path.name, fix=HOSTILE)
    check_name(name, path)
    return name


class _Member:
    """One entry of the directory, and what its errors say."""

    def __init__(self, name: str, coded: bytes, path: Path) -> None:
        self._name, self._coded, self._path = name, coded, path

    def broken(self, reason: str, fix: str = FETCH) -> AdapterFileError:
        return AdapterFileError(reason, file=self._path.name, module=self._name, fix=fix)

    def long_numbers(self, extra: bytes, *short: int) -> list[int]:
        """Return (size, stored size, offset), each from the 64-bit extra field where it is full."""
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<HH", extra, at)
            if kind == 1 and length == 8 * short.count(_FULL_32) and at + 4 + length <= len(extra):
                long = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
                return [next(long) if number == _FULL_32 else number for number in short]
            if kind == 1:
                break
            at += 4 + length
        raise self.broken("has a size that does not fit, and no longer one")

    def offset(self, header_at: int, size: int, file: RegularFile) -> int:
        """Return where its `size` bytes begin, after a look at the member's own header."""
        header = file.bytes(header_at, _LOCAL.size)
        if len(header) != _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise self.broken("has no header where the directory says")
        name_size, extra_size = _LOCAL.unpack(header)[-2:]
        name_at = header_at + _LOCAL.size
        if file.bytes(name_at, name_size) != self._coded:
            raise self.broken("is called otherwise in the archive's directory", HOSTILE)
        offset: int = name_at + name_size + extra_size
        if offset + size > file.size:
            raise self.broken(f"is truncated: it should end at byte {offset + size:,}")
        return offset
