"""What is said of the values of tensors while their bytes go by, against NumPy on the whole of them."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from s3lora.adapter.inventory.inventory import read_values
from s3lora.adapter.inventory.values import FileValues, TensorValues, extremes
from s3lora.adapter.open import open_adapter
from s3lora.adapter.regular import RegularFile
from s3lora.adapter.tensors import DTYPES, StoredTensor
from tests.support import dtype_of, make_adapter

#: Safetensors name → name of an array type, of all that have one.
KNOWN = {code: name for code, (_, name) in DTYPES.items() if name is not None}


def wanted(raw: bytes, name: str) -> tuple[bool, float | None]:
    """Return what is right, by converting every value to float64 or, of whole numbers, to Python's."""
    values: NDArray[Any] = np.frombuffer(raw, dtype_of(name))
    if not values.size:
        return True, None
    if name in ("bool",) or values.dtype.kind in "iu":
        return True, float(max(abs(int(value)) for value in values))
    parts = values.view(np.float32) if name == "complex64" else values
    with np.errstate(invalid="ignore"):
        wide = np.abs(parts.astype(np.float64))
    finite = wide[np.isfinite(wide)]
    return len(finite) == len(wide), float(finite.max()) if len(finite) else None


def stored(path: Path, parts: list[tuple[str, str, int, int]], raw: bytes) -> list[StoredTensor]:
    """Return tensors of (name, code, offset, bytes) in a file of these bytes."""
    path.write_bytes(raw)
    file = RegularFile(path)
    return [
        StoredTensor(name, code, (8 * size // DTYPES[code][0],), file, offset, size)
        for name, code, offset, size in parts
    ]


def seen(tensors: list[StoredTensor], raw: bytes, cuts: list[int], hashed: frozenset[str]) -> dict[str, TensorValues]:
    """Let the bytes go by in pieces that end at the cuts."""
    values = FileValues(tensors, hashed)
    ends = [*sorted(cuts), len(raw)]
    start = 0
    for end in ends:
        if end > start:
            values.see(start, np.frombuffer(raw[start:end], np.uint8))
            start = end
    values.end()
    return values.found


#: Bits that matter in some type: NaN of both kinds, infinities, zeros with signs, the largest and the smallest.
SPECIAL = [
    *(struct.pack("<I", bits) for bits in (0x7F800001, 0x7FC00000, 0xFF800000, 0x7F7FFFFF, 0x80000000, 1)),
    *(struct.pack("<H", bits) for bits in (0x7C00, 0x7C01, 0xFBFF, 0x7F80, 0x7F81, 0xFF7F, 0x8000)),
    *(bytes([bits]) for bits in (0x7F, 0x80, 0xFF, 0x7C, 0x7D, 0x7E, 0xFE, 0xFB)),
    *(struct.pack("<Q", bits) for bits in (0x7FF0000000000001, 0x7FF8000000000000, 0x7FEFFFFFFFFFFFFF, 1 << 63)),
]
BYTES = st.lists(st.one_of(st.binary(min_size=1, max_size=16), st.sampled_from(SPECIAL)), max_size=8).map(b"".join)


@given(raw=BYTES, code=st.sampled_from(sorted(KNOWN)))
def test_extremes_of_any_bytes(raw: bytes, code: str) -> None:
    name, size = KNOWN[code], DTYPES[code][0] // 8
    raw = raw[: len(raw) // size * size]
    if name == "bool":
        raw = bytes(byte & 1 for byte in raw)
    if raw:
        assert extremes(np.frombuffer(raw, np.uint8), name) == wanted(raw, name)


@pytest.mark.parametrize("name", [name for name in KNOWN.values() if dtype_of(name).itemsize == 1])
def test_every_value_of_eight_bits(name: str) -> None:
    if name == "bool":
        return
    for byte in range(256):
        raw = bytes([byte])
        assert extremes(np.frombuffer(raw, np.uint8), name) == wanted(raw, name), byte
    everything = bytes(range(256))
    assert extremes(np.frombuffer(everything, np.uint8), name) == wanted(everything, name)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_value_of_sixteen_bits(name: str) -> None:
    every = np.arange(1 << 16, dtype="<u2")
    with np.errstate(invalid="ignore"):
        numbers = np.abs(every.view(dtype_of(name)).astype(np.float64))
    for bits in every[::37]:
        raw = np.array([bits, 0], "<u2").tobytes()
        number = float(numbers[bits])
        finite = bool(np.isfinite(number))
        assert extremes(np.frombuffer(raw, np.uint8), name) == (finite, number if finite else 0.0)


@st.composite
def files(draw: st.DrawFn) -> tuple[list[tuple[str, str, int, int]], bytes, list[int]]:
    """Return tensors that lie anywhere in a file, also within each other and unaligned; its bytes; where it is cut."""
    raw = draw(BYTES) * draw(st.integers(1, 4)) + b"\0" * 16
    parts = []
    for i in range(draw(st.integers(0, 8))):
        code = draw(st.sampled_from(sorted(DTYPES)))
        offset = draw(st.integers(0, len(raw)))
        size = max(1, DTYPES[code][0] // 8)
        count = draw(st.integers(0, (len(raw) - offset) // size))
        parts.append((f"t{i}", code, offset, count * size))
    return parts, raw, draw(st.lists(st.integers(0, len(raw)), max_size=6))


@given(made=files(), some=st.booleans())
@example(made=([("t0", "F4", 16, 0)], bytes(16), []), some=False)
def test_tensors_anywhere_in_a_file(tmp_path_factory: Any, made: Any, some: bool) -> None:
    parts, raw, cuts = made
    raw = bytes(raw)
    path = tmp_path_factory.mktemp("values") / "file"
    tensors = stored(path, parts, raw)
    hashed = frozenset(name for name, *_ in parts[:: 2 if some else 1])
    found = seen(tensors, raw, cuts, hashed)
    assert set(found) == {name for name, *_ in parts}
    for name, code, offset, size in parts:
        held = raw[offset : offset + size]
        digest = hashlib.sha256(held).hexdigest()
        assert found[name].sha256 == (digest if name in hashed else None) or not size
        kind = KNOWN.get(code)
        if kind == "bool":
            continue  # a byte that is neither 0 nor 1 means nothing
        assert found[name][:2] == ((None, None) if kind is None else wanted(held, kind)), (name, code)


def test_cuts_do_not_matter(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=100).astype(np.float32)
    numbers[77] = np.nan
    raw = b"\x01" + numbers.tobytes()
    tensors = stored(tmp_path / "file", [("a", "F32", 1, 200), ("b", "F32", 201, 200), ("c", "U8", 0, 0)], raw)
    whole = seen(tensors, raw, [], frozenset("ab"))
    assert whole["a"].finite
    assert whole["b"].finite is False
    assert whole["b"].largest == float(np.nanmax(np.abs(numbers[50:])))
    for cut in range(1, len(raw)):
        assert seen(tensors, raw, [cut], frozenset("ab")) == whole
    assert seen(tensors, raw, list(range(len(raw))), frozenset("ab")) == whole, "a byte at a time"


def test_signalling_nan_gives_no_warning(tmp_path: Path) -> None:
    raw = struct.pack("<4I", 0x7F800001, 0xFF800001, 0x3F800000, 0x7FA00000)
    tensors = stored(tmp_path / "file", [("a", "F32", 0, 16), ("b", "BF16", 0, 16), ("c", "C64", 0, 16)], raw)
    found = seen(tensors, raw, [6], frozenset())
    assert found["a"] == TensorValues(False, 1.0)
    assert [found[name].finite for name in "bc"] == [False, False]


def test_shapes_without_values(tmp_path: Path) -> None:
    raw = bytes(8)
    tensors = stored(
        tmp_path / "file", [("at the end", "F32", 8, 0), ("before", "F16", 0, 0), ("in", "F16", 4, 0)], raw
    )
    found = seen(tensors, raw, [4], frozenset(["in"]))
    assert {name: values[:2] for name, values in found.items()} == dict.fromkeys(
        ("at the end", "before", "in"), (True, None)
    )
    assert found["in"].sha256 == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_an_adapter(dtype: str, tmp_path: Path) -> None:
    shapes = {f"h.{i}.q_proj": (16, 12, 4) for i in range(3)}
    with open_adapter(make_adapter(tmp_path, shapes, dtype=dtype)) as adapter:
        found = read_values(adapter)
        for file in adapter.files:
            for name, tensor in file.tensors.items():
                exact = float(np.abs(np.asarray(tensor.array()).astype(np.float64)).max())
                assert found[name] == TensorValues(True, exact, None), "factors get no digest"


def test_the_table_of_types_is_complete() -> None:
    """A type that is added to the readers needs to be known here."""
    for code, name in KNOWN.items():
        size = DTYPES[code][0] // 8
        finite, largest = extremes(np.zeros(size, np.uint8), name)
        assert finite
        assert largest == (float(ml_dtypes.finfo(dtype_of(name)).tiny) if name == "float8_e8m0fnu" else 0.0)
