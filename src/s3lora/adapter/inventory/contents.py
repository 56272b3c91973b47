"""Whether other weights hold what the measured ones hold: the same tensors, by name, dtype, shape and bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from s3lora.adapter.inventory.model import Sameness
from s3lora.adapter.model import Adapter
from s3lora.adapter.tensors import StoredTensor, WeightsFile
from s3lora.errors import AdapterFileError, S3LoRAError, printable

#: Bytes that are read for comparing in one folder: so many times the measured ones, and so many more.
TIMES, MORE = 4, 1024**3


class Measured:
    """The tensors that were measured, to compare others with."""

    def __init__(self, adapter: Adapter) -> None:
        """Take an opened adapter."""
        self._tensors = _merged(adapter.files) or {}
        self._files = {identity for file in adapter.files if (identity := _identity(file.file.path)) is not None}
        self._alone = len(adapter.files) == 1
        self._left = TIMES * sum(file.file.size for file in adapter.files) + MORE

    def is_file(self, path: Path) -> bool:
        """Return whether a path leads to the one file that was measured, under another name."""
        return self._alone and _identity(path) in self._files

    def compare(self, files: Iterable[WeightsFile]) -> tuple[Sameness, str]:
        """Return how the tensors of these files, together, relate to the measured ones, and in what they differ."""
        others = _merged(files)
        if others is None:
            return "different", "holds a tensor twice"
        if others.keys() != self._tensors.keys():
            more, less = len(others.keys() - self._tensors.keys()), len(self._tensors.keys() - others.keys())
            return "different", f"holds {more} other tensors, and {less} of the measured ones are not in it"
        for name, tensor in others.items():
            if (tensor.code, tensor.shape) != (self._tensors[name].code, self._tensors[name].shape):
                return "different", f"{printable(name, 120)} has another dtype or shape"
        if sum(tensor.nbytes for tensor in others.values()) > self._left:
            return "unreadable", "was not compared, since so much in this folder was already"
        try:
            return self._values(others)
        except S3LoRAError as error:
            return "unreadable", printable(error.problem)

    def _values(self, others: Mapping[str, StoredTensor]) -> tuple[Sameness, str]:
        for name, tensor in others.items():
            self._left -= tensor.nbytes
            if any(bytes(a) != bytes(b) for a, b in zip(tensor.chunks(), self._tensors[name].chunks(), strict=True)):
                return "different", f"{printable(name, 120)} has other values"
        return "same", ""


def _merged(files: Iterable[WeightsFile]) -> dict[str, StoredTensor] | None:
    """Return the tensors of several files, None where two have the same name."""
    found: dict[str, StoredTensor] = {}
    for file in files:
        if not found.keys().isdisjoint(file.tensors):
            return None
        found.update(file.tensors)
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def opened_all(paths: Iterable[Path]) -> tuple[WeightsFile, ...]:
    """Open several weights files, all or none; raise what the first that cannot be opened raises."""
    from s3lora.adapter.weights import open_weights

    files: list[WeightsFile] = []
    with ExitStack() as opened:
        for path in paths:
            if path.name.endswith(".index.json"):
                raise AdapterFileError("is an index among the shards", file=path.name)
            files += [opened.enter_context(closing(file)) for file in open_weights(path)]
        opened.pop_all()  # all is well: they stay open
    return tuple(files)
