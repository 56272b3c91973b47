"""What can be said of the values of a tensor while its bytes go by: whether all are finite, and the largest magnitude.

Numbers are compared as the integers that their bits are: of two floating-point numbers without their signs, the larger
one is the larger integer, and NaN and infinity are larger than any number. So nothing is converted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.decoded import DecodedTensor
from s3lora.adapter.regular import Bytes
from s3lora.adapter.tensors import DTYPES, StoredTensor, numpy_dtype

_FIRST_NOT_FINITE = {
    "float64": 0x7FF << 52,
    "float32": 0xFF << 23,
    "float16": 0x1F << 10,
    "bfloat16": 0xFF << 7,
    "float8_e4m3fn": 0x7F,
    "float8_e5m2": 0x7C,
}
#: fp8 types whose one NaN is the bits of −0, and the one that has no sign.
_NEGATIVE_ZERO = ("float8_e4m3fnuz", "float8_e5m2fnuz")
_UNSIGNED = "float8_e8m0fnu"


class TensorValues(NamedTuple):
    """Whether every value is finite, the largest finite magnitude, and the SHA-256 of the bytes, where it was asked."""

    finite: bool | None = None
    largest: float | None = None
    sha256: str | None = None


NOT_READ = TensorValues()


@dataclass(slots=True)
class _Running:
    """One tensor that is longer than the piece it begins in; `rest` is an element that lies in two pieces."""

    tensor: StoredTensor
    digest: Any
    rest: bytes = b""
    finite: bool | None = None
    largest: float | None = None


class FileValues:
    """Takes the bytes of a file in order, and tells what is in its tensors."""

    def __init__(self, tensors: Sequence[StoredTensor], hashed: frozenset[str]) -> None:
        """Expect these tensors; those called `hashed` get a digest."""
        self._decoded = [tensor for tensor in tensors if isinstance(tensor, DecodedTensor)]
        plain = [tensor for tensor in tensors if not isinstance(tensor, DecodedTensor)]
        self._coming = sorted(plain, key=lambda tensor: (tensor.offset, tensor.nbytes))[::-1]
        self._hashed = hashed
        self._running: list[_Running] = []
        self.found: dict[str, TensorValues] = {}

    def see(self, start: int, piece: Bytes) -> None:
        """Look at the bytes that begin at `start` in the file; pieces follow each other without a gap."""
        end = start + len(piece)
        whole: list[StoredTensor] = []
        while self._coming and self._coming[-1].offset < end:
            tensor = self._coming.pop()
            if tensor.name not in self._hashed and tensor.nbytes and tensor.offset + tensor.nbytes <= end:
                whole.append(tensor)
            else:
                digest = hashlib.sha256() if tensor.name in self._hashed else None
                self._running.append(_Running(tensor, digest))
        for run in _alike(whole):
            self._see_run(run, piece[run[0].offset - start : run[-1].offset + run[-1].nbytes - start])
        running, self._running = self._running, []
        for one in running:
            first = one.tensor.offset
            last = first + one.tensor.nbytes
            _see_part(one, piece[max(first, start) - start : max(0, min(last, end) - start)])
            if last <= end:
                self._end(one)
            else:
                self._running.append(one)

    def end(self) -> None:
        """Tell of what lies at the end of the file and has no bytes, and of what does not lie there as numbers."""
        for one in self._decoded:
            raw = one.array().reshape(-1).view(np.uint8)
            told = extremes(raw, one.dtype) if len(raw) else (True, None)
            sha256 = hashlib.sha256(raw.data).hexdigest() if one.name in self._hashed else None
            self.found[one.name] = TensorValues(*told, sha256)
        for tensor in self._coming:
            known = DTYPES[tensor.code][1] is not None
            self.found[tensor.name] = TensorValues(True if known else None, None, hashlib.sha256().hexdigest())

    def _end(self, one: _Running) -> None:
        known = DTYPES[one.tensor.code][1] is not None
        finite = (one.finite is not False) if known else None
        sha256 = one.digest.hexdigest() if one.digest is not None else None
        self.found[one.tensor.name] = TensorValues(finite, one.largest, sha256)

    def _see_run(self, run: Sequence[StoredTensor], span: Bytes) -> None:
        """Look at several tensors of one dtype that lie in one span, none of them in another."""
        name, base = DTYPES[run[0].code][1], run[0].offset
        if name is None:
            self.found.update((tensor.name, NOT_READ) for tensor in run)
            return
        if len(run) == 1 or name not in _FIRST_NOT_FINITE:
            for tensor in run:
                at = tensor.offset - base
                self.found[tensor.name] = TensorValues(*extremes(span[at : at + tensor.nbytes], name))
            return
        size = numpy_dtype(name).itemsize
        bounds = [place for t in run for place in ((t.offset - base) // size, (t.offset - base + t.nbytes) // size)]
        bits = _largest_bits(span, size, np.array(bounds[:-1]))[::2]
        limit = _FIRST_NOT_FINITE[name]
        numbers = bits.view(numpy_dtype(name)).astype(np.float64).tolist() if (bits < limit).all() else None
        for i, tensor in enumerate(run):
            if numbers is not None:
                self.found[tensor.name] = TensorValues(True, numbers[i])
            else:
                at = tensor.offset - base
                self.found[tensor.name] = TensorValues(*extremes(span[at : at + tensor.nbytes], name))


def _alike(tensors: Sequence[StoredTensor]) -> Iterator[list[StoredTensor]]:
    """Cut tensors into runs of one dtype that do not overlap and are aligned to each other."""
    run: list[StoredTensor] = []
    end = 0
    for tensor in tensors:
        name = DTYPES[tensor.code][1]
        if run and (
            tensor.code != run[0].code
            or tensor.offset < end
            or name is None
            or (tensor.offset - run[0].offset) % numpy_dtype(name).itemsize
        ):
            yield run
            run = []
        run.append(tensor)
        end = tensor.offset + tensor.nbytes
    if run:
        yield run


def _see_part(one: _Running, part: Bytes) -> None:
    if one.digest is not None:
        one.digest.update(part.data)
    name = DTYPES[one.tensor.code][1]
    if name is None or not len(part):
        return
    size = numpy_dtype(name).itemsize
    if one.rest or len(part) % size:
        joined = one.rest + part.tobytes()
        length = len(joined) // size * size
        one.rest, part = joined[length:], np.frombuffer(joined[:length], np.uint8)
        if not length:
            return
    finite, largest = extremes(part, name)
    one.finite = finite and one.finite is not False
    if largest is not None:
        one.largest = largest if one.largest is None else max(one.largest, largest)


def extremes(values: Bytes, name: str) -> tuple[bool, float | None]:
    """Return whether all values are finite, and the largest finite magnitude, None where there is none.

    >>> extremes(np.array([1.0, -3.0, np.inf], np.float32).view(np.uint8), "float32")
    (False, 3.0)
    """
    dtype = numpy_dtype(name)
    if name == "complex64":
        return extremes(values, "float32")
    if name in _FIRST_NOT_FINITE:
        limit = _FIRST_NOT_FINITE[name]
        most = int(_largest_bits(values, dtype.itemsize, np.zeros(1, np.intp))[0])
        if most < limit:
            return True, _number(most, dtype)
        sign = 1 << (8 * dtype.itemsize - 1)
        bits = values.view(f"u{dtype.itemsize}") & (sign - 1)
        finite = bits[bits < limit]
        return False, _number(int(finite.max()), dtype) if len(finite) else None
    if name in _NEGATIVE_ZERO:
        kept = values[values != 0x80]
        return len(kept) == len(values), _number(int((kept & 0x7F).max()), dtype) if len(kept) else None
    if name == _UNSIGNED:
        kept = values[values != 0xFF]
        return len(kept) == len(values), _number(int(kept.max()), dtype) if len(kept) else None
    numbers = values.view(dtype)
    return True, float(max(abs(int(numbers.min())), abs(int(numbers.max()))))


def _largest_bits(span: Bytes, size: int, starts: NDArray[np.intp]) -> NDArray[Any]:
    """Return the bits without the sign of the largest magnitude of each part of the span, as unsigned integers."""
    unsigned, signed = span.view(f"u{size}"), span.view(f"i{size}")
    # As unsigned integers negative numbers are the largest, as signed ones positive numbers are.
    if len(starts) == 1:  # several times as fast
        negative, positive = unsigned.max(keepdims=True), signed.max(keepdims=True)
    else:
        negative, positive = np.maximum.reduceat(unsigned, starts), np.maximum.reduceat(signed, starts)
    sign = np.asarray(1 << (8 * size - 1), unsigned.dtype)
    below = np.where(negative >= sign, negative ^ sign, 0).astype(unsigned.dtype)
    largest: NDArray[Any] = np.maximum(below, np.maximum(positive, 0).astype(unsigned.dtype))
    return largest


def _number(bits: int, dtype: np.dtype[Any]) -> float:
    return float(np.array(bits, f"u{dtype.itemsize}").view(dtype).astype(np.float64))
