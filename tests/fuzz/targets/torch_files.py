"""Checkpoints of torch: the zip archive, and the pickle in it."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from s3lora.adapter.torch_pickle import PickleError, read_pickle
from s3lora.adapter.torch_zip import read_torch
from s3lora.errors import AdapterFileError
from tests.fuzz.contract import BrokenContract, untouched
from tests.fuzz.draw import Draw
from tests.fuzz.measuring import CONFIG, measure, prune_and_restore, valid
from tests.fuzz.target import Target

NAMES = (
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
    "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight",
    "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight",
)
GLOBALS = (
    b"torch FloatStorage", b"torch HalfStorage", b"torch BFloat16Storage", b"torch.storage UntypedStorage",
    b"torch._utils _rebuild_tensor_v2", b"torch._utils _rebuild_tensor_v3", b"torch._utils _rebuild_parameter",
    b"collections OrderedDict", b"torch Size", b"torch float8_e4m3fn", b"os system", b"builtins eval",
)  # fmt: skip
CODES = b"\x80\x95(N\x88\x89KMJ\x8aGX\x8cU)]}t\x85\x86\x87aesuqrhj\x94c\x93QRb.0120IVSLFpglo\x81\x92\x8e\x8b\x90\x91"
_INTEGERS = (0, 1, 2, 6, 12, 255, 256, 65_536, 2**31 - 1, -1)
_LONG = (2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63))


def _named(words: bytes) -> bytes:
    module, name = words.split(b" ")
    return b"c" + module + b"\n" + name + b"\n"


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _size(draw: Draw, usual: int) -> bytes:
    return _integer(draw.pick((*_INTEGERS, *_LONG)) if draw.chance(16) else usual)


def pickled(draw: Draw) -> bytes:
    """Return a pickle: the bytes as they are, or a dictionary of tensors with a few strange opcodes between."""
    if draw.chance(4):
        return draw.rest()
    made = b"\x80" + (bytes([draw.number(255)]) if draw.chance(16) else b"\2")
    made += draw.pick((b"}", _named(b"collections OrderedDict") + b")R"))
    if draw.chance(8):
        made += b"}(" + _text("state_dict") + b"}"
    for i, name in enumerate(NAMES[: 4 - draw.number(3)]):
        shape = (2, 6) if "lora_A" in name else (8, 2)
        made += _text(draw.word() if draw.chance(12) else name) + _tensor(draw, shape, i) + b"s"
        if draw.chance(8):
            made += _strange(draw)
    return made + b"."


def _tensor(draw: Draw, shape: tuple[int, int], number: int) -> bytes:
    count = shape[0] * shape[1]
    storage = _named(draw.pick(GLOBALS[:4]) if draw.chance(6) else GLOBALS[0])
    key = _text(draw.word() if draw.chance(16) else str(number))
    identity = b"(" + _text("storage") + storage + key + _text("cpu") + _size(draw, count) + b"tQ"
    sizes = b"(" + b"".join(_size(draw, n) for n in shape) + b"t"
    strides = b"(" + _size(draw, shape[1]) + _size(draw, 1) + b"t"
    tail = draw.pick((b"\x89" + _named(GLOBALS[7]) + b")R", b"\x89}", b""))
    rebuild = _named(draw.pick(GLOBALS) if draw.chance(16) else GLOBALS[4])
    extra = _strange(draw) if draw.chance(16) else b""
    return rebuild + b"(" + identity + _size(draw, 0) + sizes + strides + tail + extra + b"tR"


def _strange(draw: Draw) -> bytes:
    made = b""
    for _ in range(1 + draw.number(3)):
        made += bytes([draw.pick(CODES)]) + draw.take(draw.number(5))
        if draw.chance(4):
            made += _named(draw.pick(GLOBALS))
    return made


def archive(draw: Draw) -> bytes:
    """Return an archive: the bytes as they are, or members as torch writes them, of which a few bytes are others."""
    if draw.chance(5):
        return draw.rest()
    root = draw.word() if draw.chance(12) else "archive"
    members = [(f"{root}/data.pkl", b""), (f"{root}/byteorder", draw.pick((b"little", b"big", b"")))]
    members += [(f"{root}/data/{i}", b"\0\0\x80\x3f" * (12, 16)[i % 2]) for i in range(4)]
    members += [(f"{root}/version", b"3\n"), (f"{root}/.data/serialization_id", b"0" * 40)]
    for _ in range(draw.number(2)):
        where = draw.number(len(members) - 1)
        other = draw.pick((*(name for name, _ in members), f"{root}/constants.pkl", "x/"))
        members.insert(where, (other, draw.take(3)))
    edits = [(draw.number(65_535), draw.number(255)) for _ in range(draw.number(4))]
    cut = draw.number(65_535) if draw.chance(16) else None
    description = pickled(draw)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        warnings.simplefilter("ignore")  # that a name is there twice: it is meant
        file.comment = b"x" * 3 if draw.chance(16) else b""
        for name, data in members:
            one = zipfile.ZipInfo(name.replace("\0", "") or "x")
            one.file_size = 0
            file.writestr(one, description if name.endswith("/data.pkl") else data)
    raw = bytearray(buffer.getvalue())
    for offset, value in edits:
        raw[-1 - offset % len(raw)] = value
    return bytes(raw[:cut])


def _archive(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    path = folder / "in" / "adapter_model.bin"
    path.parent.mkdir()
    pruned = draw.chance(3)
    path.write_bytes(archive(draw))
    with untouched(folder):
        file = read_torch(path)
        try:
            for tensor in file.tensors.values():
                if not 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= file.file.size:
                    raise BrokenContract("has a tensor outside the file")
                if tensor.array().shape != tensor.shape:
                    raise BrokenContract("has an array of another shape")
        finally:
            file.close()
    (path.parent / CONFIG).write_bytes(valid()[1])
    measure(path.parent)
    if pruned:
        prune_and_restore(path.parent, folder)


def _pickle(data: bytes, _: Path) -> None:
    try:
        value = read_pickle(pickled(Draw(data)))
    except PickleError as error:
        raise AdapterFileError(str(error)) from None
    _plain(value)


_PLAIN = (type(None), bool, int, float, str)


def _plain(value: Any) -> None:
    """Raise unless a value is made of plain data and of records of the reader."""
    queue, seen = [value], set()
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if is_dataclass(one):
            queue.extend(getattr(one, part.name) for part in fields(one))
        elif type(one) in (list, tuple):
            queue.extend(one)
        elif type(one) in (dict, OrderedDict):
            queue.extend([*one, *one.values()])
        elif type(one) not in _PLAIN:
            raise BrokenContract(f"makes a {type(one).__name__} of a pickle")


def _seeds() -> Sequence[bytes]:
    return (b"", b"\2", bytes(10) + b"\3", *(b"\0\4" + archive(Draw(data)) for data in (b"", bytes(9) + b"\3")))


def _pickle_seeds() -> Sequence[bytes]:
    return (b"", b"\0\0\3", b"\3" + pickled(Draw(b"")), b"\3" + pickled(Draw(b"\0\1\3" + bytes(60))))


_WORDS = (
    *(_named(one) for one in GLOBALS), b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07",
    b"data.pkl", b"byteorder", b"storage", b"cpu", b"state_dict", *(name.encode() for name in NAMES[:2]),
)  # fmt: skip
TARGETS = (
    Target("torch-zip", "zip archive of a torch checkpoint", _archive, _seeds, _WORDS, quick=60),
    Target("torch-pickle", "pickle of a torch checkpoint, read as data", _pickle, _pickle_seeds, _WORDS),
)
