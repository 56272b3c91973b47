"""Reading torch's zip checkpoints (`.bin`, `.pt`) without torch, and without running anything they name.

The archive holds `NAME/data.pkl`, which describes the tensors, and one uncompressed member `NAME/data/KEY` for each
storage. The description is read as data (`torch_pickle`); a tensor is then a range of the archive (`torch_archive`), so
reading is as lazy as it is for safetensors. What is read here, `torch.load(weights_only=True)` reads too, with the same
names and values; `tests/fuzz/test_torch_differential.py` holds the one against the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s3lora.adapter.regular import RegularFile
from s3lora.adapter.tensors import DTYPES, StoredTensor, WeightsFile, check_name, possible_shape, refuse_pointer
from s3lora.adapter.torch_archive import Extent, read_records
from s3lora.adapter.torch_pickle import Description, PickleError, Storage, TensorRecord, read_pickle
from s3lora.adapter.zip_archive import FETCH, HOSTILE
from s3lora.errors import AdapterFileError, printable

MAX_PICKLE = 16 * 1024 * 1024
#: How many times the bytes of the file its tensors may have: each view of a storage costs what it claims. Tied tensors
#: make it 2 or 3.
MAX_SHARED = 16
#: The dictionary inside the outer one that is read, for trainers keep a model there; litGPT says `model`.
NESTED = ("state_dict", "model")
_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")


def read_torch(path: Path) -> WeightsFile:
    """Open a torch checkpoint as a WeightsFile of StoredTensors that point into the archive.

    Raises AdapterFileError if it is no zip archive of torch, is compressed, damaged or hostile, if its pickle names
    anything but tensors, or if it holds several dictionaries of tensors.
    """
    try:
        with RegularFile.opened(path) as file:
            return _read(file, path)
    except PickleError as error:
        raise AdapterFileError(str(error), file=path.name, fix=error.fix) from None


def _read(file: RegularFile, path: Path) -> WeightsFile:
    head = file.bytes(0, 200)
    refuse_pointer(head, path)
    if not head.startswith(b"PK\x03\x04"):
        raise _not_zip(head, path)
    records = read_records(file, path)
    offset, size = records["data.pkl"]
    if size > MAX_PICKLE:
        raise AdapterFileError(f"has a pickle of {size:,} bytes", file=path.name, fix=HOSTILE)
    description = read_pickle(file.bytes(offset, size))
    _check_made(description, records, path)
    state, warnings = _state(description.value, path)
    tensors = {name: _tensor(name, record, records, file) for name, record in state.items()}
    if (total := sum(tensor.nbytes for tensor in tensors.values())) > MAX_SHARED * file.size:
        raise AdapterFileError(
            f"describes tensors of {total:,} bytes in a file of {file.size:,}: they are views of the same few storages",
            file=path.name,
            fix=HOSTILE,
        )
    return WeightsFile(path.name, file, tensors, warnings=warnings, nested=bool(warnings), form="torch")


def _not_zip(head: bytes, path: Path) -> AdapterFileError:
    if _LEGACY_MAGIC in head[:32]:
        return AdapterFileError(
            "is in torch's legacy format, written by torch < 1.6",
            file=path.name,
            fix="load and save it again with a newer torch, or convert to safetensors",
        )
    what = "a bare pickle" if head.startswith(b"\x80") else "not a zip archive"
    return AdapterFileError(f"is no torch checkpoint: it is {what}", file=path.name, fix="fetch the file again")


def _check_made(description: Description, records: dict[str, Extent], path: Path) -> None:
    """Raise unless every storage is there, and every tensor lies in its own: torch looks at all of them."""
    for storage in description.storages.values():
        size = _bytes(storage)
        extent = records.get(f"data/{storage.key}")
        if extent is None or extent[1] != size:
            has = "lacks" if extent is None else f"has {extent[1]:,} bytes instead of"
            raise AdapterFileError(f"{has} the {size:,} bytes of storage {storage.key}", file=path.name, fix=FETCH)
    for record in description.tensors:
        end, size = _end(record), _bytes(record.storage)
        if end > size:
            raise AdapterFileError(
                f"needs bytes up to {end:,} of a storage of {size:,} for a tensor",
                file=path.name,
                shape=record.shape,
                fix=FETCH,
            )


def _bytes(storage: Storage) -> int:
    return storage.count * (DTYPES[storage.code][0] // 8 if storage.code else 1)


def _end(record: TensorRecord) -> int:
    """Return the byte of its storage at which a tensor ends, wherever its strides lead."""
    empty = 0 in record.shape
    last = sum((size - 1) * stride for size, stride in zip(record.shape, record.strides, strict=True))
    return (record.offset + (0 if empty else last + 1)) * (DTYPES[record.code][0] // 8)


def _state(value: Any, path: Path) -> tuple[dict[str, TensorRecord], tuple[str, ...]]:
    """Return the tensors by name, of the dictionary itself or of the one in it that is read, and what to tell.

    Loaders differ in which dictionary they take, so there must be no other.
    """
    outer = _tensors(value)
    nested = _nested(value)
    if len(nested) + bool(outer) > 1:
        places = [*(["the file itself"] if outer else []), *(f"`{printable(key, 40)}`" for key in nested)]
        raise AdapterFileError(
            f"holds several dictionaries of tensors ({', '.join(places[:6])}), and loaders differ in which they take",
            file=path.name,
            fix="save the one that is meant in a file of its own",
        )
    if outer:
        return outer, ()
    inner = next((key for key in NESTED if key in nested), None)
    if inner is not None:
        _state(value[inner], path)
        note = f"{printable(path.name, 60)} holds its tensors under `{inner}`, where PEFT does not look"
        return nested[inner], (note,)
    raise AdapterFileError("holds no dictionary of tensors", file=path.name, fix=_remedy(value, list(nested), path))


def _tensors(value: Any) -> dict[str, TensorRecord]:
    return {k: v for k, v in value.items() if type(v) is TensorRecord} if isinstance(value, dict) else {}


def _nested(value: Any) -> dict[str, dict[str, TensorRecord]]:
    """Return the dictionaries of tensors directly inside a dictionary."""
    if not isinstance(value, dict):
        return {}
    found = {key: _tensors(inside) for key, inside in value.items()}
    return {key: tensors for key, tensors in found.items() if tensors}


def _remedy(value: Any, nested: list[str], path: Path) -> str:
    """Return what makes a dictionary of tensors of this file."""
    load = f'torch.load("{printable(path.name, 60)}")'
    if nested and nested[0].isidentifier():
        return f'save what is inside: torch.save({load}["{printable(nested[0], 60)}"], "adapter_model.bin")'
    if type(value) in (list, tuple):
        return (
            'give each its name, in order: names = ["base_model.model. … .lora_A.weight", …]; '
            f'torch.save(dict(zip(names, {load}, strict=True)), "adapter_model.bin")'
        )
    return "save a dictionary from names to tensors with torch.save"


def _tensor(name: str, record: TensorRecord, records: dict[str, Extent], file: RegularFile) -> StoredTensor:
    check_name(name, file.path)
    if not possible_shape(record.shape):
        raise AdapterFileError("has an impossible shape", file=file.path.name, module=name)
    itemsize = DTYPES[record.code][0] // 8
    start, _ = records[f"data/{record.storage.key}"]
    elements = _contiguous(name, record, file)
    return StoredTensor(name, record.code, record.shape, file, start + record.offset * itemsize, elements * itemsize)


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
