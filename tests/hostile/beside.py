"""What hides code beside an adapter: made-up examples, for a test and for the comparison with other scanners.

Each is a folder with a sound adapter and a file more, in a format or a packing in which code has been hidden. Where a
call is named it is `true`, which does nothing.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.bad_files import good

CALL = b"cposix\nsystem\n(S'true'\ntR."


class Call:
    """Pickles as a call of the shell that does nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("true",)


def zipped(members: dict[str, bytes], *, damage: Callable[[bytearray], None] | None = None) -> bytes:
    """Return a zip archive, changed by `damage`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, raw in members.items():
            archive.writestr(zipfile.ZipInfo(name), raw)
    changed = bytearray(file.getvalue())
    if damage is not None:
        damage(changed)
    return bytes(changed)


def tarred(members: dict[str, bytes]) -> bytes:
    """Return a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return file.getvalue()


def seven_zipped(name: str, raw: bytes) -> bytes:
    """Return a 7z archive with one member that is stored as it is."""
    text = b"\0" + name.encode("utf-16-le") + b"\0\0"
    packed = b"\x06\0\x01\x09" + bytes([len(raw)]) + b"\0"
    unpacked = b"\x07\x0b\x01\0\x01\x01\0\x0c" + bytes([len(raw)]) + b"\0"
    streams = b"\x08\x0a\x01" + struct.pack("<I", zlib.crc32(raw)) + b"\0"
    files = b"\x05\x01\x11" + bytes([len(text)]) + text + b"\0"
    header = b"\x01\x04" + packed + unpacked + streams + b"\0" + files + b"\0"
    start = struct.pack("<QQI", len(raw), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\x04" + struct.pack("<I", zlib.crc32(start)) + start + raw + header


def gguf(template: str) -> bytes:
    """Return a GGUF file without tensors that has a chat template."""
    key = b"tokenizer.chat_template"
    value = struct.pack("<IQ", 8, len(template)) + template.encode()
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key + value


def torch_zip(members: dict[str, bytes]) -> bytes:
    """Return an archive as torch writes them, with `members` in place of the tensors."""
    return zipped({"archive/version": b"3\n", **{f"archive/{name}": raw for name, raw in members.items()}})


def wrong_checksum(archive: bytearray) -> None:
    """Change the checksums of a zip archive, which not every reader looks at."""
    for magic, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        found = archive.find(magic)
        archive[found + at] ^= 0xFF


def marked_encrypted(archive: bytearray) -> None:
    """Say that a member is encrypted, which not every reader looks at."""
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        archive[archive.find(magic) + at] |= 1


def array(*, packed: bool) -> bytes:
    """Return an array of objects as NumPy keeps it."""
    file = io.BytesIO()
    if packed:
        np.savez_compressed(file, a=np.array([Call()], object))
    else:
        np.save(file, np.array([Call()], object))
    return file.getvalue()


def lambda_layer() -> bytes:
    """Return a Keras model whose one layer is a function; the function is no code, only its place is there."""
    function = base64.b64encode(b"\xe3\0\0\0\0").decode()
    layer = {"class_name": "Lambda", "config": {"name": "a", "function": [function, None, None]}}
    model = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
    return zipped({"config.json": json.dumps(model).encode(), "metadata.json": b"{}"})


_ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
_GETATTR = (
    b"\x80\x04c__builtin__\ngetattr\ncimportlib\nimport_module\nX\x02\0\0\0os\x85RX\x06\0\0\0system\x86R"
    b"X\x04\0\0\0true\x85R."
)
_MEMO = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940\x30h\x00h\x01\x93\x8c\x04true\x85R."

#: Name → file in the folder, its content, and what s3lora's rule `strict` fails on.
BESIDE: dict[str, tuple[str, bytes, str]] = {
    "pickle-protocol-0": ("state.pkl", CALL, "pickles"),
    "pickle-protocol-4": ("state.pkl", pickle.dumps(Call(), 4), "pickles"),
    "pickle-getattr-chain": ("state.pkl", _GETATTR, "pickles"),
    "pickle-name-from-memo": ("state.pkl", _MEMO, "pickles"),
    "pickle-inst": ("state.pkl", b"(S'true'\niposix\nsystem\n.", "pickles"),
    "pickle-breaks-off": ("state.pkl", CALL[:-1] + b"\xff", "pickles"),
    "pickle-second-in-file": ("state.pkl", pickle.dumps(1, 4) + pickle.dumps(Call(), 4), "pickles"),
    "pickle-of-no-listed-name": ("state.pkl", b"cmy_helpers\nstart\n)R.", "pickles"),
    "pickle-called-notes": ("notes.txt", pickle.dumps(Call(), 4), "pickles"),
    "pickle-in-gzip": ("state.pkl.gz", gzip.compress(pickle.dumps(Call(), 4), mtime=0), "pickles"),
    "joblib-compressed": ("state.joblib", zlib.compress(pickle.dumps(Call(), 4)), "pickles"),
    "array-of-objects": ("data.npy", array(packed=False), "pickles"),
    "arrays-of-objects": ("data.npz", array(packed=True), "pickles"),
    "torch-zip": ("more.pt", torch_zip({"data.pkl": CALL}), "pickles"),
    "torch-zip-second-pickle": ("more.pt", torch_zip({"data.pkl": b"N.", "a/other.pkl": CALL}), "pickles"),
    "zip": ("extra/more.zip", zipped({"deep/data.pkl": CALL}), "pickles"),
    "zip-member-by-content": ("extra/more.zip", zipped({"deep/data": pickle.dumps(Call(), 4)}), "pickles"),
    "zip-wrong-checksum": ("more.zip", zipped({"data.pkl": CALL}, damage=wrong_checksum), "pickles"),
    "zip-marked-encrypted": ("more.zip", zipped({"data.pkl": CALL}, damage=marked_encrypted), "pickles"),
    "zip-in-zip": ("more.zip", zipped({"inner.zip": zipped({"data.pkl": CALL})}), "pickles"),
    "torch-zip-in-zip": ("more.zip", zipped({"adapter_model.bin": torch_zip({"data.pkl": CALL})}), "pickles"),
    "tar-in-gzip": ("more.tar.gz", gzip.compress(tarred({"data.pkl": CALL}), mtime=0), "pickles"),
    "gzip-in-tar": ("more.tar", tarred({"data.pkl.gz": gzip.compress(CALL, mtime=0)}), "pickles"),
    "7z": ("more.7z", seven_zipped("data.pkl", CALL), "code"),
    "keras-lambda": ("model.keras", lambda_layer(), "other-weights"),
    "gguf-template": ("model.gguf", gguf(_ESCAPE), "other-weights"),
    "template": ("chat_template.jinja", _ESCAPE.encode(), "code"),
    "auto-map": ("config.json", json.dumps({"auto_map": {"AutoModel": "modeling.Model"}}).encode(), "code"),
    "script": ("modeling.py", b"print('hello')\n", "code"),
    "library": ("kernels.so", b"\x7fELF" + bytes(60), "code"),
}


def write_beside(name: str, folder: Path) -> Path:
    """Write an example into a new folder and return it."""
    made = good(folder)
    file, raw, _ = BESIDE[name]
    (made / file).parent.mkdir(exist_ok=True)
    (made / file).write_bytes(raw)
    return made
