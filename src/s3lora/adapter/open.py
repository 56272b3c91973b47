"""Path → Adapter: find the weights and the configuration, and let the first format that recognises them read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from s3lora.adapter.formats import FORMATS, StoredAdapter, several
from s3lora.adapter.formats.base import GATHER
from s3lora.adapter.formats.others import nothing_found
from s3lora.adapter.formats.peft import refuse_other_types
from s3lora.adapter.hub import HUB, WEB
from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.model import Adapter
from s3lora.adapter.places import absent, without_weights
from s3lora.adapter.tensor import Tensor
from s3lora.adapter.tensors import WeightsFile
from s3lora.adapter.weights import CONFIG, LOOKED_FOR, folder_of, open_weights, parsed_config, raw_config, weights_in
from s3lora.adapter.written_by import written_by
from s3lora.arguments import checked
from s3lora.errors import AdapterFileError, NothingToAuditError, S3LoRAError, UsageError, printable
from s3lora.files import reason


@checked
def open_adapter(path: str | os.PathLike[str], adapter: str | None = None) -> Adapter:
    """Open a LoRA adapter: a folder, or one weights file, such as `.safetensors`, `.bin`, `.npz`, `.gguf`, or an index.

    Only headers are read: a factor is read when it is used. The adapter is a context manager, which closes the files.

    Examples:
        >>> import s3lora
        >>> with s3lora.open_adapter("my-adapter") as adapter:
        ...     adapter.format, len(adapter.modules), adapter.modules[0].rank
        ('peft', 120, 8)

    Parameters:
        path: the folder or file.
        adapter: which one, where a file holds several under the names that PEFT gave them, or a folder has a folder for
            each.

    Raises:
        AdapterFileError: a file is missing, unreadable, malformed or hostile.
        UnsupportedAdapterError: the adapter is of a kind that is not read.
        NothingToAuditError: no weights, or no LoRA tensors among them.
    """
    return _located(path, adapter, strict=True)


def open_one(path: str | os.PathLike[str], adapter: str | None) -> Adapter:
    """Open an adapter as `open_adapter` does; the name counts only where one file holds several.

    For work on many adapters of which some lie so: a folder beside the file is an adapter of its own there.
    """
    return _located(path, adapter, strict=False)


@contextmanager
def opening(adapter: Adapter | str | os.PathLike[str], *, kept: bool = False) -> Iterator[Adapter]:
    """Give an adapter that is open already and stays so, or one that is closed afterwards; raises as `open_adapter`.

    Where it is `kept`, a result goes on reading from it: it is closed where making the result raises, and otherwise
    when the result is forgotten.
    """
    if isinstance(adapter, Adapter):
        yield adapter
        return
    with ExitStack() as stack:
        yield stack.enter_context(open_adapter(adapter))
        if kept:
            stack.pop_all()


def names_for(names: Sequence[str], count: int) -> list[str | None]:
    """Return which adapter to take of each of so many paths: one name is for all of them, none for the only one.

    Raises UsageError for another number of names.
    """
    if len(names) > 1 and len(names) != count:
        raise UsageError(f"{len(names)} names for {count} adapters", fix="give one name for all, or one for each")
    return [*names] if len(names) > 1 else [names[0] if names else None] * count


def _located(path: str | os.PathLike[str], picked: str | None, *, strict: bool) -> Adapter:
    if not os.fspath(path):
        raise AdapterFileError("no adapter has an empty path", fix="an unset variable in a shell gives one")
    try:
        if os.fspath(path).startswith((HUB, *WEB)):
            raise absent(os.fspath(path))
        return _open(Path(path), picked, strict=strict)
    except S3LoRAError as error:
        error.adapter = os.fspath(path)
        raise
    except OSError as error:  # a folder that may not be listed or entered
        raise AdapterFileError(f"cannot be read ({reason(error)})", file=os.fspath(path)) from None


def _open(location: Path, picked: str | None, *, strict: bool) -> Adapter:
    whole = _is_folder(location)
    if strict and whole and picked is not None and (inner := folder_of(location, picked)) is not None:
        location, picked = inner, None
    config_file = _config_file(location if whole else location.parent)
    raw = None if config_file is None else raw_config(config_file)
    config = None if raw is None or config_file is None else parsed_config(raw, config_file.name)
    weights = weights_in(location, config) if whole else location
    if weights is None:
        raise without_weights(location, LOOKED_FOR)
    files = open_weights(weights)
    with ExitStack() as stack:
        for file in files:
            stack.callback(file.close)
        if not strict and len(several.adapter_names(name for file in files for name in file.tensors)) < 2:
            picked = None
        left_out: tuple[str, ...] = ()
        if picked is not None:
            files, left_out = _only(picked, files, weights.name)
        adapter = _assemble(location, weights, files, config, config_file, raw)
        if picked is not None:
            adapter = dataclasses.replace(adapter, picked=picked, warnings=(*adapter.warnings, *left_out))
        stack.pop_all()  # they stay open as long as the adapter
        return adapter


def _only(picked: str, files: tuple[WeightsFile, ...], label: str) -> tuple[tuple[WeightsFile, ...], tuple[str, ...]]:
    """Return the files with the tensors of one adapter alone, and what to say of the others."""
    merged = {name: tensor for file in files for name, tensor in file.tensors.items()}
    mine = several.only(merged, picked, label)
    others = sorted(several.adapter_names(merged).keys() - several.adapter_names(mine).keys())
    notes = (f"the adapters {printable(', '.join(others), 200)} of the same file are left out",) if others else ()
    kept = (
        dataclasses.replace(file, tensors={name: one for name, one in file.tensors.items() if name in mine})
        for file in files
    )
    return tuple(kept), notes


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
    label = config_file.name if config_file else CONFIG
    model = _model_config(weights) if any(file.form in ("gguf", "torch") for file in files) else None
    source = StoredAdapter(weights.name, tensors, config, label, metadata, model)
    if source.config is not None and all(tensor.shape == (0,) for tensor in tensors.values()):
        what = (
            f"all of its {len(tensors)} tensors are empty" if tensors else "holds no LoRA module, and no other tensor"
        )
        kind = AdapterFileError if any("lora_" in name for name in tensors) else NothingToAuditError
        raise kind(what, file=weights.name, fix=None if files[0].form == "gguf" else GATHER)
    refuse_other_types(source)
    for format in FORMATS:
        if format.recognises(source):
            reading = format.read(source)
            break
    else:
        peft = source.config is not None and "peft_type" in source.config
        raise nothing_found([*tensors], source.label, source.config_label if peft else None)
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
        warnings=(*reading.warnings, *(note for file in files for note in file.warnings), *written_by(metadata)),
        removable=format.removable,
        take_inventory=inventory_of,
    )


def _model_config(weights: Path) -> dict[str, Any] | None:
    """Return the base model's configuration that lies beside weights, None where there is none that can be read."""
    path = weights.with_name("config.json")
    try:
        return parsed_config(raw_config(path), path.name) if path.is_file() else None
    except (S3LoRAError, OSError):
        return None


def _is_folder(location: Path) -> bool:
    """Return whether the adapter was given as a folder, and not as a weights file or an index of shards."""
    try:
        if location.is_dir():
            return True
        if not location.exists():
            raise absent(os.fspath(location))
    except OSError as error:
        raise AdapterFileError(f"cannot be read ({error.strerror})", file=location) from None
    return False


def _config_file(folder: Path) -> Path | None:
    return folder / CONFIG if (folder / CONFIG).exists() else None
