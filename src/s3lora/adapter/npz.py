"""Reading NPZ archives (`adapters.npz` of MLX) member by member, and never as a pickle.

An NPZ file is a zip archive of `NAME.npy` members. NumPy's own reader unpickles an array of objects where it is allowed
to; here an array is a header of one form and numbers behind it, and nothing else is read.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from s3lora.adapter.decoded import MAX_DECODED, DecodedTensor
from s3lora.adapter.regular import Bytes, RegularFile
from s3lora.adapter.tensor import Array
from s3lora.adapter.tensors import (
    DTYPES,
    SAFETENSORS_NAME,
    StoredTensor,
    WeightsFile,
    check_name,
    numpy_dtype,
    possible_shape,
    refuse_pointer,
)
from s3lora.adapter.zip_archive import HOSTILE, ZipMember, read_members
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

#: Longest header of an array, as NumPy has it.
MAX_HEADER = 10_000
#: Bytes that all compressed members may have once they are unpacked: so many, or so many times the file.
MAX_UNPACKED, MAX_TIMES = 64 * 1024 * 1024, 16
_SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY"
#: What NumPy and MLX write: the three keys in this order.
_HEADER = re.compile(
    r"\{'descr': ?(?P<descr>'[^']{1,20}'|\[[^{}]*\]), ?'fortran_order': ?(?P<fortran>True|False), ?"
    r"'shape': ?\((?P<shape>[0-9, ]*)\),? ?\}[ \n]*"
)
_NUMBERS = re.compile(r"'(?P<order>[<>|=]?)(?P<kind>[biufcV])(?P<size>[0-9]{1,2})'")


def read_npz(path: Path) -> WeightsFile:
    """Open an NPZ archive as a WeightsFile of tensors that point into it.

    Raises AdapterFileError if it is no zip archive, damaged or hostile, UnsupportedAdapterError for an array of
    objects or of anything but numbers.
    """
    with RegularFile.opened(path) as file:
        return _read(file, path)


def _read(file: RegularFile, path: Path) -> WeightsFile:
    refuse_pointer(file.bytes(0, 200), path)
    members = read_members(file, path, "load it with NumPy and save it again by numpy.savez", deflated=True)
    unpacked = sum(member.size for member in members.values() if member.deflated)
    if unpacked > max(MAX_UNPACKED, MAX_TIMES * file.size):
        raise AdapterFileError(
            f"claims {unpacked:,} bytes of arrays in a file of {file.size:,}", file=path.name, fix=HOSTILE
        )
    tensors = {}
    for member_name, member in members.items():
        if not member_name.endswith(_SUFFIX):
            raise AdapterFileError(
                f"holds a member that is no array: {printable(member_name, 80)}",
                file=path.name,
                fix="an NPZ archive holds NAME.npy members only",
            )
        name = member_name.removesuffix(_SUFFIX)
        check_name(name, path)
        tensors[name] = _tensor(name, member, file)
    return WeightsFile(path.name, file, tensors, form="npz")


def _tensor(name: str, member: ZipMember, file: RegularFile) -> StoredTensor:
    head = _beginning(name, member, file)
    start, text = _header(name, head, file)
    matched = _HEADER.fullmatch(text)
    if matched is None:
        raise _broken(name, file, "has a header that NumPy does not write")
    code, swapped = _code(name, matched["descr"], file)
    sizes = [size for size in matched["shape"].replace(" ", "").split(",") if size]
    # Python refuses to read a number of thousands of digits.
    shape = tuple(int(size) for size in sizes if len(size) < 20)
    if len(shape) < len(sizes) or not possible_shape(shape):
        raise _broken(name, file, "has an impossible shape")
    size = math.prod(shape) * DTYPES[code][0] // 8
    if start + size != member.size:
        raise AdapterFileError(
            f"has {member.size - start:,} bytes of values, and its shape needs {size:,}",
            file=file.path.name,
            module=name,
            shape=shape,
            fix="fetch the file again",
        )
    turned = matched["fortran"] == "True" and sum(one > 1 for one in shape) > 1
    if not (member.deflated or swapped or turned):
        return StoredTensor(name, code, shape, file, member.offset + start, size)
    if size > MAX_DECODED:
        raise UnsupportedAdapterError(
            f"has {size:,} bytes of values that do not lie row by row as they are, which is too much to hold",
            file=file.path.name,
            module=name,
            shape=shape,
            fix="save it again by numpy.savez, in C order and little-endian",
        )
    decode = partial(_decoded, code=code, shape=shape, member=member, start=start, swapped=swapped, turned=turned)
    return DecodedTensor(name, code, shape, file, member.offset, size, member.packed, decode)


def _beginning(name: str, member: ZipMember, file: RegularFile) -> bytes:
    """Return the first bytes of an array: all of its header."""
    most = MAX_HEADER + 16
    raw = file.bytes(member.offset, min(member.packed, 2 * most))
    if not member.deflated:
        return raw[: min(most, member.size)]
    try:
        return zlib.decompressobj(-15).decompress(raw, most)
    except zlib.error:
        raise _broken(name, file, "is damaged where it is compressed") from None


def _header(name: str, head: bytes, file: RegularFile) -> tuple[int, str]:
    """Return where the values begin, and the text of the header."""
    if not head.startswith(_MAGIC) or len(head) < 12 or head[6] not in (1, 2, 3) or head[7]:
        raise _broken(name, file, "is no array of NumPy")
    wide = head[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", head, 8)
    start = 12 if wide else 10
    if length > MAX_HEADER or start + length > len(head):
        raise _broken(name, file, f"claims a header of {length:,} bytes")
    return start + length, head[start : start + length].decode("latin-1")


def _code(name: str, descr: str, file: RegularFile) -> tuple[str, bool]:
    """Return the dtype by its safetensors name, and whether the bytes of its numbers are swapped."""
    matched = _NUMBERS.fullmatch(descr)
    if matched is None:
        what = "holds Python objects, which only a pickle could read" if "O" in descr else "holds no numbers"
        raise UnsupportedAdapterError(
            f"{what} ({printable(descr, 40)})", file=file.path.name, module=name, fix="save plain arrays of numbers"
        )
    kind, size = matched["kind"], int(matched["size"])
    if kind == "V" and size == 2:
        return "BF16", False  # as MLX writes bfloat16, for which NumPy has no name
    names = {"f": f"float{8 * size}", "i": f"int{8 * size}", "u": f"uint{8 * size}", "b": "bool", "c": "complex64"}
    code = SAFETENSORS_NAME.get(names.get(kind, ""))
    if code is None or DTYPES[code][0] != 8 * size:
        raise UnsupportedAdapterError(
            f"holds numbers of a type that is not read ({printable(descr, 40)})", file=file.path.name, module=name
        )
    return code, matched["order"] == ">" and size > 1


def _decoded(
    raw: Bytes, *, code: str, shape: tuple[int, ...], member: ZipMember, start: int, swapped: bool, turned: bool
) -> Array:
    """Return the values out of the bytes of a member."""
    whole = _inflated(raw, member) if member.deflated else raw
    dtype = numpy_dtype(str(DTYPES[code][1]))
    values: Array = np.frombuffer(whole, np.uint8)[start:].view(dtype)
    if swapped:
        values = values.byteswap()
    return values.reshape(shape[::-1]).T if turned else values.reshape(shape)


def _inflated(raw: Bytes, member: ZipMember) -> bytes:
    unpacker = zlib.decompressobj(-15)
    try:
        whole = unpacker.decompress(raw.data, member.size + 1)
    except zlib.error:
        whole = b""
    if len(whole) != member.size or zlib.crc32(whole) != member.crc:
        raise AdapterFileError("is damaged where it is compressed", module=member.name, fix="fetch the file again")
    return whole


def _broken(name: str, file: RegularFile, what: str, **where: Any) -> AdapterFileError:
    return AdapterFileError(what, file=file.path.name, module=name, fix="fetch the file again", **where)
