"""Torch checkpoints made by hand: pickles opcode by opcode, in archives of any members."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.torch_zip import read_torch
from s3lora.errors import AdapterFileError

DATA = np.arange(6, dtype=np.float32)


class Global:
    """Stands for a global in a hand-made pickle."""

    def __init__(self, module: str, name: str) -> None:
        self.code = b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def op(value: Any) -> bytes:
    """Return pickle opcodes that build `value`; bytes are taken as opcodes already."""
    match value:
        case bytes():
            return value
        case Global():
            return value.code
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(op, value)) + b"t"
        case dict():
            return b"}(" + b"".join(op(k) + op(v) for k, v in value.items()) + b"u"
    raise TypeError(value)


def storage(key: str = "0", kind: str = "FloatStorage", count: int = 6) -> bytes:
    return op(("storage", Global("torch", kind), key, "cpu", count)) + b"Q"


def tensor(
    shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (3, 1), offset: int = 0, source: bytes | None = None
) -> bytes:
    hooks = op(Global("collections", "OrderedDict")) + b")R"
    arguments = (source or storage(), offset, shape, strides, False, hooks)
    return op(Global("torch._utils", "_rebuild_tensor_v2")) + op(arguments) + b"R"


def program(value: Any) -> bytes:
    return b"\x80\x02" + op(value) + b"."


def archive(path: Path, code: bytes, members: dict[str, bytes] | None = None, **options: Any) -> Path:
    content = {"version": b"3\n", "data/0": DATA.tobytes()} | (members or {})
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, data in {"data.pkl": code, **content}.items():
            file.writestr(f"x/{name}", data)
    return path


def refused(path: Path) -> str:
    with pytest.raises(AdapterFileError) as caught:
        read_torch(path)
    assert str(caught.value).startswith(path.name)
    assert str(caught.value).isprintable()
    return str(caught.value)
