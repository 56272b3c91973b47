"""Lazy, bounded, strict reading of safetensors files.

A file is never loaded whole: a tensor is a range of it until it is used, so that memory does not grow with the file.
The header is checked in full before any tensor is believed (format: github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import msgspec
import numpy as np

from s3lora.adapter.regular import CHUNK, RegularFile
from s3lora.adapter.tensor import Array, Layout, as_stored
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

#: Largest header read, in bytes; about 200,000 tensors. Real adapters stay under 6 MB.
MAX_HEADER = 32 * 1024 * 1024
MAX_NAME = 512
MAX_DIMENSIONS = 8
#: Bytes of a tensor that is read whole; a longer matrix is read piece by piece where that is possible.
LONG = 48 * 1024 * 1024

#: safetensors dtype → (bits an element, NumPy or ml_dtypes name; None where no array type exists).
DTYPES: dict[str, tuple[int, str | None]] = {
    "F64": (64, "float64"),
    "F32": (32, "float32"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"),
    "F8_E8M0": (8, "float8_e8m0fnu"),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "F4": (4, None),
    "C64": (64, "complex64"),
    "I64": (64, "int64"),
    "U64": (64, "uint64"),
    "I32": (32, "int32"),
    "U32": (32, "uint32"),
    "I16": (16, "int16"),
    "U16": (16, "uint16"),
    "I8": (8, "int8"),
    "U8": (8, "uint8"),
    "BOOL": (8, "bool"),
}
SAFETENSORS_NAME = {name: code for code, (_, name) in DTYPES.items() if name}
FLOATING = frozenset(name for name in SAFETENSORS_NAME if name.startswith(("float", "bfloat")))

#: Beyond this offset lies no file; without a bound, a header of digits makes numbers too long to print.
_MAX_OFFSET = 2**63
#: The number -0, or a part of a name.
_MAYBE_MINUS_0 = re.compile(rb"[\[,:\s]-0")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype called `name`, from ml_dtypes where NumPy has none."""
    return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor inside a file: contiguous, little-endian, row-major.

    `dtype` is the NumPy or ml_dtypes name; `code` is the safetensors name.
    """

    name: str
    code: str
    shape: tuple[int, ...]
    file: RegularFile
    offset: int
    nbytes: int

    @property
    def dtype(self) -> str:
        """Return the NumPy name of the dtype, or the safetensors name where NumPy has none."""
        return DTYPES[self.code][1] or self.code

    @property
    def key(self) -> tuple[int, int]:
        """Return where the values lie in the file: offset and number of bytes."""
        return self.offset, self.nbytes

    def array(self) -> Array:
        """Return the values, read now or at hand, as a read-only array."""
        dtype = self._numpy()
        if not self.nbytes:
            return np.zeros(self.shape, dtype)
        return np.frombuffer(self.file.range(*self.key), dtype).reshape(self.shape)

    def matrix(self, view: Layout = as_stored) -> Array | LongMatrix:
        """Return the matrix that `view` makes of the values or, of a long tensor, what reads its rows when needed.

        A part that lies in one piece, such as the factor of one expert, is read without the rest.
        """
        dtype = self._numpy()
        if self.nbytes <= LONG:
            return view(self.array())
        # Where the view lies in the file: of an array in the place of this one, which is not looked into.
        strides = [dtype.itemsize * math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))]
        whole = np.lib.stride_tricks.as_strided(np.zeros(1, dtype), self.shape, strides)
        part = view(whole)
        upright = part.flags.c_contiguous
        if part.ndim != 2 or not (upright or part.flags.f_contiguous):
            return view(self.array())
        start = part.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        lies = part.shape if upright else part.T.shape
        found = LongMatrix(self.file, dtype, self.offset + start, lies[0], lies[1], transposed=not upright)
        return found if part.nbytes > LONG else np.asarray(found)

    def _numpy(self) -> np.dtype[Any]:
        name = DTYPES[self.code][1]
        if name is None:
            raise UnsupportedAdapterError(
                f"dtype {self.code} has no array type", file=self.file.path.name, module=self.name
            )
        return numpy_dtype(name)

    def chunks(self) -> Iterator[memoryview]:
        """Yield the stored bytes in bounded pieces."""
        return self.file.chunks(self.offset, self.nbytes)


@dataclass(frozen=True, slots=True)
class LongMatrix:
    """A stored matrix (rows × columns), or its transpose, too long to be held: a slice of its rows is read when asked.

    It lies row by row from `offset` in the file.
    """

    file: RegularFile
    dtype: np.dtype[Any]
    offset: int
    rows: int
    columns: int
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns), of the transpose if it is one."""
        return (self.columns, self.rows) if self.transposed else (self.rows, self.columns)

    @property
    def T(self) -> LongMatrix:
        """Return the transpose."""
        return replace(self, transposed=not self.transposed)

    def __getitem__(self, rows: Any) -> Array:
        """Return some rows; of anything but a slice without a step, all has to be read."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            picked: Array = np.asarray(self)[rows]
            return picked
        start, stop, _ = rows.indices(self.shape[0])
        stop = max(start, stop)
        return self._columns(start, stop).T if self.transposed else self._rows(start, stop)

    def _rows(self, start: int, stop: int) -> Array:
        return self._read(start * self.columns, (stop - start) * self.columns).reshape(stop - start, self.columns)

    def _columns(self, first: int, last: int) -> Array:
        made = np.empty((self.rows, last - first), self.dtype)
        # Of short rows, reading what lies between costs less than a call for each.
        step = max(1, CHUNK // max(1, self.columns * self.dtype.itemsize))
        for i in range(0, self.rows, step):
            if step > 1:
                made[i : i + step] = self._rows(i, min(i + step, self.rows))[:, first:last]
            else:
                made[i] = self._read(i * self.columns + first, last - first)
        return made

    def _read(self, start: int, count: int) -> Array:
        """Return `count` numbers from the one of this place."""
        size = self.dtype.itemsize
        return np.frombuffer(self.file.fresh(self.offset + start * size, count * size), self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the whole matrix in memory."""
        whole = self._rows(0, self.rows)
        return np.asarray(whole.T if self.transposed else whole, dtype)

    def astype(self, dtype: Any) -> Array:
        """Return the whole matrix in memory, converted."""
        return np.asarray(self).astype(dtype)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One opened weights file: its tensors in file order, its `__metadata__`, and what a user must be told of it.

    `nested` tells that the tensors lie in a dictionary inside the one that loaders take; `form` is what kind of file it
    is, whatever its name.
    """

    name: str
    file: RegularFile
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    nested: bool = False
    form: Literal["safetensors", "torch", "npz", "gguf"] = "safetensors"

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class _HeaderEntry(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_safetensors(path: Path) -> WeightsFile:
    """Open a safetensors file and check its whole header.

    Raises AdapterFileError if the file is a Git LFS pointer, truncated, larger than its header says, or if its
    header is malformed, oversized, names a tensor twice or lets tensors overlap.
    """
    with RegularFile.opened(path) as file:
        return _read(file, path)


#: How files begin that are often given in the place of weights; no header of safetensors is so long.
_OTHERS = (
    (b"{", "JSON text", "give the folder that it lies in"),
    (b"PK\x03\x04", "an archive", "unpack it, and give the folder that comes out"),
)


def _read(file: RegularFile, path: Path) -> WeightsFile:
    def broken(reason: str, **where: Any) -> AdapterFileError:
        return AdapterFileError(reason, file=path.name, **where)

    refuse_pointer(file.bytes(0, 200), path)
    if file.size < 8:
        raise broken(f"is no safetensors file: {file.size} bytes cannot hold a header", fix="fetch the file again")
    length = int.from_bytes(file.bytes(0, 8), "little")
    if length > MAX_HEADER:
        for beginning, what, fix in _OTHERS:
            if file.bytes(0, 8).lstrip().startswith(beginning):
                raise broken(f"is {what}, and no weights", fix=fix)
        if path.suffix.lower() in (".md", ".txt", ".json", ".yaml", ".yml", ".toml", ".py", ".jinja"):
            raise broken("is text, and no weights", fix="give the folder that it lies in")
        raise broken(
            f"claims a header of {length:,} bytes, more than the {MAX_HEADER:,} that s3lora reads",
            fix="it is no safetensors file, or a hostile one",
        )
    if length > file.size - 8:
        raise broken(
            f"is truncated: its header should have {length:,} bytes, the file has {file.size - 8:,} after the length",
            fix="fetch the file again",
        )
    entries, metadata = _header(file.bytes(8, length), broken)
    tensors = {}
    start = 8 + length
    end = 0
    whole = start + max((entry.data_offsets[1] for entry in entries.values()), default=0)
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        tensor = _tensor(name, entry, file, start, broken)
        if entry.data_offsets[0] != end:
            how = "overlaps the one before it" if entry.data_offsets[0] < end else "leaves a hole before it"
            raise broken(f"tensor {how} (data_offsets {list(entry.data_offsets)})", module=name)
        end = entry.data_offsets[1]
        if start + end > file.size:
            raise broken(
                f"is truncated: it should have {whole:,} bytes and has {file.size:,}",
                fix="fetch the file again",
            )
        tensors[name] = tensor
    if start + end != file.size:
        raise broken(f"has {file.size - start - end:,} bytes after its last tensor", fix="fetch the file again")
    return WeightsFile(path.name, file, tensors, metadata)


def refuse_pointer(head: bytes, path: Path) -> None:
    """Raise AdapterFileError if the file begins as a Git LFS pointer or as a web page does."""
    if head.startswith(b"version https://git-lfs"):
        raise AdapterFileError(
            "is a Git LFS pointer, not the file itself",
            file=path.name,
            fix="run `git lfs pull` in the repository, or download the file again",
        )
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html><he") or head.lstrip()[:5].lower() == b"<html":
        raise AdapterFileError("is a web page, not a weights file", file=path.name, fix="download the file again")


def _header(raw: bytes, broken: Any) -> tuple[dict[str, _HeaderEntry], dict[str, str]]:
    try:
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        told = bytes(parts.pop("__metadata__", b""))
        metadata = msgspec.json.decode(told or b"{}", type=dict[str, str] | None) or {}
        entries = {name: msgspec.json.decode(part, type=_HeaderEntry) for name, part in parts.items()}
        # Of what is named twice, the decoder keeps the last and does not look into the others. Each key has a colon and
        # a tensor four; more of them mean a repetition, or text that holds one. Only then is it worth looking closely.
        colons = told.count(b":")
        twice = _twice(told) if colons > len(metadata) else None
        if raw.count(b":") > 4 * len(entries) + colons + bool(told):
            twice = _twice(raw)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise broken(f"its header is not valid: {printable(error)}", fix="fetch the file again") from None
    if twice is not None:
        raise broken("names this twice in its header", module=twice)
    if _MAYBE_MINUS_0.search(raw) and _has_minus_0(raw):
        raise broken("has the number -0 in its header", fix="fetch the file again")
    return entries, metadata


def _twice(raw: bytes) -> str | None:
    seen: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            seen.append(Counter(key for key, _ in items).most_common(1)[0][0])
        return found

    json.loads(raw, object_pairs_hook=pairs)
    return seen[0] if seen else None


def _has_minus_0(raw: bytes) -> bool:
    """Return whether -0 is one of the numbers: loaders take it for no size, the decoder here for 0."""
    numbers: list[str] = []
    json.loads(raw, parse_int=numbers.append)
    return "-0" in numbers


def _tensor(name: str, entry: _HeaderEntry, file: RegularFile, start: int, broken: Any) -> StoredTensor:
    check_name(name, file.path)
    if entry.dtype not in DTYPES:
        raise broken(f"has dtype {printable(entry.dtype)}, which no safetensors release defines", module=name)
    if not possible_shape(entry.shape):
        raise broken("has an impossible shape", module=name, shape=entry.shape[:MAX_DIMENSIONS])
    elements = math.prod(entry.shape)
    first, last = entry.data_offsets
    if not 0 <= first <= last < _MAX_OFFSET:
        raise broken("has impossible data_offsets", module=name)
    bits = elements * DTYPES[entry.dtype][0]
    if (last - first) * 8 != bits:
        raise broken(
            f"needs {bits / 8:,.0f} bytes as {entry.dtype}, its data_offsets give {last - first:,}",
            module=name,
            shape=entry.shape,
        )
    return StoredTensor(name, entry.dtype, tuple(entry.shape), file, start + first, last - first)


def possible_shape(shape: Sequence[int]) -> bool:
    """Return whether an array can have this shape: even an empty one may not have sizes of any product."""
    return len(shape) <= MAX_DIMENSIONS and all(n >= 0 for n in shape) and math.prod(n or 1 for n in shape) < 2**56


def check_name(name: str, path: Path) -> None:
    """Raise AdapterFileError unless `name` can be the name of a tensor in a model."""
    parts = name.replace("\\", "/").split("/")
    if len(name) > MAX_NAME or ".." in parts or not parts[0] or not name.isprintable():
        raise AdapterFileError(
            "holds a tensor whose name no model can have",
            file=path.name,
            module=repr(printable(name)),
            fix="do not load this file",
        )
