"""The entries of a folder and of the folders in it: bounded, in order, and no link followed that leads out."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3lora.adapter.folder import DEEPEST, is_blob
from s3lora.errors import printable

#: Entries that are listed, folders that are looked into, and entries that are counted.
MAX_FILES = 10_000
MAX_FOLDERS = 10_000
MAX_COUNTED = 1_000_000
#: Folders of version control: their files are no part of an adapter, and are many.
VERSION_CONTROL = (".git", ".hg", ".svn", ".bzr")


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """An entry of the folder: where it lies, and its path in the folder with slashes.

    What is no file to be read (`regular` is False) has a `note` that says what it is; that of a folder ends in a slash.
    `changed` is when it was last written, in ns.
    """

    path: Path
    name: str
    size: int
    regular: bool = True
    note: str = ""
    changed: int = 0

    @property
    def folder(self) -> str:
        """Return the path of the folder it lies in, empty for the outermost."""
        return self.name.rstrip("/").rpartition("/")[0]

    @property
    def basename(self) -> str:
        """Return its name without folders, in small letters."""
        return self.name.rstrip("/").rpartition("/")[2].lower()


def walk(root: Path) -> tuple[list[FolderEntry], int]:
    """Return the entries of a folder, those of the outermost first, and how many are not listed.

    Where there are too many, those that may hold weights or code come before others. A folder that cannot be read is
    an entry with a note.
    """
    real = Path(os.path.realpath(root))
    found: list[FolderEntry] = []
    unlisted = 0
    count = _Counter()
    waiting = [(root, "", 0)]
    for folder, prefix, depth in waiting:
        before = count.entries
        try:
            with os.scandir(folder) as entries:
                room = MAX_FILES - len(found)
                names = heapq.nsmallest(max(1, room), count.over(entries), key=_urgency)[: max(0, room)]
        except OSError as error:
            found.append(FolderEntry(folder, prefix or "./", 0, False, f"cannot be listed ({error.strerror})"))
            continue
        unlisted += count.entries - before - len(names)
        for entry in sorted(names, key=lambda one: one.name):
            made = _entry(entry, folder / entry.name, prefix, depth, real)
            if made is not None:
                found.append(made)
            elif len(waiting) < MAX_FOLDERS:
                waiting.append((folder / entry.name, f"{prefix}{printable(entry.name, 255)}/", depth + 1))
            else:
                unlisted += 1
    return found, unlisted


class _Counter:
    """Counts the entries of all folders, and ends where there is no end of them."""

    def __init__(self) -> None:
        self.entries = 0

    def over(self, entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            self.entries += 1
            yield entry
            if self.entries >= MAX_COUNTED:
                return


_URGENT = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".gguf", ".json", ".pkl", ".joblib", ".py", ".jinja")


def _urgency(entry: os.DirEntry[str]) -> tuple[bool, str]:
    return not entry.name.lower().endswith(_URGENT), entry.name


def _entry(entry: os.DirEntry[str], path: Path, prefix: str, depth: int, root: Path) -> FolderEntry | None:
    """Return an entry, None for a folder to look into."""
    name = prefix + printable(entry.name, 255)
    try:
        if entry.is_symlink():
            return _link(path, name, root)
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return FolderEntry(path, name, 0, False, f"cannot be read ({error.strerror})")
    if stat.S_ISDIR(status.st_mode):
        if entry.name in VERSION_CONTROL:
            return FolderEntry(path, f"{name}/", 0, False, "version control, not looked into")
        if depth + 1 >= DEEPEST:
            return FolderEntry(path, f"{name}/", 0, False, f"a folder {DEEPEST} levels down, not looked into")
        return None
    if not stat.S_ISREG(status.st_mode):
        return FolderEntry(path, name, 0, False, f"{_special(status.st_mode)}, not opened")
    return FolderEntry(path, name, status.st_size, changed=status.st_mtime_ns)


def _link(path: Path, name: str, root: Path) -> FolderEntry:
    real = Path(os.path.realpath(path))
    try:
        status = os.stat(real)
    except (OSError, ValueError):
        return FolderEntry(path, name, 0, False, "a link that leads nowhere")
    if stat.S_ISDIR(status.st_mode):
        return FolderEntry(path, f"{name}/", 0, False, "a link to a folder, not followed")
    if not (real.is_relative_to(root) or is_blob(real, root)):
        return FolderEntry(path, name, status.st_size, False, "a link out of the folder, not followed")
    if not stat.S_ISREG(status.st_mode):
        return FolderEntry(path, name, 0, False, f"a link to {_special(status.st_mode)}, not opened")
    return FolderEntry(path, name, status.st_size, changed=status.st_mtime_ns)


def _special(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a disk"))
    return next((text for test, text in kinds if test(mode)), "a device")
