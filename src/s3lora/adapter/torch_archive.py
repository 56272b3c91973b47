"""The zip archive of a torch checkpoint: where each of its records lies.

torch takes the first folder that it meets for the root, so all records must lie in one.
"""

from __future__ import annotations

import re
from pathlib import Path

from s3lora.adapter.regular import RegularFile
from s3lora.adapter.zip_archive import HOSTILE, names_files, read_members
from s3lora.errors import AdapterFileError

CONVERT = "load it with torch and save it again, or convert it to safetensors"

Extent = tuple[int, int]


def read_records(file: RegularFile, path: Path) -> dict[str, Extent]:
    """Return (offset, size) in the file of each record, by its name without the root folder.

    Raises AdapterFileError unless the archive has the form that torch writes, and all that torch reads before the
    tensors is as it must be: the version, the byte order, the alignment and the identifier.
    """
    if names_files(file, path):
        fix = "unpack it, and give the folder that comes out"
        raise AdapterFileError("is an archive of an adapter's files, no checkpoint of torch", file=path.name, fix=fix)
    members = {name: (one.offset, one.size) for name, one in read_members(file, path, CONVERT).items()}
    root, slash, _ = next(iter(members)).partition("/")
    if not slash or not all(name.startswith(f"{root}/") for name in members):
        raise AdapterFileError("has members outside of one folder", file=path.name, fix=HOSTILE)
    records = {name[len(root) + 1 :]: extent for name, extent in members.items()}
    if "data.pkl" not in records:
        raise AdapterFileError("holds no data.pkl, as a torch checkpoint does", file=path.name, fix=CONVERT)
    if "constants.pkl" in records:
        raise AdapterFileError("is a TorchScript program, not a checkpoint", file=path.name, fix=CONVERT)
    _check_small_records(records, file, path)
    return records


#: What torch reads of an archive beside the pickle and the tensors → what it must hold, and the longest that is read.
_SMALL_RECORDS = {
    "version": rb"0*([1-9]|10)\n?",
    ".data/version": rb"0*([1-9]|10)\n?",
    "byteorder": rb"little",
    ".storage_alignment": rb"[0-9]{1,9}",
    ".format_version": rb"[0-9]{1,9}",
    ".data/serialization_id": rb"[ -~]*",
}


def _check_small_records(records: dict[str, Extent], file: RegularFile, path: Path) -> None:
    if not {"version", ".data/version"} & records.keys():
        raise AdapterFileError("lacks the version that a torch checkpoint has", file=path.name, fix=CONVERT)
    for name, form in _SMALL_RECORDS.items():
        if (extent := records.get(name)) is None:
            continue
        offset, size = extent
        content = file.bytes(offset, min(size, 256))
        if (name, content) == ("byteorder", b"big"):
            raise AdapterFileError("is not little-endian", file=path.name, fix=CONVERT)
        if size > 256 or re.fullmatch(form, content) is None:
            raise AdapterFileError(f"has a record {name} that torch does not write", file=path.name, fix=HOSTILE)
