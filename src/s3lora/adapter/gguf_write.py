"""Writing GGUF: the keys of the file that was read, byte by byte, and of its tensors those that stay.

A changed tensor that was quantised is written in float32: nothing here quantises.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from s3lora.adapter.decoded import DecodedTensor
from s3lora.adapter.digest import FileDigest, file_digest
from s3lora.adapter.gguf import MAGIC, PLAIN, read_header
from s3lora.adapter.new_tensors import NewTensor
from s3lora.adapter.regular import RegularFile
from s3lora.adapter.safetensors_write import Edit, bytes_of, content, shape_of
from s3lora.adapter.tensors import SAFETENSORS_NAME, StoredTensor
from s3lora.files import new_file

#: Where the keys begin: behind the magic bytes, the version and two counts.
_KEYS = 24
#: Of tensors in a new file: the format's own default.
_ALIGNMENT = 32
_KINDS = {code: kind for kind, code in PLAIN.items()}


def write_gguf(
    path: Path, source: RegularFile, tensors: Mapping[str, StoredTensor], edits: Mapping[str, Edit]
) -> FileDigest:
    """Write the tensors of an open GGUF file that stay, flush them to disk, and return the digest of the file.

    `tensors` gives them by the names that they get, and `edits` by those that they had.
    """
    header = read_header(source)
    kinds = {entry.name: entry.kind for entry in header.tensors}
    with new_file(path) as file:
        file.write(struct.pack("<4sIQQ", MAGIC, header.version, len(tensors), len(header.keys)))
        for piece in source.chunks(_KEYS, header.keys_end - _KEYS):
            file.write(piece)
        at = 0
        for name, tensor in tensors.items():
            edit = edits.get(tensor.name)
            coded, shape = name.encode(), shape_of(tensor, edit)
            kind = kinds[tensor.name] if _as_it_is(tensor, edit) else _KINDS[tensor.code]
            file.write(struct.pack("<Q", len(coded)) + coded)
            file.write(struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, at))
            at += -(-_size(tensor, edit) // header.alignment) * header.alignment
        file.write(bytes(-file.tell() % header.alignment))
        for tensor in tensors.values():
            edit = edits.get(tensor.name)
            for piece in _pieces(tensor, edit):
                file.write(piece)
            file.write(bytes(-_size(tensor, edit) % header.alignment))
    return file_digest(path)


def write_new_gguf(path: Path, tensors: Sequence[NewTensor], keys: Mapping[str, str | int | float]) -> FileDigest:
    """Write a GGUF file of version 3 with these keys and tensors, flush it to disk, and return its digest.

    Texts are written as such, whole numbers as uint32, others as float32.
    """
    with new_file(path) as file:
        file.write(struct.pack("<4sIQQ", MAGIC, 3, len(tensors), len(keys)))
        for key, value in keys.items():
            file.write(_text(key) + _value(value))
        at = 0
        for tensor in tensors:
            shape = tensor.shape[::-1]
            kind = _KINDS[SAFETENSORS_NAME[tensor.dtype]]
            file.write(_text(tensor.name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at))
            at += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        file.write(bytes(-file.tell() % _ALIGNMENT))
        for tensor in tensors:
            file.write(tensor.values().reshape(-1).view(np.uint8).data)
            file.write(bytes(-tensor.nbytes % _ALIGNMENT))
    return file_digest(path)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: str | int | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    return struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<If", 6, value)


def _as_it_is(tensor: StoredTensor, edit: Edit | None) -> bool:
    return edit is None or not isinstance(tensor, DecodedTensor)


def _size(tensor: StoredTensor, edit: Edit | None) -> int:
    return tensor.key[1] if edit is None else bytes_of(tensor, edit)


def _pieces(tensor: StoredTensor, edit: Edit | None) -> Iterator[memoryview]:
    return tensor.file.chunks(*tensor.key) if edit is None else content(tensor, edit)
