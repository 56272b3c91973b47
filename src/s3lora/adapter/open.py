"""Path → Adapter: find the weights and the configuration, and let the first format that recognises them read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from s3lora.adapter.formats import FORMATS, StoredAdapter
from s3lora.adapter.formats.peft import refuse_other_types
from s3lora.adapter.model import Adapter
from s3lora.adapter.tensor import Tensor
from s3lora.adapter.tensors import WeightsFile, read_safetensors, refuse_pointer
from s3lora.errors import AdapterFileError, NothingToAuditError, S3LoRAError, UnsupportedAdapterError, printable
from s3lora.files import read_whole

CONFIG = "adapter_config.json"
INDEX = ".safetensors.index.json"
PROVENANCE = "s3lora.json"
#: Names that loaders look for, in the order they prefer them.
WEIGHTS = (
    "adapter_model.safetensors",
    "adapter_model.safetensors.index.json",
    "adapters.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter_model.bin",
)
MAX_CONFIG = 4 * 1024 * 1024
MAX_SHARDS = 1024


def open_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Open a LoRA adapter: a folder, or one weights file (`.safetensors`, `.bin`, or an index of shards).

    Only headers are read: a factor is read when it is used. The adapter is a context manager, which closes the files.

    Examples:
        >>> import s3lora
        >>> with s3lora.open_adapter("my-adapter") as adapter:
        ...     adapter.format, len(adapter.modules), adapter.modules[0].rank
        ('peft', 120, 8)

    Raises:
        AdapterFileError: a file is missing, unreadable, malformed or hostile.
        UnsupportedAdapterError: the adapter is not LoRA, or a kind of LoRA whose update is not one B·A a module.
        NothingToAuditError: no weights, or no LoRA tensors among them.
    """
    if not os.fspath(path):
        raise AdapterFileError("no adapter has an empty path", fix="an unset variable in a shell gives one")
    try:
        return _open(Path(path))
    except S3LoRAError as error:
        error.adapter = os.fspath(path)
        raise


def _open(location: Path) -> Adapter:
    folder, weights = _locate(location)
    config_file = _config_file(folder)
    raw = None if config_file is None else _raw_config(config_file)
    config = None if raw is None or config_file is None else _config(raw, config_file.name)
    if config is not None:
        refuse_other_types(config, config_file.name if config_file else "")
    files = _open_files(folder, weights)
    try:
        return _assemble(location, weights, files, config, config_file, raw)
    except Exception:
        for file in files:
            file.close()
        raise


def _assemble(
    location: Path,
    weights: Path,
    files: tuple[WeightsFile, ...],
    config: Mapping[str, Any] | None,
    config_file: Path | None,
    config_raw: bytes | None,
) -> Adapter:
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        for name, tensor in file.tensors.items():
            if name in tensors:
                raise AdapterFileError("this tensor is in two shards", file=file.name, module=name)
            tensors[name] = tensor
        metadata.update(file.metadata)
    source = StoredAdapter(weights.name, tensors, config, config_file.name if config_file else CONFIG, metadata)
    for format in FORMATS:
        if format.recognises(source):
            reading = format.read(source)
            break
    else:
        raise _nothing(source)
    if not reading.modules:
        raise NothingToAuditError("holds no LoRA module", file=weights.name)
    return Adapter(
        name=printable(Path(os.path.realpath(location)).name, 255),
        format=format.name,
        modules=reading.modules,
        path=location,
        entry=weights,
        files=files,
        config=config,
        config_file=config_file,
        config_raw=config_raw,
        other_tensors=reading.other_tensors,
        warnings=reading.warnings + tuple(warning for file in files for warning in file.warnings),
        removable=format.removable,
    )


def _nothing(source: StoredAdapter) -> NothingToAuditError:
    """Return the error for weights that no format recognises."""
    none = f"none of its {len(source.tensors)} tensors is a LoRA factor"
    if source.config is not None and "peft_type" in source.config:
        what = f"holds no LoRA module, though {source.config_label} is of a PEFT adapter: {none}"
        return NothingToAuditError(what, file=source.label, fix="the file is incomplete, or not that adapter's")
    return NothingToAuditError(none, file=source.label, fix="give a LoRA adapter, not a whole model")


def _locate(location: Path) -> tuple[Path, Path]:
    """Return the adapter's folder and its weights file (or index of shards)."""
    try:
        if location.is_dir():
            return location, _weights_in(location)
        if not location.exists():
            raise AdapterFileError("no such file or folder", file=location)
    except OSError as error:
        raise AdapterFileError(f"cannot be read ({error.strerror})", file=location) from None
    return location.parent, location


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / name
    found = sorted(file for file in folder.iterdir() if file.suffix == ".safetensors")
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(printable(file.name, 60) for file in found[:6])
        raise AdapterFileError(f"holds {len(found)} weights files ({names})", file=folder, fix="name one of them")
    raise NothingToAuditError(
        f"holds no adapter weights (looked for {', '.join(WEIGHTS)} and *.safetensors)", file=folder
    )


def _config_file(folder: Path) -> Path | None:
    return folder / CONFIG if (folder / CONFIG).exists() else None


def _raw_config(path: Path) -> bytes:
    raw = read_whole(path, MAX_CONFIG, AdapterFileError, label=path.name)
    refuse_pointer(raw[:200], path)
    return raw


def _config(raw: bytes, label: str) -> dict[str, Any]:
    try:
        config = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterFileError(f"is not valid JSON: {printable(error)}", file=label) from None
    if not isinstance(config, dict):
        raise AdapterFileError("must hold a JSON object", file=label)
    return config


def _open_files(folder: Path, weights: Path) -> tuple[WeightsFile, ...]:
    if weights.name.endswith(INDEX):
        return _open_shards(folder, weights)
    if weights.suffix in (".bin", ".pt", ".pth"):
        from s3lora.adapter.torch_zip import read_torch

        return (read_torch(weights),)
    if weights.suffix == ".gguf":
        raise UnsupportedAdapterError("is a GGUF file", file=weights.name, fix="give the PEFT adapter it was made from")
    return (read_safetensors(weights),)


def _open_shards(folder: Path, index: Path) -> tuple[WeightsFile, ...]:
    table = _config(_raw_config(index), index.name).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise AdapterFileError("has no `weight_map` from tensors to files", file=index.name)
    names = sorted(set(table.values()))
    if len(names) > MAX_SHARDS:
        raise AdapterFileError(f"names {len(names)} shards", file=index.name)
    for name in names:
        if Path(name).name != name or not name.isprintable() or name in ("", ".", ".."):
            raise AdapterFileError(f"names a shard outside the folder: {printable(name)}", file=index.name)
    files = []
    try:
        for name in names:
            files.append(read_safetensors(folder / name))
    except Exception:
        for file in files:
            file.close()
        raise
    present = {tensor for file in files for tensor in file.tensors}
    if missing := sorted(set(table) - present):
        for file in files:
            file.close()
        raise AdapterFileError(f"lists {len(missing)} tensors that are in no shard", file=index.name, module=missing[0])
    return tuple(files)
