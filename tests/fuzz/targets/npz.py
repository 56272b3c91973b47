"""NPZ archives of adapters, as older releases of MLX wrote them: scanned, pruned, restored."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.draw import Draw
from tests.fuzz.measuring import CONFIG, measure, prune_and_restore
from tests.fuzz.target import Target

CONFIGURATION = b'{"lora_parameters": {"rank": 1, "scale": 20.0, "dropout": 0.0}, "num_layers": 1}'


def _npz(draw: Draw) -> bytes:
    if draw.chance(3):
        return draw.rest()
    arrays = {}
    for _ in range(1 + draw.number(2)):
        path = draw.word() if draw.chance(8) else "model.layers.0.self_attn.q_proj"
        r = 1 + draw.number(3)
        for half, shape in (("lora_a", (6, r)), ("lora_b", (r, 8))):
            dtype = draw.pick(("f4", "f2", "f8", ">f4", "i4", "?", "c8", "S3"))
            arrays[f"{path}.{half}".replace("\0", "")] = np.ones(shape).astype(dtype)
    arrays = {name: draw.pick((values, values.T.copy().T)) for name, values in arrays.items()}
    edits = [(draw.number(65_535), draw.number(255)) for _ in range(draw.number(4))]
    buffer = io.BytesIO()
    (np.savez_compressed if draw.chance(8) else np.savez)(buffer, **arrays)
    raw = bytearray(buffer.getvalue())
    for offset, value in edits:
        raw[-1 - offset % len(raw)] = value
    return bytes(raw)


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    pruned = draw.chance(3)
    path = folder / "in" / "adapters.npz"
    path.parent.mkdir()
    path.write_bytes(_npz(draw))
    (path.parent / CONFIG).write_bytes(CONFIGURATION)
    measure(path, path.parent)
    if pruned:
        prune_and_restore(path, folder)


def _seeds() -> Sequence[bytes]:
    return (b"", bytes(20), bytes(30) + b"\1" * 9, b"\2\2" + _npz(Draw(b"")))


_WORDS = (b"\x93NUMPY\x01\0", b"PK\x03\x04", b"'descr': ")
TARGETS = (Target("npz", "NPZ archive of an adapter", _fuzz, _seeds, _WORDS, quick=100),)
