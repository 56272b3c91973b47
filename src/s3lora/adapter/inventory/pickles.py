"""What a pickle names, read as data: nothing is imported, called or built.

A pickle is a program for a small stack machine, and loading it runs that program. Here the same program is followed
with values that only remember what they are: text, numbers, names. So a name is found also where it is put together
from the memo. It is followed further than Python would: what is broken is taken for a value that is not known, so that
a file cannot hide a name behind a fault. Time and memory are bounded by the number of opcodes and of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s3lora.adapter.inventory.pickle_source import (
    PickleBudget,
    PickleEndError,
    PickleSource,
    escaped,
    fixed,
    line_number,
    line_text,
    nothing,
    number,
    pair,
    quoted,
    sized,
    whole_number,
)
from s3lora.errors import printable

#: Pickles in one file, one after the other or within another, and names that are kept.
MAX_PICKLES = 1000
MAX_NESTED = 40
MAX_NAMES = 10_000
#: What ends the names that joblib's wrappers of arrays have had.
_ARRAY = ".NumpyArrayWrapper"
_DTYPE = re.compile(r"[|<>=]?([?a-zA-Z])(\d{0,6})")
IDENTIFIER = re.compile(r"[\w.<>]{1,120}")
PUT_TOGETHER = "a name that is put together while it is loaded"


@dataclass(frozen=True, slots=True)
class PickleNames:
    """What was found: `names` as `module.name`, unordered; `note` says what was not read, empty if all was.

    `whole` tells whether the first pickle was followed to its end.
    """

    names: frozenset[str]
    note: str = ""
    whole: bool = True


class _Unknown:
    """A value of which nothing is known."""


class _OpenMark:
    """Where a list of values begins on the stack."""


_UNKNOWN, _MARK = _Unknown(), _OpenMark()


@dataclass(slots=True)
class _Made:
    """What calling a global would give."""

    name: str
    arguments: Any = None


@dataclass(frozen=True, slots=True)
class _Named:
    """A global, by its name."""

    name: str


def names_in(source: PickleSource, *, arrays: bool = True) -> PickleNames:
    """Return what the pickles in `source` name, one after the other up to its end.

    Parameters:
        source: at the beginning of the first.
        arrays: skip the values of arrays that joblib writes between the opcodes; they are read as opcodes as well, for
            other readers know nothing of them.
    """
    names: set[str] = set()
    note, whole, start, met = "", False, source.at, False
    for count in range(MAX_PICKLES):
        begin = source.at
        follower = _Follower(source, arrays)
        try:
            follower.run()
        except PickleEndError as error:
            met |= follower.met_array
            if count and not (_is_proto(source, begin) and follower.names):
                note = f"{source.size - begin:,} bytes follow its last pickle"
            else:
                names |= follower.names
                note = f"{error} at byte {source.at:,}, so it was not read to its end"
            break
        names |= follower.names
        met |= follower.met_array
        whole = True
        if source.at >= source.size:
            break
    else:
        note = f"holds more than {MAX_PICKLES:,} pickles, of which the others were not read"
    if met and arrays:
        source.at = start
        # What lies in an array may look like a name without being one.
        names |= {name for name in names_in(source, arrays=False).names if IDENTIFIER.fullmatch(name)}
    return PickleNames(frozenset(names), note, whole)


def _is_proto(source: PickleSource, at: int) -> bool:
    source.at = at
    try:
        return source.take(1) == b"\x80"
    except PickleEndError:
        return False


def looks_like_pickle(head: bytes, size: int) -> bool:
    """Return whether a file of `size` bytes that begins with `head` is a pickle, whatever its name.

    >>> looks_like_pickle(b"\\x80\\x04N.", 4), looks_like_pickle(b"cos\\nsystem\\n.", 12)
    (True, True)
    """
    if len(head) > 2 and head[0] == 0x80 and head[1] <= 5:
        return head[2:3] in _OPCODES
    # The first protocols begin with no sign of their own: only one that names something and ends is taken for one.
    if head[:1] not in (b"c", b"(", b"i", b"]", b"}") or b"\n" not in head:
        return False
    found = names_in(PickleSource(lambda at, count: head[at : at + count], len(head), PickleBudget(10_000)))
    return bool(found.names) and found.whole and all(IDENTIFIER.fullmatch(name) for name in found.names)


@dataclass(slots=True)
class _Follower:
    """Follows one pickle."""

    source: PickleSource
    arrays: bool
    depth: int = 0
    names: set[str] = field(default_factory=set)
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    met_array: bool = False

    def run(self) -> None:
        """Follow the pickle to its end; raise PickleEndError where that cannot be done."""
        source, budget = self.source, self.source.budget
        while True:
            budget.opcodes -= 1
            if budget.opcodes < 0:
                raise PickleEndError("was not read further: pickles of this folder have too many opcodes")
            code = source.take(1)
            if code == b".":
                return
            known = _OPCODES.get(code)
            if known is None:
                source.at -= 1
                raise PickleEndError(f"has no opcode of a pickle ({code!r})")
            read, act = known
            act(self, read(source))

    def pop(self) -> Any:
        """Take a value from the stack."""
        return self.stack.pop() if self.stack else _UNKNOWN

    def pop_mark(self) -> list[Any]:
        """Take everything down to the last mark."""
        items: list[Any] = []
        while self.stack:
            value = self.stack.pop()
            if value is _MARK:
                break
            items.append(value)
        return items[::-1]

    def top(self) -> Any:
        """Return the value on top of the stack."""
        return self.stack[-1] if self.stack else _UNKNOWN

    def name(self, module: Any, name: Any) -> None:
        """Push a global, and remember that it is named."""
        text = f"{module}.{name}" if type(module) is str and type(name) is str else PUT_TOGETHER
        if not IDENTIFIER.fullmatch(text):
            text = printable(text, 120)
        if len(self.names) < MAX_NAMES:
            self.names.add(text)
        self.stack.append(_Named(text))

    def call(self, function: Any, arguments: Any) -> None:
        """Push what calling something gives."""
        self.stack.append(_Made(function.name, arguments) if type(function) is _Named else _UNKNOWN)

    def stack_name(self) -> None:
        """Follow STACK_GLOBAL: module and name lie on the stack."""
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def extension(self, number: int) -> None:
        """Follow EXT: a global that a table of the loading program names."""
        self.name("copyreg extension", str(number))

    def reduce(self, more: int = 0) -> None:
        """Follow REDUCE and NEWOBJ: what lies under the arguments is called; `more` lies above them."""
        for _ in range(more):
            self.pop()
        arguments, function = self.pop(), self.pop()
        self.call(function, arguments)

    def unary(self) -> None:
        """Replace the value on top of the stack by one of which nothing is known."""
        self.pop()
        self.stack.append(_UNKNOWN)

    def collect(self) -> None:
        """Replace what lies above the mark by one value of which nothing is known."""
        self.pop_mark()
        self.stack.append(_UNKNOWN)

    def instance(self, argument: tuple[str, str]) -> None:
        """Follow INST: a global, called with what lies above the mark."""
        items = tuple(self.pop_mark())
        self.name(*argument)
        self.call(self.pop(), items)

    def object(self) -> None:
        """Follow OBJ: what lies on the mark is called with what lies above it."""
        items = self.pop_mark()
        self.call(items[0] if items else _UNKNOWN, tuple(items[1:]))

    def build(self) -> None:
        """Follow BUILD: a state is set; behind that of joblib's wrapper lies an array."""
        state, made = self.pop(), self.top()
        if type(made) is _Made and made.name.endswith(_ARRAY) and type(state) is dict:
            self.met_array = True
            if self.arrays:
                self._array(state)

    def _array(self, state: dict[str, Any]) -> None:
        dtype = state.get("dtype")
        code = (
            dtype.arguments[0] if type(dtype) is _Made and type(dtype.arguments) is tuple and dtype.arguments else None
        )
        match = _DTYPE.fullmatch(code) if type(code) is str else None
        if match is not None and match[1] == "O":
            self._nested()
            return
        if type(state.get("numpy_array_alignment_bytes")) is int:
            self.source.skip(self.source.take(1)[0])
        shape = state.get("shape")
        if match is None or type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise PickleEndError("holds an array of unknown size")
        try:
            size = np.dtype(match[0]).itemsize
        except (TypeError, ValueError):
            raise PickleEndError("holds an array of unknown size") from None
        for n in shape:
            size = min(size * n, 2**63)  # the product of many large ones would take hours
        self.source.skip(size)

    def _nested(self) -> None:
        """Follow the pickle that joblib writes in the place of an array of objects."""
        if self.depth >= MAX_NESTED:
            raise PickleEndError("holds pickles within pickles")
        inner = _Follower(self.source, self.arrays, self.depth + 1, self.names)
        inner.run()

    def put(self, slot: int) -> None:
        """Put the value on top of the stack into the memo."""
        self.memo[slot] = self.top()

    def get(self, slot: int) -> None:
        """Push a value of the memo."""
        self.stack.append(self.memo.get(slot, _UNKNOWN))

    def set_items(self, items: list[Any]) -> None:
        """Set keys and values, which alternate, of the dictionary on top of the stack."""
        target = self.top()
        if type(target) is dict:
            target.update((k, v) for k, v in zip(items[::2], items[1::2], strict=False) if type(k) is str)

    def items(self) -> dict[str, Any]:
        """Return the dictionary of what lies above the mark."""
        items = self.pop_mark()
        return {k: v for k, v in zip(items[::2], items[1::2], strict=False) if type(k) is str}


def _push(follower: _Follower, value: Any) -> None:
    follower.stack.append(_UNKNOWN if value is None else value)


def _unknown(follower: _Follower, value: Any) -> None:
    follower.stack.append(_UNKNOWN)


def _drop(follower: _Follower, value: Any) -> None:
    return None


def _tuple(count: int) -> Callable[[_Follower, Any], None]:
    def act(follower: _Follower, value: Any) -> None:
        items = [follower.pop() for _ in range(count)]
        follower.stack.append(tuple(items[::-1]))

    return act


def _after_pops(count: int) -> Callable[[_Follower, Any], None]:
    def act(follower: _Follower, value: Any) -> None:
        for _ in range(count):
            follower.pop()

    return act


#: Opcode → how its argument is read, and what it does. Those that only change a container take what it gets.
_OPCODES: dict[bytes, tuple[Callable[[PickleSource], Any], Callable[[_Follower, Any], object]]] = {
    b"\x80": (fixed(1), _drop),  # PROTO
    b"\x95": (fixed(8), _drop),  # FRAME
    b"(": (nothing, lambda f, _: f.stack.append(_MARK)),
    b"0": (nothing, _after_pops(1)),
    b"1": (nothing, lambda f, _: f.pop_mark()),
    b"2": (nothing, lambda f, _: f.stack.append(f.top())),
    b"N": (nothing, _unknown),
    b"\x88": (nothing, _unknown),
    b"\x89": (nothing, _unknown),
    b"F": (line_text, _unknown),
    b"G": (fixed(8), _unknown),
    b"I": (line_number, _push),
    b"L": (line_text, _unknown),
    b"J": (number(4), _push),
    b"K": (number(1), _push),
    b"M": (number(2), _push),
    b"\x8a": (whole_number(1), _push),
    b"\x8b": (whole_number(4), _push),
    b"S": (quoted, _push),
    b"T": (sized(4), _push),
    b"U": (sized(1), _push),
    b"V": (escaped, _push),
    b"X": (sized(4), _push),
    b"\x8c": (sized(1), _push),
    b"\x8d": (sized(8), _push),
    b"B": (sized(4), _unknown),
    b"C": (sized(1), _unknown),
    b"\x8e": (sized(8), _unknown),
    b"\x96": (sized(8), _unknown),
    b"\x97": (nothing, _unknown),  # NEXT_BUFFER
    b"\x98": (nothing, _drop),  # READONLY_BUFFER
    b"P": (line_text, _unknown),  # PERSID
    b"Q": (nothing, lambda f, _: f.unary()),  # BINPERSID
    b")": (nothing, lambda f, _: f.stack.append(())),
    b"]": (nothing, _unknown),
    b"}": (nothing, lambda f, _: f.stack.append({})),
    b"\x8f": (nothing, _unknown),  # EMPTY_SET
    b"t": (nothing, lambda f, _: f.stack.append(tuple(f.pop_mark()))),
    b"\x85": (nothing, _tuple(1)),
    b"\x86": (nothing, _tuple(2)),
    b"\x87": (nothing, _tuple(3)),
    b"l": (nothing, lambda f, _: f.collect()),  # LIST
    b"\x91": (nothing, lambda f, _: f.collect()),  # FROZENSET
    b"d": (nothing, lambda f, _: f.stack.append(f.items())),
    b"a": (nothing, _after_pops(1)),
    b"e": (nothing, lambda f, _: f.pop_mark()),  # APPENDS
    b"\x90": (nothing, lambda f, _: f.pop_mark()),  # ADDITEMS
    b"s": (nothing, lambda f, _: f.set_items([f.pop(), f.pop()][::-1])),
    b"u": (nothing, lambda f, _: f.set_items(f.pop_mark())),
    b"p": (line_number, lambda f, slot: f.put(slot)),
    b"q": (number(1), lambda f, slot: f.put(slot)),
    b"r": (number(4), lambda f, slot: f.put(slot)),
    b"\x94": (nothing, lambda f, _: f.put(len(f.memo))),  # MEMOIZE
    b"g": (line_number, lambda f, slot: f.get(slot)),
    b"h": (number(1), lambda f, slot: f.get(slot)),
    b"j": (number(4), lambda f, slot: f.get(slot)),
    b"c": (pair, lambda f, names: f.name(*names)),  # GLOBAL
    b"\x93": (nothing, lambda f, _: f.stack_name()),  # STACK_GLOBAL
    b"i": (pair, lambda f, names: f.instance(names)),  # INST
    b"o": (nothing, lambda f, _: f.object()),  # OBJ
    b"\x82": (number(1), lambda f, number: f.extension(number)),
    b"\x83": (number(2), lambda f, number: f.extension(number)),
    b"\x84": (number(4), lambda f, number: f.extension(number)),
    b"R": (nothing, lambda f, _: f.reduce()),
    b"\x81": (nothing, lambda f, _: f.reduce()),  # NEWOBJ
    b"\x92": (nothing, lambda f, _: f.reduce(1)),  # NEWOBJ_EX
    b"b": (nothing, lambda f, _: f.build()),
}
