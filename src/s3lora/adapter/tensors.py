"""Lazy, bounded, strict reading of safetensors files.

A file is mapped, never loaded: a tensor is a view of the map until it is used, and its pages are handed back
afterwards, so that memory does not grow with the file. The header is checked in full before any tensor is believed
(format: github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import stat
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np

from s3lora.adapter.tensor import Array
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

#: Largest header read, in bytes; about 200,000 tensors. Real adapters stay under 6 MB.
MAX_HEADER = 32 * 1024 * 1024
MAX_NAME = 512
MAX_DIMENSIONS = 8
CHUNK = 1024 * 1024
#: Files up to this size are mapped whole at once and kept so: page by page costs more than it saves.
SMALL_FILE = 96 * 1024 * 1024

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


# O_NONBLOCK: opening a named pipe must not wait for a writer.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
#: Beyond this offset lies no file; without a bound, a header of digits makes numbers too long to print.
_MAX_OFFSET = 2**63


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype called `name`, from ml_dtypes where NumPy has none."""
    return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)


class MappedFile:
    """A regular file mapped read-only, whose pages can be handed back."""

    def __init__(self, path: Path) -> None:
        """Map `path`; raise AdapterFileError if it is missing, unreadable or no regular file."""
        try:
            descriptor = os.open(path, _OPEN_FLAGS)
        except OSError as error:
            raise AdapterFileError(f"cannot be opened ({error.strerror})", file=path.name) from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise AdapterFileError("is not a regular file", file=path.name, fix="give a weights file or its folder")
            self.path = path
            self.size = status.st_size
            self._map = _map(descriptor, self.size) if self.size else None
        except (OSError, ValueError) as error:
            os.close(descriptor)
            raise AdapterFileError(f"cannot be read ({error})", file=path.name) from None
        except AdapterFileError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._close_descriptor = weakref.finalize(self, os.close, descriptor)

    def bytes(self, offset: int, count: int) -> bytes:
        """Return a copy of `count` bytes from `offset`, fewer at the end of the file."""
        return b"" if self._map is None else self._map[offset : offset + count]

    def view(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """Return a read-only array over the mapped bytes."""
        if 0 in shape:
            return np.zeros(shape, dtype)
        if self._map is None:
            raise AdapterFileError("was closed before this tensor was read", file=self.path.name)
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._map, dtype, count, offset).reshape(shape)

    def chunks(self, offset: int, count: int) -> Iterator[memoryview]:
        """Yield `count` bytes from `offset` in bounded pieces; the next piece overwrites the one before it.

        They are read, not mapped: touching every page of a map once costs more than copying it.
        """
        if not self._close_descriptor.alive:
            raise AdapterFileError("was closed before it was read", file=self.path.name)
        buffer = memoryview(bytearray(min(CHUNK, count)))
        end = offset + count
        while offset < end:
            length = os.preadv(self._descriptor, [buffer[: min(CHUNK, end - offset)]], offset)
            if length == 0:
                raise AdapterFileError("became shorter while it was read", file=self.path.name)
            yield buffer[:length]
            offset += length

    def release(self, offset: int, count: int) -> None:
        """Tell the system that these pages are not needed now; touching them again reads them again."""
        if self._map is None or count <= 0 or self.size <= SMALL_FILE:
            return
        start = offset - offset % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, start, offset + count - start)

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file, in hexadecimal."""
        if self._map is not None and self.size <= SMALL_FILE:
            return hashlib.sha256(self._map).hexdigest()
        digest = hashlib.sha256()
        for chunk in self.chunks(0, self.size):
            digest.update(chunk)
        return digest.hexdigest()

    def close(self) -> None:
        """Unmap the file, unless arrays still look at it; then the last of them unmaps it."""
        if self._map is not None:
            # BufferError: arrays still look at it; without our reference the last of them unmaps it.
            with contextlib.suppress(BufferError):
                self._map.close()
            self._map = None
        self._close_descriptor()


def _map(descriptor: int, size: int) -> mmap.mmap:
    populate = getattr(mmap, "MAP_POPULATE", 0) if size <= SMALL_FILE else 0
    return mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED | populate, prot=mmap.PROT_READ)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor inside a mapped file: contiguous, little-endian, row-major.

    `dtype` is the NumPy or ml_dtypes name; `code` is the safetensors name.
    """

    name: str
    code: str
    shape: tuple[int, ...]
    file: MappedFile
    offset: int
    nbytes: int

    @property
    def dtype(self) -> str:
        """Return the NumPy name of the dtype, or the safetensors name where NumPy has none."""
        return DTYPES[self.code][1] or self.code

    def array(self) -> Array:
        """Return a read-only view of the values."""
        name = DTYPES[self.code][1]
        if name is None:
            raise UnsupportedAdapterError(
                f"dtype {self.code} has no array type", file=self.file.path.name, module=self.name
            )
        return self.file.view(self.offset, numpy_dtype(name), self.shape)

    def chunks(self) -> Iterator[memoryview]:
        """Yield the stored bytes in bounded pieces."""
        return self.file.chunks(self.offset, self.nbytes)

    def release(self) -> None:
        """Hand the pages behind this tensor back."""
        self.file.release(self.offset, self.nbytes)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One opened weights file: its tensors in file order, and its `__metadata__`."""

    name: str
    file: MappedFile
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Unmap the file."""
        self.file.close()


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_safetensors(path: Path) -> WeightsFile:
    """Open a safetensors file and check its whole header.

    Raises AdapterFileError if the file is a Git LFS pointer, truncated, larger than its header says, or if its
    header is malformed, oversized, names a tensor twice or lets tensors overlap.
    """
    file = MappedFile(path)
    try:
        return _read(file, path)
    except Exception:
        file.close()
        raise


def _read(file: MappedFile, path: Path) -> WeightsFile:
    def broken(reason: str, **where: Any) -> AdapterFileError:
        return AdapterFileError(reason, file=path.name, **where)

    refuse_pointer(file.bytes(0, 200), path)
    if file.size < 8:
        raise broken(f"is no safetensors file: {file.size} bytes cannot hold a header", fix="fetch the file again")
    length = int.from_bytes(file.bytes(0, 8), "little")
    if length > MAX_HEADER:
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
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        tensor = _tensor(name, entry, file, start, broken)
        if entry.data_offsets[0] != end:
            how = "overlaps the one before it" if entry.data_offsets[0] < end else "leaves a hole before it"
            raise broken(f"tensor {how} (data_offsets {list(entry.data_offsets)})", module=name)
        end = entry.data_offsets[1]
        if start + end > file.size:
            raise broken(
                f"is truncated: it should have {start + end:,} bytes or more and has {file.size:,}",
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


def _header(raw: bytes, broken: Any) -> tuple[dict[str, _Entry], dict[str, str]]:
    try:
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(parts.pop("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str] | None) or {}
        entries = {name: msgspec.json.decode(part, type=_Entry) for name, part in parts.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise broken(f"its header is not valid: {printable(error)}", fix="fetch the file again") from None
    if _may_repeat(raw, len(entries)) and (name := _twice(raw)) is not None:
        raise broken("names this twice in its header", module=name)
    return entries, metadata


def _may_repeat(raw: bytes, count: int) -> bool:
    """Return whether a key may stand twice in the header of `count` tensors, where the decoder keeps the last.

    Each tensor has one of three keys, so another number of them means a repetition, or a name that contains the word;
    and a backslash may hide a word. Only then is it worth looking closely.
    """
    keys = (b'"data_offsets"', b'"dtype"', b'"shape"')
    return b"\\" in raw or raw.count(b'"__metadata__"') > 1 or any(raw.count(key) != count for key in keys)


def _twice(raw: bytes) -> str | None:
    seen: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            seen.append(Counter(key for key, _ in items).most_common(1)[0][0])
        return found

    json.loads(raw, object_pairs_hook=pairs)
    return seen[0] if seen else None


def _tensor(name: str, entry: _Entry, file: MappedFile, start: int, broken: Any) -> StoredTensor:
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
