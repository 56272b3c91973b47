"""Writing safetensors: kept tensors are copied byte by byte in bounded pieces, changed ones are made one at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from s3lora.adapter.digest import FileDigest
from s3lora.adapter.model import Factor
from s3lora.adapter.regular import CHUNK
from s3lora.adapter.tensor import Array
from s3lora.adapter.tensors import StoredTensor, numpy_dtype
from s3lora.errors import OutputError
from s3lora.files import new_file

#: New values of one factor, in float64 or any real dtype.
Change = tuple[Factor, Callable[[], Array]]


@dataclass(frozen=True, slots=True)
class Edit:
    """A tensor whose values change: for each factor that lies in it, a function that makes the new matrix.

    `scale` multiplies the whole tensor; it is for bias vectors, which are no factor. `shape` is the new shape of a
    tensor that gets another one: its changes then give all of its values.
    """

    changes: tuple[Change, ...] = ()
    scale: float | None = None
    shape: tuple[int, ...] | None = None

    def apply(self, tensor: StoredTensor) -> Array:
        """Return the new values in the tensor's layout and dtype; raise OutputError if the dtype cannot hold them."""
        values: Array
        values = tensor.array().copy() if self.shape is None else np.zeros(self.shape, numpy_dtype(tensor.dtype))
        if self.scale is not None:
            with np.errstate(invalid="ignore"):  # a signalling NaN, which _cast finds
                scaled = values.astype(np.float64) * self.scale
            values = _cast(scaled, tensor)
        for factor, make in self.changes:
            factor.view(values)[...] = _cast(make(), tensor)
        return values


def _cast(values: Array, tensor: StoredTensor) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(numpy_dtype(tensor.dtype))
    if not np.isfinite(result.astype(np.float64)).all():
        if not np.isfinite(values).all():
            raise OutputError("the new values are not finite", module=tensor.name, shape=tensor.shape)
        raise OutputError(
            f"the new values do not fit into {tensor.dtype}",
            module=tensor.name,
            shape=tensor.shape,
            fix="save the adapter in float32 or bfloat16 first",
        )
    return result


def write_safetensors(
    path: Path, tensors: Mapping[str, StoredTensor], edits: Mapping[str, Edit], metadata: Mapping[str, str]
) -> FileDigest:
    """Write the tensors in the given order, flush them to disk, and return the digest of the file.

    `tensors` gives them by the names that they get, and `edits` by those that they had.
    """
    digest = hashlib.sha256()
    with new_file(path) as file:
        size = 0
        for piece in _pieces(tensors, edits, metadata):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return FileDigest(path.name, size, digest.hexdigest())


def _pieces(
    tensors: Mapping[str, StoredTensor], edits: Mapping[str, Edit], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    yield _header(tensors, edits, metadata)
    for tensor in tensors.values():
        yield from content(tensor, edits.get(tensor.name))


def content(tensor: StoredTensor, edit: Edit | None) -> Iterator[memoryview]:
    """Yield the bytes of a tensor, changed by `edit` if there is one, in pieces of `CHUNK`."""
    if edit is None:
        yield from tensor.chunks()
        return
    raw = np.ascontiguousarray(edit.apply(tensor)).reshape(-1).view(np.uint8).data
    for start in range(0, len(raw), CHUNK):
        yield raw[start : start + CHUNK]


def shape_of(tensor: StoredTensor, edit: Edit | None) -> tuple[int, ...]:
    """Return the shape that a tensor is written in."""
    return tensor.shape if edit is None or edit.shape is None else edit.shape


def bytes_of(tensor: StoredTensor, edit: Edit | None) -> int:
    """Return how many bytes a tensor is written in."""
    if edit is None or edit.shape is None:
        return tensor.nbytes
    return math.prod(edit.shape) * numpy_dtype(tensor.dtype).itemsize


def _header(tensors: Mapping[str, StoredTensor], edits: Mapping[str, Edit], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        edit = edits.get(tensor.name)
        begin, end = end, end + bytes_of(tensor, edit)
        entries[name] = {"dtype": tensor.code, "shape": list(shape_of(tensor, edit)), "data_offsets": [begin, end]}
    header = msgspec.json.encode(entries)
    header += b" " * (-len(header) % 8)  # so that the data begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header
