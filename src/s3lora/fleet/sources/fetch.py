"""A copy of an adapter's files that holds the bytes a scan reads, and holes where the others are.

The header of a safetensors file comes first. Over it, with every other byte still a hole, the adapter is opened as any
other; its modules then say which tensors they are made of, whatever the format, and only their ranges are fetched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_one
from s3lora.adapter.tensors import FLOATING, MAX_HEADER, numpy_dtype, read_safetensors
from s3lora.adapter.weights import INDEX, MAX_CONFIG, MAX_INDEX, MAX_SHARDS
from s3lora.errors import AdapterFileError, S3LoRAError, printable
from s3lora.files import read_bytes
from s3lora.fleet.sources.protocols import ChangedError
from s3lora.fleet.sources.stores import CHUNK, Entry, NoRangesError, Store

#: Bytes of a weights file that are fetched at once, in the hope that its header ends before: small files are whole.
FIRST = 256 * 1024
#: Ranges with no more bytes between them are fetched as one.
GAP = 64 * 1024
#: Parts of a module besides its factors are fetched up to this size: a scan reads its alpha and no other.
SMALL = 4096
#: Largest file that a copy is made of, in bytes, holes included.
MAX_SIZE = 2**38
Span = tuple[int, int]


@dataclass(slots=True)
class Copy:
    """Where files are copied to. `read` counts the bytes that came; AdapterFileError where `limit` would be passed.

    `adapter` is which one is copied, where a file holds several.
    """

    store: Store
    folder: Path
    limit: int
    label: str
    adapter: str | None = None
    read: int = 0
    #: Weights file → how many of its first bytes are there.
    present: dict[Path, int] = field(default_factory=dict)
    entries: dict[Path, Entry] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Return whether a weights file has holes."""
        return any(os.path.getsize(path) > count for path, count in self.present.items())

    def small(self, entry: Entry, name: str) -> Path:
        """Copy a configuration or an index. One that is too large is cut where opening it will say so."""
        path = self.folder / name
        most = (MAX_INDEX if is_index(entry.name) else MAX_CONFIG) + 1
        with open(path, "wb") as file:
            pieces = (
                self.store.stream(entry)
                if entry.size is None
                else iter([self.store.read(entry, 0, min(most, entry.size))] if entry.size else [])
            )
            for piece in pieces:
                self._count(len(piece))
                file.write(piece[: max(0, most - file.tell())])
                if file.tell() >= most:
                    break
        return path

    def whole(self, entry: Entry, path: Path) -> None:
        """Copy a whole file, from a server without ranges out of one answer."""
        self._afford(entry.size or 0)
        with open(path, "wb") as file:
            try:
                for start, stop in _pieces([(0, _size(entry))]):
                    self._write(file.fileno(), start, self.store.read(entry, start, stop))
            except NoRangesError:
                self._stream(entry, path, file.fileno())
        size = os.path.getsize(path)
        if entry.size is not None and size != entry.size:
            raise ChangedError(f"has {entry.size:,} bytes and {size:,} came", file=self.label, fix="try again")
        self.present[path], self.entries[path] = size, entry

    def _stream(self, entry: Entry, path: Path, descriptor: int) -> None:
        """Copy a file out of one answer, and no more of it than the server, or the header of the file, says there is.

        What comes beyond is for the check of the size, or for the reader, to refuse.
        """
        os.ftruncate(descriptor, 0)
        most, came = entry.size, 0
        for piece in self.store.stream(entry):
            self._write(descriptor, came, piece)
            came += len(piece)
            if most is None and path.suffix == ".safetensors":
                most = claimed(path)
            if most is not None and came > most:
                return

    def header(self, entry: Entry, path: Path) -> None:
        """Copy the beginning of a safetensors file up to the end of its header, and leave a hole behind it."""
        size = entry.size
        if size is None:
            self.whole(entry, path)
            return
        if size > MAX_SIZE:
            raise AdapterFileError(f"claims {size:,} bytes", file=self.label, fix="no adapter has so many")
        with open(path, "wb") as file:
            first = self.store.read(entry, 0, min(FIRST, size)) if size else b""
            self._write(file.fileno(), 0, first)
            end = 8 + int.from_bytes(first[:8], "little")
            # a header that cannot be is for the reader to refuse, from the first bytes
            end = end if end <= min(size, 8 + MAX_HEADER) else 0
            file.truncate(size)
            self.present[path], self.entries[path] = max(len(first), end), entry
            self._fill(path, [(len(first), end)], file.fileno())

    def tensors(self, weights: Path) -> None:
        """Fetch what a scan reads of the adapter whose headers are there. Raises whatever opening it raises."""
        for path in self.present:
            _pretend(path, self.present[path])
        try:
            with open_one(weights, self.adapter) as adapter:
                wanted = _spans(adapter)
        except S3LoRAError as error:
            error.adapter = None  # which is a place that is gone when the message is read
            raise
        missing = {path: _after(spans, self.present[path]) for path, spans in wanted.items()}
        self._afford(sum(stop - start for spans in missing.values() for start, stop in spans))
        for path, spans in missing.items():
            self._fill(path, spans)

    def confirm(self) -> None:
        """Raise ChangedError if a weights file was replaced since its size was asked."""
        for entry in self.entries.values():
            self.store.confirm(entry)

    def _fill(self, path: Path, spans: Iterable[Span], descriptor: int | None = None) -> None:
        """Fetch ranges of a weights file, all of it from a server that sends no ranges."""
        own = os.open(path, os.O_WRONLY) if descriptor is None else descriptor
        try:
            for start, stop in _pieces(spans):
                self._write(own, start, self.store.read(self.entries[path], start, stop))
        except NoRangesError:
            self.whole(self.entries[path], path)
        finally:
            if descriptor is None:
                os.close(own)

    def _write(self, descriptor: int, start: int, data: bytes | bytearray) -> None:
        self._count(len(data))
        view = memoryview(data)
        while view:
            done = os.pwrite(descriptor, view, start)
            view, start = view[done:], start + done

    def _count(self, more: int) -> None:
        self._afford(more)
        self.read += more

    def _afford(self, more: int) -> None:
        if self.read + more > self.limit:
            what = f"would need {self.read + more:,} bytes or more over the network, the limit is {self.limit:,}"
            raise AdapterFileError(what, file=self.label, fix="fetch the adapter and scan its folder")


def shards(index: Path) -> tuple[str, ...]:
    """Return the names of the shards that an index lists, none where opening it will say what is wrong with it.

    Raises AdapterFileError for a name that a copy cannot have.
    """
    try:
        table = msgspec.json.decode(read_bytes(index, MAX_INDEX + 1), type=dict[str, msgspec.Raw])
        names = sorted(set(msgspec.json.decode(table["weight_map"], type=dict[str, str]).values()))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return ()
    if len(names) > MAX_SHARDS:
        return ()
    for name in names:
        plain = name.isprintable() and len(name) <= 200 and not set("/\\") & set(name) and not name.startswith(".")
        if not plain or not name.endswith(".safetensors"):
            raise AdapterFileError(f"names a shard that cannot be one: {printable(name)}", file=index.name)
    return tuple(names)


def claimed(path: Path) -> int | None:
    """Return how many bytes a safetensors file has by its header, None where the header is not all there yet.

    Of a header that cannot be one the beginning is enough: the reader refuses it.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8).ljust(8, b"\xff"), "little")
        if os.fstat(file.fileno()).st_size < 8:
            return None
        if length > MAX_HEADER:
            return 8
        header = file.read(length)
    if len(header) < length:
        return None
    try:
        tensors = msgspec.json.decode(header, type=dict[str, _Offsets])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 8 + length
    return 8 + length + max((one.data_offsets[1] for one in tensors.values()), default=0)


class _Offsets(msgspec.Struct):
    data_offsets: tuple[int, int] = (0, 0)


def is_index(name: str) -> bool:
    """Return whether a weights file is an index of shards."""
    return name.endswith(INDEX)


def _size(entry: Entry) -> int:
    if entry.size is None:
        raise NoRangesError("of unknown size")
    return entry.size


def _pretend(path: Path, present: int) -> None:
    """Write a one wherever a single number is still a hole: opening reads them, and believes no alpha of zero."""
    weights = read_safetensors(path)
    try:
        single = [tensor for tensor in weights.tensors.values() if all(size == 1 for size in tensor.shape)]
    finally:
        weights.close()
    with open(path, "r+b") as file:
        for tensor in single:
            if tensor.dtype in FLOATING and tensor.offset + tensor.nbytes > present:
                os.pwrite(file.fileno(), np.ones((), numpy_dtype(tensor.dtype)).tobytes(), tensor.offset)


def _spans(adapter: Adapter) -> dict[Path, list[Span]]:
    """Return the ranges of the factors and of the small parts of all modules, by file, merged and in order."""
    stored = {name: tensor for file in adapter.files for name, tensor in file.tensors.items()}
    names = {part.tensor.name for module in adapter.modules for part in module.parts}
    small = {name for module in adapter.modules for name in module.extras if stored[name].nbytes <= SMALL}
    found: dict[Path, list[Span]] = {}
    for tensor in sorted((stored[name] for name in names | small), key=lambda tensor: tensor.offset):
        spans = found.setdefault(tensor.file.path, [])
        start, size = tensor.key
        stop = start + size
        if spans and start - spans[-1][1] <= GAP:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((start, stop))
    return found


def _after(spans: Iterable[Span], present: int) -> list[Span]:
    return [(max(start, present), stop) for start, stop in spans if stop > present]


def _pieces(spans: Iterable[Span]) -> Iterator[Span]:
    for first, last in spans:
        for start in range(first, last, CHUNK):
            yield start, min(start + CHUNK, last)
