"""Every file of an adapter's folder, by what it is: weights, configuration, tokenizer, code, pickles, the rest.

Files are read as data and within bounds: nothing is imported, unpickled or rendered, and nothing is raised for what a
file holds. What cannot be read is told in its note.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from s3lora.adapter.checkpoints import step_of
from s3lora.adapter.inventory import kinds
from s3lora.adapter.inventory.files_read import FileReader
from s3lora.adapter.inventory.model import FileRole, InventoryFile, Sameness
from s3lora.adapter.inventory.walk import FolderEntry, walk
from s3lora.adapter.inventory.weights_read import WeightsReader
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import CONFIG, WEIGHTS, is_alone
from s3lora.errors import printable

ANOTHER = "another adapter, not measured: scan it by itself"
CHECKPOINT = "a checkpoint of the run, not measured: scan it by itself"
#: Names that make a folder in the folder an adapter, a checkpoint or a model of its own.
_OWN = frozenset(name.lower() for name in (CONFIG, "config.json", *WEIGHTS))
_WHOLE = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors", "model_index.json")


def list_files(adapter: Adapter) -> tuple[tuple[InventoryFile, ...], int]:
    """Return the files of an adapter's folder in order of their paths, and how many more there are than are listed.

    Of a weights file beside its configuration, opened by itself, they are the files of its folder, since loaders are
    given the folder. Any other file is the adapter `alone`: listed is what was read. One in memory has no files.
    """
    found, unlisted = listed(adapter)
    return tuple(sorted((file for _, file in found), key=lambda file: file.path)), unlisted


def listed(adapter: Adapter) -> tuple[list[tuple[FolderEntry, InventoryFile]], int]:
    """Return what `list_files` does, each file with its entry, in the order in which folders are walked."""
    if adapter.path is None:
        return [], 0
    if is_alone(adapter):
        entries, unlisted = [*_read_beside(adapter)], 0
    else:
        entries, unlisted = walk(adapter.path.parent if adapter.path == adapter.entry else adapter.path)
    listing = _Listing(adapter, entries)
    found = [(entry, listing.file(entry)) for entry in entries]
    listing.weights.close()
    return found, unlisted


def _read_beside(adapter: Adapter) -> Iterable[FolderEntry]:
    """Yield the files that were read of an adapter that was opened as one file."""
    paths = [file.file.path for file in adapter.files]
    if adapter.entry is not None and adapter.entry not in paths:
        paths.append(adapter.entry)
    for path in paths:
        yield FolderEntry(path, printable(path.name, 255), _size(path))
    if adapter.config_file is not None and adapter.config_raw is not None:
        yield FolderEntry(adapter.config_file, adapter.config_file.name, len(adapter.config_raw))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@dataclass(slots=True)
class _Listing:
    """The entries of one folder, and what is needed to tell what they are."""

    adapter: Adapter
    own: frozenset[str]
    read: FileReader
    weights: WeightsReader

    def __init__(self, adapter: Adapter, entries: list[FolderEntry]) -> None:
        self.adapter = adapter
        self.own = frozenset(
            entry.folder for entry in entries if entry.folder and (entry.basename in _OWN or entry.basename in _WHOLE)
        )
        self.read = FileReader()
        self.weights = WeightsReader(adapter, [entry for entry in entries if not self._of_another(entry)], self.read)

    def file(self, entry: FolderEntry) -> InventoryFile:
        """Return what an entry is."""
        size = next((file.file.size for file in self.adapter.files if file.file.path == entry.path), None)
        if size is not None:
            return InventoryFile(path=entry.name, role="weights", bytes=size)
        if not entry.regular:
            return self._unopened(entry)
        if entry.path == self.adapter.entry:
            return InventoryFile(path=entry.name, role="configuration", bytes=entry.size)
        made = self.weights.file(entry) or self.read.file(entry)
        if made.role != "other weights":
            return made
        if self._of_another(entry):
            return replace(made, role="adapter", content=None, note=ANOTHER)
        if self.adapter.format == "mlx" and step_of(entry.basename) is not None:
            return replace(made, role="adapter", content=None, note=CHECKPOINT)
        return made

    def _of_another(self, entry: FolderEntry) -> bool:
        """Return whether an entry lies in a folder that is an adapter, a checkpoint or a model of its own."""
        folder = entry.folder
        while folder:
            if folder in self.own:
                return True
            folder = folder.rpartition("/")[0]
        return False

    def _unopened(self, entry: FolderEntry) -> InventoryFile:
        """Return what an entry is that is not opened, by its name alone: a loader may open it."""
        role: FileRole = "other" if entry.name.endswith("/") else kinds.role_by_name(entry.basename)
        content: Sameness | None = "unreadable" if role == "other weights" else None
        return InventoryFile(path=entry.name, role=role, bytes=entry.size, content=content, note=entry.note)
