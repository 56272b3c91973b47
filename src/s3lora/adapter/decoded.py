"""A tensor that does not lie in its file as an array: compressed, quantised, or in another order of bytes or axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from s3lora.adapter.regular import CHUNK, Bytes
from s3lora.adapter.tensor import Array, Layout, as_stored
from s3lora.adapter.tensors import LONG, StoredTensor

#: Bytes of the values of one tensor, which are in memory at once.
MAX_DECODED = 8 * LONG


@dataclass(frozen=True, slots=True)
class DecodedTensor(StoredTensor):
    """A tensor whose values `decode` makes of the `packed` bytes at its offset, all at once and each time anew.

    `code`, `shape` and `nbytes` are those of the values. Whoever makes one bounds them: they are held in memory.
    """

    packed: int
    decode: Callable[[Bytes], Array]

    @property
    def key(self) -> tuple[int, int]:
        """Return where the packed bytes lie in the file: offset and number of bytes."""
        return self.offset, self.packed

    def array(self) -> Array:
        """Return the values as a read-only array, row by row."""
        raw = self.file.range(*self.key) if self.packed else np.zeros(0, np.uint8)
        values = np.ascontiguousarray(self.decode(raw), self._numpy()).reshape(self.shape)
        values.flags.writeable = False
        return values

    def matrix(self, view: Layout = as_stored) -> Array:
        """Return the matrix that `view` makes of the values."""
        return view(self.array())

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes of the values in bounded pieces."""
        raw = self.array().reshape(-1).view(np.uint8).data
        for start in range(0, len(raw), CHUNK):
            yield raw[start : start + CHUNK]
