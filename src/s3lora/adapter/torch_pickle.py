"""A pickle read as data: the few opcodes that torch.save writes for a dictionary of tensors, and nothing else.

Python's own unpickler calls what the file names. This one has no calls to make: it keeps a stack of plain values and
of the four records below, and knows by name the handful of functions that rebuild a tensor. Every other name and
every other opcode is refused. Time and memory are bounded: no opcode does more than constant work a byte, dictionary
keys are strings (so nothing is hashed that a file could make costly), and nothing here follows references down.

What is accepted is a part of what `torch.load(weights_only=True)` accepts, and means the same there: a call has the
arguments that torch writes, in number and type, and a tensor has no mark that changes its values.
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from s3lora.errors import printable

MAX_OPCODES = 2_000_000
MAX_DIMENSIONS = 8
#: More arguments than any call has: a longer tuple is not looked at.
_MAX_ARGUMENTS = 9

#: Storage classes of torch → safetensors dtype. Untyped storages count bytes and leave the dtype to the tensor.
STORAGES: dict[str, str] = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "ComplexFloatStorage": "C64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
UNTYPED = "torch.storage.UntypedStorage"
#: torch.dtype objects that `_rebuild_tensor_v3` is given.
DTYPES: dict[str, str] = {
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
    "torch.uint16": "U16",
    "torch.uint32": "U32",
    "torch.uint64": "U64",
}
REBUILD_V2 = "torch._utils._rebuild_tensor_v2"
REBUILD_V3 = "torch._utils._rebuild_tensor_v3"
PARAMETER = "torch._utils._rebuild_parameter"
ORDERED_DICT = "collections.OrderedDict"
SIZE = "torch.Size"
#: First letters of the dtypes that can have a gradient.
_WITH_GRADIENT = ("F", "BF", "C")
#: torch numbers storages.
_KEY = re.compile(r"[0-9]{1,20}")
#: Where a storage was when it was saved. On `meta` it has no values.
_DEVICE = re.compile(r"cpu|(cuda|mps|xpu|npu|hpu|mlu|musa|xla|privateuseone)(:[0-9]{1,4})?")
_FUNCTIONS = frozenset({REBUILD_V2, REBUILD_V3, PARAMETER, ORDERED_DICT, SIZE})
KNOWN = _FUNCTIONS | DTYPES.keys() | {f"torch.{name}" for name in STORAGES} | {UNTYPED}


class PickleError(Exception):
    """The pickle is malformed, or asks for something that is not data; the message ends a sentence.

    Parameters:
        fix: what to do about it.
    """

    def __init__(self, problem: str, fix: str = "do not load this file with torch.load") -> None:
        """Take the sentence and the remedy."""
        super().__init__(problem)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A global that the file names; one of KNOWN."""

    text: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A reference to a member of the archive: its key, its dtype (None: untyped) and its number of elements."""

    key: str
    code: str | None
    count: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor as the file describes it; nothing about it has been checked but the types."""

    storage: Storage
    code: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """What a pickle describes: its value, of plain values and TensorRecords, and all that was made on the way.

    torch reads each storage and builds each tensor, also those that the value does not hold.
    """

    value: Any
    storages: dict[str, Storage]
    tensors: list[TensorRecord]


class _Mark:
    """Where a tuple, list or dictionary begins on the stack."""


_MARK = _Mark()


def read_pickle(raw: bytes) -> Description:
    """Return what the pickle describes.

    Raises PickleError for anything that is not the data of a torch checkpoint.
    """
    machine = _Machine(raw)
    return Description(machine.run(), machine.storages, machine.tensors)


class _Machine:
    """A stack machine over one pickle. `_OPCODES` below is everything it can do."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.tensors: list[TensorRecord] = []

    def run(self) -> Any:
        """Execute opcodes until STOP and return the one value left."""
        for _ in range(MAX_OPCODES):
            code = self.take(1)
            if code == b".":
                if len(self._stack) != 1 or self._stack[0] is _MARK:
                    raise PickleError("ends with an unfinished value")
                return self._stack[0]
            action = _OPCODES.get(code)
            if action is None:
                raise PickleError(f"has the pickle opcode {code!r}, which a dictionary of tensors does not need")
            action(self)
        raise PickleError(f"has more than {MAX_OPCODES:,} pickle opcodes")

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        piece = self._raw[self._at : self._at + count]
        if len(piece) != count:
            raise PickleError("ends in the middle of its pickle")
        self._at += count
        return piece

    def number(self, layout: str) -> int:
        """Return the next bytes as an integer of struct's `layout`."""
        return int(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])

    def line(self) -> str:
        """Return the text up to the next newline."""
        end = self._raw.find(b"\n", self._at)
        if not 0 <= end - self._at <= 256:
            raise PickleError("has a name without an end")
        text = self.take(end - self._at).decode("ascii", "replace")
        self.take(1)
        return text

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take a value from the stack."""
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError("takes a value that its pickle never made")
        return self._stack.pop()

    def top(self) -> Any:
        """Return the value on top of the stack."""
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError("uses a value that its pickle never made")
        return self._stack[-1]

    def pop_mark(self) -> list[Any]:
        """Take everything down to the last mark."""
        items: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return items[::-1]
            items.append(value)
        raise PickleError("closes a list that its pickle never opened")

    def remember(self, slot: int) -> None:
        """Put the value on top of the stack into the memo."""
        self._memo[slot] = self.top()

    def recall(self, slot: int) -> None:
        """Push a value of the memo."""
        if slot not in self._memo:
            raise PickleError("recalls a value that its pickle never kept")
        self.push(self._memo[slot])

    def protocol(self) -> None:
        """Read the protocol; torch writes 2, and reads 3 as well."""
        version = self.take(1)[0]
        if version not in (2, 3):
            again = "save it again with torch.save, without pickle_protocol"
            raise PickleError(f"is pickled by protocol {version}, which torch.load refuses", again)

    def text(self, layout: str) -> None:
        """Push a string that follows its length."""
        try:
            self.push(self.take(self.number(layout)).decode())
        except UnicodeDecodeError:
            raise PickleError("has text that is not UTF-8") from None

    def append(self, items: list[Any]) -> None:
        """Extend the list on top of the stack."""
        target = self.top()
        if type(target) is not list:
            raise PickleError("appends to something that is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Set keys and values, which alternate, in the dictionary on top of the stack."""
        target = self.top()
        if type(target) not in (dict, OrderedDict) or len(items) % 2:
            raise PickleError("sets items of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise PickleError("has a dictionary whose keys are not all text")
            target[key] = value

    def set_item(self) -> None:
        """Set one key of the dictionary under the key and the value."""
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def append_one(self) -> None:
        """Append the value on top of the stack to the list under it."""
        self.append([self.pop()])

    def named(self, text: str) -> None:
        """Push a global, if it is one that describes tensors."""
        if text not in KNOWN:
            raise PickleError(f"names {printable(text, 80)}: loading it with pickle would run code")
        self.push(GlobalName(text))

    def tuple_of(self, count: int) -> None:
        """Push a tuple of the top `count` values."""
        items = [self.pop() for _ in range(count)]
        self.push(tuple(items[::-1]))

    def persistent(self) -> None:
        """Push the storage that a persistent id describes: ('storage', class, key, device, elements)."""
        match self.pop():
            case ("storage", GlobalName(name), str(key), str(device), count) if (
                type(count) is int and count >= 0 and name not in _FUNCTIONS
            ):
                code = STORAGES.get(name.removeprefix("torch."))
                known = code is not None or name == UNTYPED
                if known and _KEY.fullmatch(key) and _DEVICE.fullmatch(device):
                    self.push(self._storage(Storage(key, code, count)))
                    return
        raise PickleError("refers to a storage in a form torch does not write")

    def _storage(self, storage: Storage) -> Storage:
        # torch reads a storage once and keeps the dtype of the first who asked for it.
        first = self.storages.setdefault(storage.key, storage)
        if first != storage:
            raise PickleError(f"describes storage {storage.key} in two ways")
        return first

    def reduce(self) -> None:
        """Call a known function by name: the only calls there are."""
        arguments, function = self.pop(), self.pop()
        if type(function) is not GlobalName or type(arguments) is not tuple:
            raise PickleError("calls something that is no function")
        self.push(self._called(function.text, arguments))

    def build(self) -> None:
        """Drop the state of an OrderedDict: torch keeps `_metadata` there, which says nothing about tensors."""
        state = self.pop()
        if type(self.top()) is not OrderedDict:
            raise PickleError("sets the state of something that is no OrderedDict")
        # Any other attribute could stand in the way of a method, such as `items`.
        if type(state) not in (dict, OrderedDict) or state.keys() - {"_metadata"}:
            raise PickleError("sets a state that torch does not write")

    def _called(self, function: str, arguments: tuple[Any, ...]) -> Any:
        # A long tuple can be recalled and passed again and again: looking at all of it each time would be quadratic.
        match function, arguments[:_MAX_ARGUMENTS]:
            case ("collections.OrderedDict", () | ([],)):
                return OrderedDict()
            case ("torch.Size", (tuple(sizes),)) if len(sizes) <= MAX_DIMENSIONS and all(map(_is_size, sizes)):
                return sizes
            case ("torch._utils._rebuild_parameter", (TensorRecord() as tensor, bool(grad), OrderedDict())):
                return _differentiable(tensor, grad)
            case (
                "torch._utils._rebuild_tensor_v2",
                (Storage(_, str(code)) as storage, offset, shape, strides, bool(grad), OrderedDict(), *metadata),
            ) if _is_plain(metadata):
                return self._tensor(_record(storage, code, offset, shape, strides), grad)
            case (
                "torch._utils._rebuild_tensor_v3",
                (Storage() as storage, offset, shape, strides, False, OrderedDict(), GlobalName(dtype), *metadata),
            ) if _is_plain(metadata) and dtype in DTYPES:  # with a gradient, torch fails to make it
                return self._tensor(_record(storage, DTYPES[dtype], offset, shape, strides), grad=False)
        raise PickleError(f"calls {printable(function, 80)} in a form torch does not write for a plain tensor")

    def _tensor(self, record: TensorRecord, grad: bool) -> TensorRecord:
        self.tensors.append(record)
        return _differentiable(record, grad)


def _is_plain(metadata: list[Any]) -> bool:
    """Return whether a tensor's last, optional argument is empty: else it may say that the values are negated."""
    return not metadata or (len(metadata) == 1 and (metadata[0] is None or metadata[0] == {}))


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _differentiable(tensor: TensorRecord, grad: bool) -> TensorRecord:
    if grad and not tensor.code.startswith(_WITH_GRADIENT):
        raise PickleError(f"wants a gradient of a tensor of {tensor.code}, which torch refuses")
    return tensor


def _record(storage: Storage, code: str, offset: Any, shape: Any, strides: Any) -> TensorRecord:
    if type(shape) is not tuple or type(strides) is not tuple or not len(shape) == len(strides) <= MAX_DIMENSIONS:
        raise PickleError("describes a tensor of no possible shape")
    if not all(map(_is_size, (offset, *shape, *strides))):
        raise PickleError("describes a tensor whose shape, strides or offset are no sizes")
    return TensorRecord(storage, code, offset, shape, strides)


def _long(machine: _Machine) -> None:
    machine.push(int.from_bytes(machine.take(machine.number("<B")), "little", signed=True))


_OPCODES: dict[bytes, Callable[[_Machine], object]] = {
    b"\x80": _Machine.protocol,
    b"(": lambda m: m.push(_MARK),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number("<B")),  # BININT1
    b"M": lambda m: m.push(m.number("<H")),  # BININT2
    b"J": lambda m: m.push(m.number("<i")),  # BININT
    b"\x8a": _long,  # LONG1
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),  # BINFLOAT
    b"X": lambda m: m.text("<I"),  # BINUNICODE
    b"U": lambda m: m.text("<B"),  # SHORT_BINSTRING, which torch.load reads as UTF-8
    b")": lambda m: m.push(()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"a": _Machine.append_one,
    b"e": lambda m: m.append(m.pop_mark()),
    b"s": _Machine.set_item,
    b"u": lambda m: m.set_items(m.pop_mark()),
    b"q": lambda m: m.remember(m.number("<B")),  # BINPUT
    b"r": lambda m: m.remember(m.number("<I")),  # LONG_BINPUT
    b"h": lambda m: m.recall(m.number("<B")),  # BINGET
    b"j": lambda m: m.recall(m.number("<I")),  # LONG_BINGET
    b"c": lambda m: m.named(f"{m.line()}.{m.line()}"),  # GLOBAL
    b"Q": _Machine.persistent,  # BINPERSID
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}
