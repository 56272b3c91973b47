"""The bytes of a pickle, read forwards and within bounds, and the forms that the arguments of its opcodes have."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

#: Opcodes followed, bytes fetched and bytes unpacked in one folder, together.
MAX_OPCODES = 1_000_000
MAX_BYTES = 256 * 1024 * 1024
MAX_UNPACKED = 256 * 1024 * 1024
#: Longest text that is kept and longest line, in bytes; names are shorter.
MAX_TEXT = 4096
MAX_LINE = 64 * 1024
_PIECE = 8192
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|([\\'\"abfnrtv]))")
_LETTERS = {ord(letter): value for letter, value in zip(r"\'" + '"abfnrtv', "\\'\"\a\b\f\n\r\t\v", strict=True)}


@dataclass(slots=True)
class PickleBudget:
    """How much more may be read of pickles; shared by all files of a folder."""

    opcodes: int = MAX_OPCODES
    bytes: int = MAX_BYTES
    unpacked: int = MAX_UNPACKED


class PickleEndError(Exception):
    """The pickle cannot be followed any further; the message ends a sentence."""


class PickleSource:
    """Bytes that are read forwards, from memory or a file: `read_at(offset, count)`."""

    def __init__(self, read_at: Callable[[int, int], bytes], size: int, budget: PickleBudget) -> None:
        """Start at the first byte."""
        self._read_at, self.size, self.budget = read_at, size, budget
        self.at = 0
        self._piece, self._start = b"", 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes; raise PickleEndError where there are fewer."""
        first = self.at - self._start
        if first < 0 or first + count > len(self._piece):
            self._fetch(max(count, _PIECE))
            first = 0
        found = self._piece[first : first + count]
        if len(found) < count:
            raise PickleEndError("ends in the middle")
        self.at += count
        return found

    def line(self) -> bytes:
        """Return the bytes up to the next newline, without it."""
        for length in (_PIECE, MAX_LINE):
            first = self.at - self._start
            if first >= 0 and (end := self._piece.find(b"\n", first)) >= 0:
                self.at = self._start + end + 1
                return self._piece[first:end]
            self._fetch(length)
        end = self._piece.find(b"\n")
        if end < 0:
            raise PickleEndError("has a line without an end")
        self.at += end + 1
        return self._piece[:end]

    def skip(self, count: int) -> None:
        """Go on behind the next `count` bytes, which are not read."""
        if self.at + count > self.size:
            raise PickleEndError("ends in the middle")
        self.at += count

    def _fetch(self, count: int) -> None:
        count = max(0, min(count, self.size - self.at))
        if count > self.budget.bytes:
            raise PickleEndError("was not read further: pickles of this folder are too long")
        self.budget.bytes -= count
        self._piece, self._start = self._read_at(self.at, count), self.at


def text(raw: bytes) -> str:
    """Return bytes as text, whatever they are."""
    return raw.decode("utf-8", "surrogateescape")


def sized(width: int) -> Callable[[PickleSource], str | None]:
    """Return what reads text that follows its length of `width` bytes; None stands for long text, which is skipped."""

    def read(source: PickleSource) -> str | None:
        length = int.from_bytes(source.take(width), "little")
        if length > MAX_TEXT:
            source.skip(length)
            return None
        return text(source.take(length))

    return read


def number(width: int) -> Callable[[PickleSource], int]:
    """Return what reads an integer of `width` bytes."""
    return lambda source: int.from_bytes(source.take(width), "little")


def whole_number(width: int) -> Callable[[PickleSource], int | None]:
    """Return what reads an integer that follows its length of `width` bytes; None stands for one of too many bytes."""

    def read(source: PickleSource) -> int | None:
        length = int.from_bytes(source.take(width), "little")
        if length > 16:
            source.skip(length)
            return None
        return int.from_bytes(source.take(length), "little", signed=True)

    return read


def fixed(width: int) -> Callable[[PickleSource], bytes]:
    """Return what reads `width` bytes."""
    return lambda source: source.take(width)


def nothing(source: PickleSource) -> None:
    """Read no argument."""


def line_text(source: PickleSource) -> str:
    """Read a line."""
    return text(source.line())


def line_number(source: PickleSource) -> int:
    """Read a line that is a number, -1 if it is none or a long one."""
    digits = source.line()
    return int(digits) if len(digits) < 19 and digits.isdigit() else -1


def pair(source: PickleSource) -> tuple[str, str]:
    """Read two lines."""
    return text(source.line()), text(source.line())


def escaped(source: PickleSource) -> str:
    """Read UNICODE: a line with the escapes of Python's text."""
    return source.line().decode("raw-unicode-escape", "replace")


def quoted(source: PickleSource) -> str:
    """Read STRING: a line in quotes, with the escapes of Python's bytes."""
    return text(_ESCAPE.sub(_escape, source.line().strip()[1:-1]))


def _escape(match: re.Match[bytes]) -> bytes:
    octal, digits, letter = match.groups()
    if letter:
        return _LETTERS[letter[0]].encode()
    # Python keeps the last eight bits of what three octal digits say.
    return bytes([int(octal, 8) & 0xFF if octal else int(digits, 16)])
