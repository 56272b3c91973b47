"""Which files of a folder are its weights, and opening them.

The names are those that loaders look for. A folder is resolved as the loader of its configuration resolves it, so that
what is measured is what that loader takes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from s3lora.adapter.regular import RegularFile
from s3lora.adapter.tensors import MAX_NAME, WeightsFile, read_safetensors, refuse_pointer
from s3lora.errors import AdapterFileError, printable
from s3lora.files import read_whole

if TYPE_CHECKING:
    from s3lora.adapter.model import Adapter

CONFIG = "adapter_config.json"
INDEX = ".safetensors.index.json"
#: Bytes of an index that are read; those of the largest mixtures of experts have 9 MB.
MAX_INDEX = 64 * 1024 * 1024
PROVENANCE = "s3lora.json"
#: What each loader takes, the first that is there. PEFT 0.21.2 takes no index of shards, mlx-lm 0.32.2 no `.npz`, which
#: its older versions wrote.
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
MLX_WEIGHTS = ("adapters.safetensors", "adapters.npz")
#: Names that loaders look for, in the order they are taken from a folder whose configuration names no loader.
WEIGHTS = (
    "adapter_model.safetensors",
    "adapter_model.safetensors.index.json",
    "adapters.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter_model.bin",
    "adapters.npz",
)
#: Fields that MLX writes into its configuration and PEFT does not.
_MLX_FIELDS = ("lora_parameters", "fine_tune_type", "lora_layers", "adapter_path")
TORCH = (".bin", ".pt", ".pth", ".ckpt")
#: Ends of names of weights that are taken from a folder where they are the only ones.
_OTHERS = (".npz", ".gguf", ".lora", *TORCH)
LOOKED_FOR = f"{', '.join(WEIGHTS)}, *.safetensors and one of {', '.join(f'*{suffix}' for suffix in _OTHERS)}"
#: What only resumes a training: torch writes these as pickles.
_TRAINING = re.compile(
    r"(?:optimizer|scheduler|rng_state|scaler|random_states|training_args|trainer_state|sampler)(?:[._-].*)?"
)
MAX_CONFIG = 4 * 1024 * 1024
#: Objects and lists within each other in a configuration.
MAX_NESTING = 100
MAX_SHARDS = 1024


def is_alone(adapter: Adapter) -> bool:
    """Return whether an adapter is one file whose folder is not its own: of another name, or unconfigured."""
    if adapter.path is None or adapter.path != adapter.entry:
        return False
    return adapter.config_file is None or adapter.path.name not in WEIGHTS


def is_training_state(name: str) -> bool:
    """Return whether a file of torch only resumes a training; `name` is in small letters."""
    return name.endswith(TORCH) and _TRAINING.fullmatch(name) is not None


def is_peft(config: Mapping[str, Any] | None) -> bool:
    """Return whether a configuration is of a PEFT adapter."""
    return config is not None and "peft_type" in config


def is_mlx(config: Mapping[str, Any] | None) -> bool:
    """Return whether a configuration is of an MLX adapter."""
    return config is not None and not is_peft(config) and any(field in config for field in _MLX_FIELDS)


def weights_order(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names of weights in the order they are taken from a folder with this configuration.

    >>> weights_order({"peft_type": "LORA"})[:2]
    ('adapter_model.safetensors', 'adapter_model.bin')
    """
    first = PEFT_WEIGHTS if is_peft(config) else MLX_WEIGHTS if is_mlx(config) else ()
    return (*first, *(name for name in WEIGHTS if name not in first))


def chosen(names: Collection[str], config: Mapping[str, Any] | None) -> str | None:
    """Return which of the files of a folder its weights are, None where no name tells or several may be."""
    known = next((name for name in weights_order(config) if name in names), None)
    if known is not None:
        return known
    others = [name for name in names if name.lower().endswith(".safetensors")]
    return others[0] if len(others) == 1 else None


def likely(names: Iterable[str]) -> list[str]:
    """Return the files of a folder that may be its weights where none has a known name, safetensors before others."""
    small = [(name, name.lower()) for name in names]
    return [name for name, low in small if low.endswith(".safetensors")] or [
        name for name, low in small if low.endswith(_OTHERS) and not is_training_state(low)
    ]


def weights_in(folder: Path, config: Mapping[str, Any] | None) -> Path | None:
    """Return the weights file of a folder, or its index of shards: what the loader of its configuration takes.

    None where there is none. Raises AdapterFileError where several files may be meant.
    """
    for name in weights_order(config):
        # `exists` and not `is_file`, as PEFT has it: what lies there and is no file is an error there too.
        if (folder / name).exists():
            return folder / name
    names = sorted(entry.name for entry in os.scandir(folder))
    found = likely(names)
    if len(found) > 1:
        several = ", ".join(printable(name, 60) for name in found[:6])
        raise AdapterFileError(f"holds {len(found)} weights files ({several})", file=folder, fix="name one of them")
    return folder / found[0] if found else None


def folder_of(folder: Path, name: str) -> Path | None:
    """Return the folder of the adapter `name` within a folder, None where there is none that holds weights."""
    if Path(name).name != name or name in ("", ".", ".."):
        return None
    inner = folder / name
    return inner if inner.is_dir() and any((inner / weights).exists() for weights in WEIGHTS) else None


def raw_config(path: Path) -> bytes:
    """Return the bytes of a configuration; raise AdapterFileError if it is too long or a pointer."""
    raw = read_whole(path, MAX_CONFIG, AdapterFileError, label=path.name)
    refuse_pointer(raw[:200], path)
    return raw


def parsed_config(raw: bytes, label: str) -> dict[str, Any]:
    """Return the JSON object of a configuration; raise AdapterFileError if it is none."""
    try:
        config = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterFileError(f"is not valid JSON: {printable(error)}", file=label) from None
    if not isinstance(config, dict):
        raise AdapterFileError("must hold a JSON object", file=label)
    # What can just be read could be too deep to write, which happens deeper in the program.
    values: list[Any] = [config]
    for _ in range(MAX_NESTING):
        inner = (value.values() if isinstance(value, dict) else value for value in values)
        values = [one for several in inner for one in several if isinstance(one, dict | list)]
        if not values:
            return config
    raise AdapterFileError(f"has values more than {MAX_NESTING} deep within each other", file=label)


def open_weights(weights: Path) -> tuple[WeightsFile, ...]:
    """Open a weights file, or the shards of an index, which lie beside it.

    Raises AdapterFileError for what cannot be read, UnsupportedAdapterError for numbers of a type that is not.
    """
    if weights.name.endswith(INDEX):
        return _open_shards(weights)
    form = _form(weights)
    if form == "torch":
        from s3lora.adapter.torch_zip import read_torch

        return (read_torch(weights),)
    if form == "npz":
        from s3lora.adapter.npz import read_npz

        return (read_npz(weights),)
    if form == "gguf":
        from s3lora.adapter.gguf import read_gguf

        return (read_gguf(weights),)
    return (read_safetensors(weights),)


def _form(weights: Path) -> str:
    """Return what kind of file weights are: by their name, and by their first bytes where it is none of the usual."""
    suffix = weights.suffix.lower()
    if suffix in (".npz", ".gguf"):
        return suffix[1:]
    if suffix in TORCH:
        return "torch"
    if suffix != ".safetensors":
        file = RegularFile(weights)
        head = file.bytes(0, 4)
        file.close()
        return {b"PK\x03\x04": "torch", b"GGUF": "gguf"}.get(head, "safetensors")
    return "safetensors"


def shard_names(index: Path) -> tuple[str, ...]:
    """Return the names of the shards of an index, in order; raise AdapterFileError if it is none."""
    return tuple(sorted(set(weight_map(index).values())))


def weight_map(index: Path) -> dict[str, str]:
    """Return which shard holds which tensor; raise AdapterFileError if the file tells none, or of one elsewhere."""
    raw = read_whole(index, MAX_INDEX, AdapterFileError, label=index.name)
    refuse_pointer(raw[:200], index)
    table = parsed_config(raw, index.name).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise AdapterFileError("has no `weight_map` from tensors to files", file=index.name)
    names = sorted(set(table.values()))
    if len(names) > MAX_SHARDS:
        raise AdapterFileError(f"names {len(names)} shards", file=index.name)
    for name in names:
        if Path(name).name != name or not name.isprintable() or name in ("", ".", "..") or len(name) > 255:
            raise AdapterFileError(f"names a shard outside the folder: {printable(name)}", file=index.name)
    if any(not name.isprintable() or len(name) > MAX_NAME for name in table):
        raise AdapterFileError("holds a tensor whose name no model can have", file=index.name)
    return table


def _open_shards(index: Path) -> tuple[WeightsFile, ...]:
    table = weight_map(index)
    with ExitStack() as opened:
        files = [opened.enter_context(closing(read_safetensors(index.parent / name))) for name in shard_names(index)]
        present = {tensor for file in files for tensor in file.tensors}
        if missing := sorted(set(table) - present):
            what = f"lists {len(missing)} tensors that are in no shard"
            raise AdapterFileError(what, file=index.name, module=missing[0])
        opened.pop_all()  # all is well: they stay open
    return tuple(files)
