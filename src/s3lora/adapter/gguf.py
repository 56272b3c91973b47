"""Reading GGUF files: a bounded header of keys and tensors, and the tensors as ranges of the file.

Format: github.com/ggml-org/ggml, `docs/gguf.md`. Every count and length is checked against what the file has left
before anything is done with it. Dimensions stand in the file with the fastest first, and are turned round here, so
that a shape is that of the array.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from s3lora.adapter.decoded import MAX_DECODED, DecodedTensor
from s3lora.adapter.regular import CHUNK, Bytes, RegularFile
from s3lora.adapter.tensor import Array
from s3lora.adapter.tensors import (
    MAX_DIMENSIONS,
    MAX_HEADER,
    StoredTensor,
    WeightsFile,
    check_name,
    possible_shape,
    refuse_pointer,
)
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable
from s3lora.needs import need

MAGIC = b"GGUF"
VERSIONS = (2, 3)
#: Keys and tensors that are read, and elements of arrays among the keys, which tokenizers have many of.
MAX_KEYS, MAX_TENSORS, MAX_ELEMENTS = 65_536, 200_000, 2_000_000
ALIGNMENT = "general.alignment"
_ALIGNMENTS = frozenset(str(1 << power) for power in range(17))
_FETCH = "fetch the file again"
#: Type of a value → its format; strings and arrays are read otherwise.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
#: Types of numbers that are arrays of a dtype → its safetensors name.
PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
#: Types of quantised numbers → name, numbers in a block, bytes of a block.
QUANTISED = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
_Q8_0 = 8


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor as the header has it: its shape as an array, its type, and its bytes in the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The header of a file: its keys, of arrays only how many elements they have, and its tensors.

    `keys_end` is where the keys end, which begin at byte 24; `data` is where the tensors begin.
    """

    version: int
    keys: dict[str, str]
    tensors: tuple[TensorEntry, ...]
    keys_end: int
    data: int
    alignment: int


def read_gguf(path: Path) -> WeightsFile:
    """Open a GGUF file: its keys are the metadata, as text.

    Raises AdapterFileError if the file is truncated, damaged or hostile, UnsupportedAdapterError for a version or a
    type of numbers that is not read.
    """
    with RegularFile.opened(path) as file:
        refuse_pointer(file.bytes(0, 200), path)
        header = read_header(file)
        tensors = {entry.name: _tensor(entry, file) for entry in header.tensors}
        return WeightsFile(path.name, file, tensors, header.keys, form="gguf")


def read_header(file: RegularFile) -> GgufHeader:
    """Return the header of an open GGUF file, checked in full."""
    cursor = _Cursor(file)
    if cursor.take(4) != MAGIC:
        raise cursor.broken("is no GGUF file")
    version = cursor.number("<I")
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        what = "is a big-endian GGUF file" if swapped else f"is GGUF of version {version}; {known} are read"
        raise UnsupportedAdapterError(what, file=file.path.name, fix="convert it with a newer llama.cpp")
    tensor_count, key_count = cursor.number("<Q"), cursor.number("<Q")
    # A key takes 13 bytes at least (an empty name, a type, a value of one byte), a tensor 24.
    left = file.size - cursor.at
    for what, count, most, size in (("keys", key_count, MAX_KEYS, 13), ("tensors", tensor_count, MAX_TENSORS, 24)):
        if count > most or count * size > left:
            raise cursor.broken(f"claims {count:,} {what} in {file.size:,} bytes")
    keys: dict[str, str] = {}
    for _ in range(key_count):
        name = cursor.text("a key")
        if name in keys:
            raise cursor.broken(f"has the key {printable(name, 60)} twice")
        keys[name] = cursor.value(cursor.number("<I"))
    keys_end = cursor.at
    given = keys.get(ALIGNMENT, "32")
    alignment = int(given) if given in _ALIGNMENTS else 0
    if not alignment:
        raise cursor.broken(f"has an alignment of {printable(given, 20)}, which is no power of 2")
    entries = [_entry(cursor) for _ in range(tensor_count)]
    data = -(-cursor.at // alignment) * alignment
    return GgufHeader(version, keys, _placed(entries, data, alignment, cursor), keys_end, data, alignment)


def _entry(cursor: _Cursor) -> TensorEntry:
    name = cursor.text("a tensor")
    check_name(name, cursor.file.path)
    dimensions = cursor.number("<I")
    if dimensions > MAX_DIMENSIONS:
        raise cursor.broken(f"has {dimensions:,} dimensions", module=name)
    shape = tuple(cursor.number("<Q") for _ in range(dimensions))[::-1]
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    if not possible_shape(shape):
        raise cursor.broken("has an impossible shape", module=name)
    return TensorEntry(name, shape, kind, offset, bytes_of_kind(kind, shape, name, cursor.file.path.name))


def bytes_of_kind(kind: int, shape: tuple[int, ...], name: str, label: str) -> int:
    """Return how many bytes an array takes as numbers of a type.

    Raises UnsupportedAdapterError for a type that is not known, AdapterFileError for rows that are no whole blocks.
    """
    if kind in PLAIN:
        return math.prod(shape) * np.dtype(_NUMPY[PLAIN[kind]]).itemsize
    if kind not in QUANTISED:
        raise UnsupportedAdapterError(
            f"holds numbers of type {kind}, which s3lora does not know", file=label, module=name
        )
    _, block, size = QUANTISED[kind]
    if not shape or shape[-1] % block:
        raise AdapterFileError(
            f"has rows that are no whole blocks of {block} numbers", file=label, module=name, shape=shape, fix=_FETCH
        )
    return math.prod(shape) // block * size


def _placed(entries: list[TensorEntry], data: int, alignment: int, cursor: _Cursor) -> tuple[TensorEntry, ...]:
    """Return the tensors with offsets in the file; they must follow each other as llama.cpp wants them to."""
    at = 0
    placed = []
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise cursor.broken("is in its header twice", module=entry.name)
        seen.add(entry.name)
        if entry.offset != at:
            raise cursor.broken(f"should begin at byte {at:,} of the data, and claims {entry.offset:,}", entry.name)
        if data + at + entry.nbytes > cursor.file.size:
            raise cursor.broken(f"is truncated: it should end at byte {data + at + entry.nbytes:,}", entry.name)
        placed.append(TensorEntry(entry.name, entry.shape, entry.kind, data + at, entry.nbytes))
        at += -(-entry.nbytes // alignment) * alignment
    return tuple(placed)


#: safetensors name → NumPy dtype of the same width; bfloat16 is two bytes here.
_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


def _tensor(entry: TensorEntry, file: RegularFile) -> StoredTensor:
    if entry.kind in PLAIN:
        return StoredTensor(entry.name, PLAIN[entry.kind], entry.shape, file, entry.offset, entry.nbytes)
    size = 4 * math.prod(entry.shape)
    decode: Callable[[Bytes], Array]
    if size > MAX_DECODED:
        decode = partial(_too_long, entry=entry, label=file.path.name)
    else:
        decode = partial(_dequantised, entry=entry)
    return DecodedTensor(entry.name, "F32", entry.shape, file, entry.offset, size, entry.nbytes, decode)


def _too_long(raw: Bytes, *, entry: TensorEntry, label: str) -> Array:
    what = f"is quantised ({QUANTISED[entry.kind][0]}) and too long to be read whole"
    raise UnsupportedAdapterError(
        what, file=label, module=entry.name, shape=entry.shape, fix="give the adapter as F16 or F32"
    )


def _dequantised(raw: Bytes, *, entry: TensorEntry) -> Array:
    """Return the numbers of quantised rows as float32."""
    name, block, size = QUANTISED[entry.kind]
    if not raw.size:
        return np.zeros(entry.shape, np.float32)
    blocks = raw.reshape(-1, size)
    if entry.kind == _Q8_0:  # a scale in float16, and 32 numbers of 8 bits
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
        numbers = blocks[:, 2:].view(np.int8).astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # a scale of NaN, which whoever looks at the numbers finds
            values: Array = scales * numbers
        return values.reshape(entry.shape)
    gguf = need("gguf", "gguf")
    width = entry.shape[-1] // block * size
    with np.errstate(all="ignore"):
        made: Array = gguf.quants.dequantize(raw.reshape(-1, width), gguf.GGMLQuantizationType[name])
    return np.asarray(made, np.float32).reshape(entry.shape)


class _Cursor:
    """Reads numbers and texts one after the other, a piece of the file at a time and no more than `MAX_HEADER`."""

    def __init__(self, file: RegularFile) -> None:
        self.file = file
        self.at = 0
        self._elements = 0
        self._piece, self._start = b"", 0

    def broken(self, reason: str, module: str | None = None) -> AdapterFileError:
        return AdapterFileError(reason, file=self.file.path.name, module=module, fix=_FETCH)

    def take(self, count: int) -> bytes:
        """Return the next bytes; raise AdapterFileError where the header would be longer than the file, or too long."""
        end = self.at + count
        if end > self.file.size:
            raise self.broken("is truncated within its header")
        if end > MAX_HEADER:
            raise AdapterFileError(
                f"has a header of more than the {MAX_HEADER:,} bytes that s3lora reads", file=self.file.path.name
            )
        first = self.at - self._start
        if first + count > len(self._piece):
            self._piece, self._start = self.file.bytes(self.at, max(count, CHUNK)), self.at
            first = 0
        self.at = end
        return self._piece[first : first + count]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, what: str) -> str:
        raw = self._string()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.broken(f"has {what} whose name is no text") from None

    def _string(self) -> bytes:
        length = self.number("<Q")
        if length > self.file.size - self.at:
            raise self.broken(f"claims a text of {length:,} bytes within its header")
        return self.take(length)

    def value(self, kind: int) -> str:
        """Return a value as text; of an array, how many elements it has."""
        if kind == _STRING:
            return self._string().decode("utf-8", "replace")
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise self.broken(f"has a key of type {kind}, which GGUF does not define")
        number = self.number(_SCALARS[kind])
        return str(bool(number)).lower() if kind == _BOOL else repr(number)

    def _array(self) -> str:
        kind, count = self.number("<I"), self.number("<Q")
        self._elements += count
        if self._elements > MAX_ELEMENTS:
            raise self.broken(f"claims an array of {count:,} elements within its header")
        if kind in _SCALARS:
            self.take(count * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            for _ in range(count):
                self._string()
        else:
            raise self.broken(f"has an array of elements of type {kind}, which llama.cpp does not read")
        return f"[{count}]"
