"""GGUF files made by hand, so that the tests do not believe the code's own writer."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

#: What llama.cpp's converter writes into the GGUF of an adapter.
ADAPTER = {
    "general.architecture": "llama",
    "general.type": "adapter",
    "adapter.type": "lora",
    "adapter.lora.alpha": 8.0,
}
KINDS = {"float32": 0, "float16": 1, "bfloat16": 30, "float64": 28, "int8": 24, "int32": 26}
Q8_0 = 8


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(given: Any) -> bytes:
    """Return the type and the bytes of a value: text, truth, float32, uint32, or a list of text or of uint32."""
    match given:
        case bool():
            return struct.pack("<IB", 7, given)
        case str():
            return struct.pack("<I", 8) + text(given)
        case float():
            return struct.pack("<If", 6, given)
        case int():
            return struct.pack("<II", 4, given)
        case list() if given and isinstance(given[0], str):
            return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(text, given))
        case list():
            return struct.pack("<IIQ", 9, 4, len(given)) + b"".join(struct.pack("<I", one) for one in given)
    raise TypeError(given)


def quantised(values: np.ndarray[Any, Any]) -> bytes:
    """Return the numbers as Q8_0: of each 32 in a row a scale in float16 and 32 numbers of 8 bits."""
    blocks = values.astype(np.float32).reshape(-1, 32)
    scales = (np.abs(blocks).max(axis=1) / 127).astype(np.float16)
    whole = np.where(scales > 0, scales, 1).astype(np.float32)
    numbers = np.clip(np.rint(blocks / whole[:, None]), -127, 127).astype(np.int8)
    return b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, numbers, strict=True))


def gguf_bytes(
    tensors: Mapping[str, np.ndarray[Any, Any]],
    keys: Mapping[str, Any] = ADAPTER,
    *,
    version: int = 3,
    q8_0: tuple[str, ...] = (),
) -> bytes:
    """Return a GGUF file; the tensors named in `q8_0` are quantised."""
    given = keys.get("general.alignment")
    alignment = given if isinstance(given, int) else 32
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys))
    head += b"".join(text(name) + value(one) for name, one in keys.items())
    data = b""
    for name, values in tensors.items():
        kind = Q8_0 if name in q8_0 else KINDS[values.dtype.name]
        shape = values.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += quantised(values) if name in q8_0 else np.ascontiguousarray(values).tobytes()
        data += bytes(-len(data) % alignment)
    return head + bytes(-len(head) % alignment) + data
