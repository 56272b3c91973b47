"""A file that holds weights, or may, and was not measured → what it is, and how it relates to those that were."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from s3lora.adapter.inventory import kinds
from s3lora.adapter.inventory.contents import Measured, opened_all
from s3lora.adapter.inventory.files_read import FileReader, OpenedFile
from s3lora.adapter.inventory.model import InventoryFile, Sameness
from s3lora.adapter.inventory.pickles import looks_like_pickle
from s3lora.adapter.inventory.walk import FolderEntry
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import shard_names
from s3lora.errors import AdapterFileError, S3LoRAError, printable

#: Names of the parts of a file, `model-00001-of-00003.safetensors`.
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.(?:safetensors|bin))")


class WeightsReader:
    """Compares the weights of one folder with those that were measured."""

    def __init__(self, adapter: Adapter, entries: Iterable[FolderEntry], reader: FileReader) -> None:
        """Take the adapter, and the entries of its folder that are not another adapter's."""
        self._reader = reader
        self._adapter = adapter
        self._made: Measured | None = None
        #: Of shards and their index: what the files together are.
        self._groups: dict[Path, tuple[Sameness, str]] = {}
        self._own = {entry.path for entry in entries}
        self._find_groups([entry for entry in entries if entry.regular])

    def close(self) -> None:
        """Forget what was found."""
        self._groups.clear()

    def file(self, entry: FolderEntry) -> InventoryFile | None:
        """Return what a file is that may hold weights, None if it is none of those."""
        if entry.path in self._groups:
            content, note = self._groups[entry.path]
            return InventoryFile(path=entry.name, role="other weights", bytes=entry.size, content=content, note=note)
        name = entry.basename
        try:
            with self._reader.opened(entry) as opened:
                if name.endswith(kinds.TORCH):
                    return self._torch(opened)
                if name.endswith(kinds.WEIGHTS) or kinds.is_safetensors(opened.head, opened.file.size):
                    return self._other(opened)
        except AdapterFileError as error:
            if name.endswith((*kinds.TORCH, *kinds.WEIGHTS)):
                return _unreadable(entry, error)
        return None

    def _find_groups(self, entries: list[FolderEntry]) -> None:
        measured = {file.file.path for file in self._adapter.files}
        parts: dict[tuple[Path, str, str, str], list[FolderEntry]] = defaultdict(list)
        by_path = {entry.path: entry for entry in entries if entry.path not in measured}
        for entry in by_path.values():
            if entry.basename.endswith(kinds.INDEXES) and entry.path != self._adapter.entry:
                try:
                    names = shard_names(entry.path)
                except S3LoRAError:
                    continue
                shards = [entry.path.parent / name for name in names]
                self._compare_group([entry.path, *shards], shards, f"of {entry.basename}")
            elif match := _PART.fullmatch(entry.basename):
                parts[(entry.path.parent, match[1], match[2], match[3])].append(entry)
        for (_, _, total, _), group in parts.items():
            paths = [entry.path for entry in group if entry.path not in self._groups]
            if len(paths) == int(total):
                self._compare_group(paths, paths, f"one of {len(paths)} parts")

    def _compare_group(self, members: list[Path], shards: list[Path], what: str) -> None:
        try:
            if not {*shards} <= self._own:
                raise AdapterFileError("a shard is missing")
            files = opened_all(shards)
        except S3LoRAError as error:
            found: tuple[Sameness, str] = ("unreadable", f"{what}: {printable(error.problem)}")
        else:
            content, note = self._measured().compare(files)
            found = content, f"{what}: {note}" if note else what
            for file in files:
                file.close()
        measured = {file.file.path for file in self._adapter.files}
        self._groups.update({path: found for path in members if path not in measured})

    def _measured(self) -> Measured:
        if self._made is None:
            self._made = Measured(self._adapter)
        return self._made

    def _torch(self, opened: OpenedFile) -> InventoryFile | None:
        """Return what a file of torch is: weights if it only rebuilds tensors, and else a pickle."""
        entry, size = opened.entry, opened.file.size
        text = kinds.imports_of(opened.head.decode("utf-8", "replace")) if entry.basename.endswith(".pth") else None
        if text is not None and size <= len(opened.head):
            return InventoryFile(path=entry.name, role="code", bytes=size, runs=text, note="a path file of Python")
        training = kinds.is_training_state(entry.basename)
        own = entry.path in self._own
        found = self._compared(entry)
        if own and found.content != "unreadable" and not training:
            return found
        # What is no zip archive is unpickled by torch, whatever it begins with.
        zipped = opened.head.startswith(b"PK")
        pickled = self._reader.pickle(opened, named=training or not zipped)
        if pickled is None:
            return found
        runs, note = pickled
        if training or runs or (not zipped and looks_like_pickle(opened.head, size)):
            why = note or ("" if training else found.note)
            return InventoryFile(path=entry.name, role="pickle", bytes=size, runs=runs, note=why)
        return found

    def _other(self, opened: OpenedFile) -> InventoryFile:
        entry = opened.entry
        pickled = None
        if opened.head[:1] == b"\x80" or opened.head.startswith((b"PK", b"\x93NUMPY")):
            pickled = self._reader.pickle(opened, named=False)
        if pickled is not None:
            runs, note = pickled
            return InventoryFile(path=entry.name, role="pickle", bytes=opened.file.size, runs=runs, note=note)
        return self._compared(entry)

    def _compared(self, entry: FolderEntry) -> InventoryFile:
        def made(content: Sameness, note: str) -> InventoryFile:
            return InventoryFile(path=entry.name, role="other weights", bytes=entry.size, content=content, note=note)

        if entry.path not in self._own:  # another adapter's, which is not compared
            return made("different", "")
        if self._measured().is_file(entry.path):
            return made("same", "the same file under another name")
        if not entry.basename.endswith((*kinds.READ, *kinds.TORCH)):
            suffix = printable(entry.basename.rpartition(".")[2], 20)
            return made("unreadable", f"s3lora reads no .{suffix} files")
        try:
            files = opened_all([entry.path])
        except S3LoRAError as error:
            return _unreadable(entry, error)
        try:
            return made(*self._measured().compare(files))
        finally:
            for file in files:
                file.close()


def _unreadable(entry: FolderEntry, error: S3LoRAError) -> InventoryFile:
    note = printable(error.problem, 200)
    return InventoryFile(path=entry.name, role="other weights", bytes=entry.size, content="unreadable", note=note)
