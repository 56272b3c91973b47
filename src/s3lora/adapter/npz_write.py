"""Writing NPZ archives: one member a tensor, stored as it is, with the same bytes at every run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from s3lora.adapter.digest import FileDigest, file_digest
from s3lora.adapter.safetensors_write import Edit, content, shape_of
from s3lora.adapter.tensors import DTYPES, StoredTensor
from s3lora.files import new_file

#: When a member was made, the earliest that a zip archive can say: it must not change the bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_npz(path: Path, tensors: Mapping[str, StoredTensor], edits: Mapping[str, Edit]) -> FileDigest:
    """Write the tensors in the given order, flush them to disk, and return the digest of the file.

    `tensors` gives them by the names that they get, and `edits` by those that they had.
    """
    with new_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, tensor in tensors.items():
            member = zipfile.ZipInfo(f"{name}.npy", _NO_TIME)
            with archive.open(member, "w", force_zip64=True) as out:
                out.write(_header(tensor, edits.get(tensor.name)))
                for piece in content(tensor, edits.get(tensor.name)):
                    out.write(piece)
    return file_digest(path)


def _header(tensor: StoredTensor, edit: Edit | None) -> bytes:
    # bfloat16 has no name in NumPy; MLX writes and reads it under this one.
    descr = "<V2" if tensor.code == "BF16" else np.lib.format.dtype_to_descr(np.dtype(DTYPES[tensor.code][1]))
    made = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape_of(tensor, edit)}
    np.lib.format.write_array_header_1_0(made, fields)
    return made.getvalue()
