"""Adapter → Inventory."""

from __future__ import annotations

from collections.abc import Mapping

from s3lora.adapter.formats.peft_notes import changed_base, replicates
from s3lora.adapter.inventory.applied import unapplied_of
from s3lora.adapter.inventory.files import list_files
from s3lora.adapter.inventory.loaders import choices
from s3lora.adapter.inventory.model import Inventory
from s3lora.adapter.inventory.tensors import other_names, tensors_of
from s3lora.adapter.inventory.values import FileValues, TensorValues
from s3lora.adapter.model import Adapter
from s3lora.adapter.regular import CHUNK
from s3lora.adapter.weights import is_alone


def inventory_of(adapter: Adapter, values: Mapping[str, TensorValues] | None = None) -> Inventory:
    """Return all that is in an adapter.

    Parameters:
        adapter: an opened adapter, or one in memory.
        values: what a pass over its files found in the tensors; None reads them for it.

    Raises AdapterFileError where a file cannot be read.
    """
    tensors = tensors_of(adapter, read_values(adapter) if values is None else values)
    files, unlisted = list_files(adapter)
    return Inventory(
        tensors=tensors,
        files=files,
        loaders=choices(adapter, files),
        unapplied=unapplied_of(adapter, tensors),
        unlisted=unlisted,
        base_changed=changed_base(adapter.config) or ("layer_replication" if replicates(adapter.config) else None),
        alone=is_alone(adapter),
    )


def read_others(adapter: Adapter) -> dict[str, TensorValues]:
    """Read the tensors that no factor is made of, and return what is in them, without digests."""
    others = other_names(adapter)
    found: dict[str, TensorValues] = {}
    for weights in adapter.files:
        for tensor in weights.tensors.values():
            if tensor.name in others:
                values, end = FileValues([tensor], frozenset()), sum(tensor.key)
                for at in range(tensor.offset, end, CHUNK):
                    values.see(at, weights.file.fresh(at, min(CHUNK, end - at)))
                values.end()
                found |= values.found
    return found


def read_values(adapter: Adapter) -> dict[str, TensorValues]:
    """Read the weights once, and return what is in each tensor."""
    found: dict[str, TensorValues] = {}
    for weights in adapter.files:
        values = FileValues([*weights.tensors.values()], other_names(adapter))
        for at in range(0, weights.file.size, CHUNK):
            values.see(at, weights.file.fresh(at, min(CHUNK, weights.file.size - at)))
        values.end()
        found |= values.found
    return found
