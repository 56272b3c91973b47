"""Builders of adapters that are broken, hostile or none at all: each writes one and returns what to give s3lora."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import factors, make_adapter, safetensors_bytes, write_safetensors

Builder = Callable[[Path], Path]

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1234567\n"
PATH = "model.layers.0.self_attn.q_proj"
PREFIX = f"base_model.model.{PATH}"
A, B = f"{PREFIX}.lora_A.weight", f"{PREFIX}.lora_B.weight"
MODULES = {f"model.layers.{i}.self_attn.{name}": (8, 6, 2) for i in range(3) for name in ("q_proj", "v_proj")}
#: What a pickle in a hostile file would leave behind if it ran.
MARKER = "pickle-ran"


def good(folder: Path) -> Path:
    """Write a valid adapter of six modules."""
    return make_adapter(folder, MODULES)


def weights(raw: bytes | Callable[[bytes], bytes], name: str = WEIGHTS) -> Builder:
    """Return a builder of an adapter whose weights are `raw`, or the valid ones changed by `raw`."""

    def build(folder: Path) -> Path:
        made = good(folder)
        valid = (made / WEIGHTS).read_bytes()
        (made / WEIGHTS).unlink()
        (made / name).write_bytes(raw if isinstance(raw, bytes) else raw(valid))
        return made

    return build


def config(raw: bytes | Mapping[str, Any]) -> Builder:
    """Return a builder of an adapter whose configuration is `raw`, or the valid one with these fields changed."""

    def build(folder: Path) -> Path:
        made = make_adapter(folder, MODULES, config=None if isinstance(raw, bytes) else raw)
        if isinstance(raw, bytes):
            (made / CONFIG).write_bytes(raw)
        return made

    return build


def tensors(content: Mapping[str, np.ndarray[Any, Any]], **fields: Any) -> Builder:
    """Return a builder of an adapter with just these tensors, and fields of the configuration."""

    def build(folder: Path) -> Path:
        made = make_adapter(folder, MODULES, config=fields)
        write_safetensors(made / WEIGHTS, content)
        return made

    return build


def stored(header: bytes | Mapping[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """Return the bytes of a file with this header, whatever it says, and a length field that may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[Any], first: int, last: int) -> dict[str, Any]:
    """Return one entry of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def with_entries(first: dict[str, Any], second: dict[str, Any], data: int, **more: Any) -> Builder:
    """Return a builder of a file with the given entries for A and B, and `data` zero bytes."""
    return weights(stored({A: first, B: second, **more}, bytes(data)))


def pair(m: int, n: int, r: int, *, b_rank: int | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """Return A and B of one module, of inner sizes that may differ."""
    a, _ = factors(m, n, r)
    _, b = factors(m, n, b_rank or r)
    return {A: a, B: b}


def named(name: str) -> Builder:
    """Return a builder of a file in which a tensor besides a good pair has this name."""
    return tensors({**pair(8, 6, 2), name: np.ones((2, 2), np.float32)})


def special(code: str, size: int, bits: int, where: str) -> Builder:
    """Return a builder of a file whose factor A or B has one element with these bits, in this dtype."""

    def build(folder: Path) -> Path:
        made = good(folder)
        one = {"F64": 0x3FF0 << 48, "F32": 0x3F80 << 16, "F16": 0x3C00, "BF16": 0x3F80}.get(code, 0x38)
        a, b = ([one] * 12 for _ in "AB")
        (a if where == "A" else b)[5] = bits
        data = b"".join(value.to_bytes(size, "little") for value in (*a, *b))
        header = {A: entry(code, [2, 6], 0, 12 * size), B: entry(code, [6, 2], 12 * size, 24 * size)}
        (made / WEIGHTS).write_bytes(stored(header, data))
        return made

    return build


class _Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARKER}",)


def pickled(*, zipped: bool) -> Builder:
    """Return a builder of a `.bin` that runs a command when it is unpickled in the usual way."""

    def build(folder: Path) -> Path:
        made = good(folder)
        (made / WEIGHTS).unlink()
        raw = pickle.dumps({A: _Command()}, protocol=2)
        if zipped:
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as file:
                file.writestr("archive/data.pkl", raw)
                file.writestr("archive/version", "3\n")
            raw = archive.getvalue()
        (made / "adapter_model.bin").write_bytes(raw)
        return made

    return build


def sharded(table: Mapping[str, str] | None = None, *, drop: bool = False) -> Builder:
    """Return a builder of an adapter in two shards with an index that may name others, or of which one is missing."""

    def build(folder: Path) -> Path:
        made = good(folder)
        (made / WEIGHTS).unlink()
        for i, name in enumerate(("one.safetensors", "two.safetensors")):
            path = f"base_model.model.model.layers.{i}.self_attn.q_proj"
            a, b = factors(8, 6, 2, seed=i)
            write_safetensors(made / name, {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b})
        names = {
            f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{half}.weight": name
            for i, name in enumerate(("one.safetensors", "two.safetensors"))
            for half in "AB"
        }
        (made / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {**names, **(table or {})}}))
        if drop:
            (made / "two.safetensors").unlink()
        return made

    return build


def instead(make: Callable[[Path], object], name: str = WEIGHTS) -> Builder:
    """Return a builder of an adapter in which `make(path)` makes what stands where `name` should."""

    def build(folder: Path) -> Path:
        made = good(folder)
        (made / name).unlink()
        make(made / name)
        return made

    return build


def empty_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def without_weights(folder: Path) -> Path:
    made = good(folder)
    (made / WEIGHTS).unlink()
    return made


def two_files(folder: Path) -> Path:
    made = without_weights(folder)
    for name in ("a.safetensors", "b.safetensors"):
        write_safetensors(made / name, pair(8, 6, 2))
    return made


def whole_model(folder: Path) -> Path:
    folder.mkdir()
    values = np.ones((4, 4), np.float32)
    names = ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight")
    write_safetensors(folder / "model.safetensors", dict.fromkeys(names, values))
    return folder


def missing(folder: Path) -> Path:
    return folder


def sparse(path: Path, size: int, head: bytes) -> Path:
    """Write a file of `size` bytes that begins with `head` and takes no room on disk."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def valid_bytes() -> bytes:
    """Return a small valid weights file with two modules and metadata."""
    content: dict[str, np.ndarray[Any, Any]] = {}
    for i in range(2):
        a, b = factors(5, 4, 2, seed=i)
        path = f"base_model.model.model.layers.{i}.self_attn.q_proj"
        content |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    return safetensors_bytes(content, {"format": "pt"})
