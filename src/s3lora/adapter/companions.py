"""Which files of an adapter's folder stay behind when it is written anew, and why."""

from __future__ import annotations

from pathlib import Path

from s3lora.adapter.formats import FORMATS, StoredAdapter
from s3lora.adapter.inventory.files import listed
from s3lora.adapter.inventory.kinds import is_training_state
from s3lora.adapter.inventory.model import InventoryFile
from s3lora.adapter.inventory.walk import FolderEntry
from s3lora.adapter.model import Adapter
from s3lora.adapter.tensors import read_safetensors
from s3lora.adapter.weights import CONFIG, INDEX, WEIGHTS
from s3lora.errors import S3LoRAError


def held_back(adapter: Adapter) -> dict[Path, str | None]:
    """Return for each file of the adapter's folder why it stays behind, None where it comes along.

    What holds weights, is a pickle, is code or points to code stays; a file that is not in the answer is beyond those
    that are looked into.
    """
    names = frozenset(name for module in adapter.modules for name in module.tensor_names)
    return {entry.path: _reason(entry, file, names) for entry, file in listed(adapter)[0]}


def _reason(entry: FolderEntry, file: InventoryFile, tensors: frozenset[str]) -> str | None:
    name = entry.basename
    if entry.name.endswith("/"):
        return file.note
    if is_training_state(name) and not file.runs:
        return "state of the training, not of the adapter"
    if file.role == "weights" or name in WEIGHTS or name.endswith(INDEX) or name.startswith("adapter_model"):
        return "weights with the modules as they were"
    if file.role in ("other weights", "adapter"):
        return _of_weights(entry.path, tensors)
    if file.role in ("pickle", "code"):
        return f"{file.role}{_told(file)}"
    return f"points to code{_told(file)}" if file.runs else None


def _told(file: InventoryFile) -> str:
    more = f" and {len(file.runs) - 1} more" if len(file.runs) > 1 else ""
    return f": {file.runs[0]}{more}" if file.runs else ""


def _of_weights(path: Path, tensors: frozenset[str]) -> str | None:
    """Return why weights stay behind; only those come along in which a look finds nothing of a LoRA module."""
    try:
        weights = read_safetensors(path)
    except S3LoRAError:
        return "may hold weights with the modules as they were"
    weights.close()
    stored = StoredAdapter(path.name, dict(weights.tensors), None, CONFIG, weights.metadata)
    lora = not tensors.isdisjoint(weights.tensors) or any(format.recognises(stored) for format in FORMATS)
    return "weights with the modules as they were" if lora else None
