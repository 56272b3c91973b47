"""Tensors that are made when they are written, one at a time, in a safetensors file of their own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from s3lora.adapter.digest import FileDigest
from s3lora.adapter.tensor import Array
from s3lora.adapter.tensors import DTYPES, SAFETENSORS_NAME, numpy_dtype
from s3lora.errors import OutputError
from s3lora.files import new_file
from s3lora.wording import worded


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to write: its name, its dtype by NumPy's or ml_dtypes' name, its shape, and what makes its values.

    `make` returns them in any real dtype and in any shape of as many numbers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """Return how many bytes it is written in."""
        return math.prod(self.shape) * DTYPES[SAFETENSORS_NAME[self.dtype]][0] // 8

    def values(self) -> Array:
        """Return the values as they are written, rounded once; raise OutputError where the dtype cannot hold them."""
        made = self.make()
        target = numpy_dtype(self.dtype)
        if made.dtype != target:
            with np.errstate(over="ignore", invalid="ignore"):
                result = made.astype(target)
            if not np.isfinite(result.astype(np.float64)).all():
                finite = bool(np.isfinite(made.astype(np.float64)).all())
                what = f"does not fit into {self.dtype}" if finite else "is not finite"
                fix = worded("give {dtype}float32 or bfloat16") if finite else None
                raise OutputError(what, module=self.name, shape=self.shape, fix=fix)
            made = result
        return np.ascontiguousarray(made).reshape(self.shape)


def write_new_tensors(path: Path, tensors: Sequence[NewTensor], metadata: Mapping[str, str]) -> FileDigest:
    """Write the tensors, flush them to disk, and return the digest of the file.

    Raises OutputError if two have one name, or if a dtype cannot hold its values.
    """
    # Wide numbers first, as the format's own writer has it: readers use them where they lie in the mapped file.
    ordered = sorted(tensors, key=lambda tensor: (-DTYPES[SAFETENSORS_NAME[tensor.dtype]][0], tensor.name))
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for tensor in ordered:
        if tensor.name in entries:
            raise OutputError("two tensors would get this name", file=path.name, module=tensor.name)
        begin, end = end, end + tensor.nbytes
        code = SAFETENSORS_NAME[tensor.dtype]
        entries[tensor.name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = msgspec.json.encode(entries)
    header += b" " * (-len(header) % 8)  # so that the data begin at a multiple of 8
    digest = hashlib.sha256()
    with new_file(path) as file:
        size = 0
        for piece in (len(header).to_bytes(8, "little"), header):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        for tensor in ordered:
            raw = tensor.values().reshape(-1).view(np.uint8).data
            file.write(raw)
            digest.update(raw)
            size += len(raw)
    return FileDigest(path.name, size, digest.hexdigest())
