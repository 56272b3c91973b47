"""Reading torch's zip checkpoints (`.bin`, `.pt`) without torch, and without running anything they name.

The archive holds `NAME/data.pkl`, which describes the tensors, and one uncompressed member `NAME/data/KEY` for each
storage. The description is read as data (`torch_pickle`); a tensor is then a place in the archive, so reading is
as lazy as it is for safetensors.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

from s3lora.adapter.regular import RegularFile
from s3lora.adapter.tensors import (
    DTYPES,
    StoredTensor,
    WeightsFile,
    check_name,
    possible_shape,
    refuse_pointer,
)
from s3lora.adapter.torch_pickle import PickleError, Storage, TensorRecord, read_pickle
from s3lora.errors import AdapterFileError, printable

MAX_PICKLE = 16 * 1024 * 1024
#: Largest directory of members read, in bytes; about 40,000 storages.
MAX_DIRECTORY = 4 * 1024 * 1024
CONVERT = "load it with torch and save it again, or convert it to safetensors"
_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # signature, …, length of the name, length of the extra field


def read_torch(path: Path) -> WeightsFile:
    """Open a torch checkpoint as a WeightsFile of StoredTensors that point into the archive.

    Raises AdapterFileError if it is no zip archive of torch, is compressed, damaged or hostile, or if its pickle
    names anything but tensors.
    """
    file = RegularFile(path)
    try:
        return _read(file, path)
    except PickleError as error:
        file.close()
        raise AdapterFileError(str(error), file=path.name, fix="do not load this file with torch.load") from None
    except Exception:
        file.close()
        raise


def _read(file: RegularFile, path: Path) -> WeightsFile:
    head = file.bytes(0, 200)
    refuse_pointer(head, path)
    if not head.startswith(b"PK\x03\x04"):
        raise _not_zip(head, path)
    members = _members(file, path)
    root = _root(members, path)
    if (order := members.get(f"{root}/byteorder")) is not None and file.bytes(order[0], min(order[1], 8)) != b"little":
        raise AdapterFileError("is not little-endian", file=path.name, fix=CONVERT)
    offset, size = members[f"{root}/data.pkl"]
    if size > MAX_PICKLE:
        raise AdapterFileError(f"has a pickle of {size:,} bytes", file=path.name, fix="do not load this file")
    state = _state(read_pickle(file.bytes(offset, size)), path)
    tensors = {name: _tensor(name, record, members, root, file) for name, record in state.items()}
    return WeightsFile(path.name, file, tensors)


def _not_zip(head: bytes, path: Path) -> AdapterFileError:
    if _LEGACY_MAGIC in head[:32]:
        return AdapterFileError(
            "is in torch's legacy format, written by torch < 1.6",
            file=path.name,
            fix="load and save it again with a newer torch, or convert to safetensors",
        )
    what = "a bare pickle" if head.startswith(b"\x80") else "not a zip archive"
    return AdapterFileError(f"is no torch checkpoint: it is {what}", file=path.name, fix="fetch the file again")


class _Window(io.RawIOBase):
    """The file as zipfile wants it, which refuses to read more at once than a directory may have."""

    def __init__(self, file: RegularFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise OSError("before the beginning of the file")
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        count = max(0, self._file.size - self._at) if size is None or size < 0 else size
        if count > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"a directory of {count:,} bytes")
        piece = self._file.bytes(self._at, count)
        self._at += len(piece)
        return piece


def _members(file: RegularFile, path: Path) -> dict[str, tuple[int, int]]:
    """Return (offset, size) of the data of each member, after checking that it lies in the file as it is stored."""
    try:
        with zipfile.ZipFile(_Window(file)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, OSError, struct.error) as error:
        reason = f"is no readable zip archive ({printable(error, 80)})"
        raise AdapterFileError(reason, file=path.name, fix="fetch the file again") from None
    members: dict[str, tuple[int, int]] = {}
    total = 0
    for entry in entries:
        total += entry.file_size
        if entry.filename in members or total > file.size:
            raise AdapterFileError(
                "has members that repeat or overlap", file=path.name, module=entry.filename, fix="do not load this file"
            )
        members[entry.filename] = _place(entry, file, path)
    return members


def _place(entry: zipfile.ZipInfo, file: RegularFile, path: Path) -> tuple[int, int]:
    def broken(reason: str, fix: str = "fetch the file again") -> AdapterFileError:
        return AdapterFileError(reason, file=path.name, module=entry.filename, fix=fix)

    check_name(entry.filename, path)
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1 or entry.file_size != entry.compress_size:
        raise broken("is compressed or encrypted, which torch never writes", CONVERT)
    header = file.bytes(entry.header_offset, _LOCAL_HEADER.size)
    if len(header) != _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise broken("has no header where the directory says")
    name_length, extra_length = _LOCAL_HEADER.unpack(header)[-2:]
    name_at = entry.header_offset + _LOCAL_HEADER.size
    if file.bytes(name_at, name_length) != entry.orig_filename.encode("utf-8", "replace"):
        raise broken("is called otherwise in the archive's directory", "do not load this file")
    offset = name_at + name_length + extra_length
    if offset + entry.file_size > file.size:
        raise broken(f"is truncated: it should end at byte {offset + entry.file_size:,}")
    return offset, entry.file_size


def _root(members: dict[str, tuple[int, int]], path: Path) -> str:
    """Return the folder that holds everything, which torch names after the file."""
    found = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise AdapterFileError(
            f"holds {len(found)} members called data.pkl, a torch checkpoint has one", file=path.name, fix=CONVERT
        )
    if f"{found[0]}/constants.pkl" in members:
        raise AdapterFileError("is a TorchScript program, not a checkpoint", file=path.name, fix=CONVERT)
    return found[0]


def _state(value: Any, path: Path) -> dict[str, TensorRecord]:
    """Return the tensors by name, of the dictionary itself or of the `state_dict` in it."""
    if type(value) is dict and type(value.get("state_dict")) is dict:
        value = value["state_dict"]
    tensors = {k: v for k, v in value.items() if type(v) is TensorRecord} if type(value) is dict else {}
    if not tensors:
        raise AdapterFileError("holds no dictionary of tensors", file=path.name, fix=CONVERT)
    return tensors


def _tensor(
    name: str, record: TensorRecord, members: dict[str, tuple[int, int]], root: str, file: RegularFile
) -> StoredTensor:
    check_name(name, file.path)
    if not possible_shape(record.shape):
        raise AdapterFileError("has an impossible shape", file=file.path.name, module=name)
    itemsize = DTYPES[record.code][0] // 8
    start, size = _storage(name, record.storage, members, root, file)
    elements = _contiguous(name, record, file)
    if (record.offset + elements) * itemsize > size:
        raise AdapterFileError(
            f"needs bytes up to {(record.offset + elements) * itemsize:,} of a storage of {size:,}",
            file=file.path.name,
            module=name,
            shape=record.shape,
            fix="fetch the file again",
        )
    offset = start + record.offset * itemsize
    return StoredTensor(name, record.code, record.shape, file, offset, elements * itemsize)


def _storage(
    name: str, storage: Storage, members: dict[str, tuple[int, int]], root: str, file: RegularFile
) -> tuple[int, int]:
    place = members.get(f"{root}/data/{storage.key}")
    itemsize = DTYPES[storage.code][0] // 8 if storage.code else 1
    if place is None or storage.count * itemsize > place[1]:
        raise AdapterFileError(
            f"lacks the {storage.count * itemsize:,} bytes of storage {printable(storage.key, 40)}",
            file=file.path.name,
            module=name,
            fix="fetch the file again",
        )
    return place[0], storage.count * itemsize


def _contiguous(name: str, record: TensorRecord, file: RegularFile) -> int:
    """Return the number of elements; raise unless they lie row by row without gaps."""
    if 0 in record.shape:
        return 0  # nothing lies anywhere; torch keeps any strides
    elements = 1
    for size, stride in zip(reversed(record.shape), reversed(record.strides), strict=True):
        if size > 1 and stride != elements:
            raise AdapterFileError(
                f"is not stored row by row (strides {list(record.strides)})",
                file=file.path.name,
                module=name,
                shape=record.shape,
                fix="save it again after .contiguous()",
            )
        elements *= size
    return elements
