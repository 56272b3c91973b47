"""Digests of what an adapter's modules hold, whatever its file is called and however it is laid out."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np

from s3lora.adapter.model import Adapter, Factor, LoraModule

#: Bytes of a factor that are copied at a time.
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """Two SHA-256 in hexadecimal.

    `measured` is that of everything a scan's numbers follow from: path, kind, shape, dtype, scaling and values of
    every module. `tensors` is that of the values alone, in no order: equal where the same factors are published under
    other names or with another alpha.
    """

    measured: str
    tensors: str


def content_of(adapter: Adapter) -> Content:
    """Read every factor once and return the digests."""
    values = [_values(module, adapter.format) for module in adapter.modules]
    measured = hashlib.sha256()
    # What is said of an adapter follows from its configuration too, and is copied with the numbers.
    for text in adapter.warnings:
        measured.update(_framed(text))
    for module, digest in zip(adapter.modules, values, strict=True):
        for text in (module.path, module.kind, module.scaling.origin):
            measured.update(_framed(text))
        measured.update(struct.pack("<d?", module.scaling.value, module.dora) + digest)
        if module.form == "QALoRA":  # whose groups the configuration alone tells, and they are in the width
            measured.update(struct.pack("<q", module.n))
    return Content(measured.hexdigest(), hashlib.sha256(b"".join(sorted(values))).hexdigest())


def _framed(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return struct.pack("<q", len(raw)) + raw


def _values(module: LoraModule, form: str) -> bytes:
    """Return the digest of what is stored, for a product may differ in its last digits between machines."""
    digest = hashlib.sha256()
    if module.form != "LoRA":  # the same numbers, put together in another way
        digest.update(f"{module.form} ".encode())
    for factor in (module.A, module.B):
        if len(factor.parts) > 1:  # what they make together is the format's to say
            digest.update(f"{form} {len(factor.parts)} ".encode())
        for part in factor.parts:
            rows, columns = part.shape
            digest.update(f"{part.dtype} {rows} {columns} ".encode())
            _update(digest, part)
    return digest.digest()


def _update(digest: hashlib._Hash, factor: Factor) -> None:
    """Add the matrix row by row, so that a file that stores it transposed gives the same."""
    matrix = factor.array()
    if not matrix.size:
        return
    step = max(1, CHUNK // max(1, matrix.shape[1] * matrix.itemsize))
    for start in range(0, matrix.shape[0], step):
        digest.update(np.ascontiguousarray(matrix[start : start + step]).view(np.uint8).data)
