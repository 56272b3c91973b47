"""Walking folders, here and elsewhere, with memory for the folders that are open and no more.

Every walk yields a folder after the folders in it, so that the checkpoints of a run come before its last adapter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from s3lora.errors import AdapterFileError, S3LoRAError
from s3lora.fleet.sources.discover import (
    BASE_CONFIGS,
    HIDDEN,
    LINK,
    Adapters,
    adapters_in,
    enters,
    hidden_in,
    in_order,
    may_be_weights,
)
from s3lora.fleet.sources.protocols import retried

CONFIGS = ("adapter_config.json", *BASE_CONFIGS)
#: Keys in one answer of S3: what it gives at most.
PAGE = 1000
PathParts = tuple[str, ...]
#: A folder's path → names of its files, names of its folders. What leads to a folder and is not followed is a file
#: whose name ends in a slash.
Lister = Callable[[PathParts], tuple[list[str], list[str]]]
#: Whether a folder at these parts below the root is looked into.
Enter = Callable[[PathParts], bool]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder at `parts` below the root: its adapters, and the names that tell of them; or why it was not listed."""

    parts: PathParts
    adapters: Adapters
    names: tuple[str, ...] = ()
    error: S3LoRAError | None = None


def everywhere(parts: PathParts) -> bool:
    """Return True: every folder is looked into, for what lies in a hidden one is counted."""
    return True


def walk(lister: Lister, enter: Enter = everywhere) -> Iterator[Folder]:
    """Yield every folder below a root and the root itself, folders in natural order.

    A folder that cannot be listed is yielded with its error, the root too.
    """
    opened: list[tuple[Folder, Iterator[str]]] = [_opened(lister, ())]
    while opened:
        folder, inner = opened[-1]
        name = next(inner, None)
        if name is None:
            opened.pop()
            yield folder
        elif enter((*folder.parts, name)):
            opened.append(_opened(lister, (*folder.parts, name)))


def _opened(lister: Lister, parts: PathParts) -> tuple[Folder, Iterator[str]]:
    try:
        files, folders = lister(parts)
    except S3LoRAError as error:
        if _is_closed(parts):
            return Folder(parts, Adapters(skipped=(("", HIDDEN),))), iter(())
        return Folder(parts, Adapters(), error=error), iter(())
    return folder_of(parts, files), iter(in_order(folders))


def folder_of(parts: PathParts, files: Iterable[str]) -> Folder:
    """Return the folder with these files; of their names only those are kept that matter."""
    listed = tuple(name for name in files if name.endswith("/") or _matters(name))
    links = tuple((name, LINK) for name in listed if name.endswith("/"))
    kept = tuple(name for name in listed if not name.endswith("/"))
    if _is_closed(parts):
        return Folder(parts, hidden_in(kept), kept)
    found = adapters_in(kept)
    return Folder(parts, replace(found, skipped=(*found.skipped, *links)), kept)


def _is_closed(parts: PathParts) -> bool:
    """Return whether a folder is hidden, a cache or being written, or lies in one that is."""
    return not all(map(enters, parts))


def _matters(name: str) -> bool:
    return may_be_weights(name) or name in CONFIGS


def local_lister(root: str, *, links: int = 0) -> Lister:
    """Return a lister of folders on this machine.

    Links to files count as files. Links to folders count as folders in the first `links` levels below the root, and
    are not followed further down, where they could lead in a circle. What is neither file nor folder, such as a named
    pipe, counts as a file: who opens it is told.
    """

    def listed(parts: PathParts) -> tuple[list[str], list[str]]:
        path = os.path.join(root, *parts)
        files, folders = list[str](), list[str]()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    kind = _kind(entry)
                    if kind == "file":
                        files.append(entry.name)
                    elif kind == "folder" or (kind == "link" and len(parts) < links):
                        folders.append(entry.name)
                    else:
                        files.append(f"{entry.name}/")
        except OSError as error:
            raise AdapterFileError(f"cannot be listed ({error.strerror or error})", file=path) from None
        return files, folders

    return listed


def _kind(entry: os.DirEntry[str]) -> str:
    """Return file, folder or link (to a folder). A link that leads nowhere is a file: its adapter is told."""
    try:
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
    except OSError:  # links that lead in a circle
        pass
    return "file"


def remote_lister(system: Any, root: str, uri: str) -> Lister:
    """Return a lister of an fsspec file system, one request a folder. Its cache of listings is kept empty."""

    def listed(parts: PathParts) -> tuple[list[str], list[str]]:
        path, where = "/".join((root.rstrip("/"), *parts)), joined(uri, *parts)
        try:
            entries = retried(lambda: system.ls(path, detail=True), where)
        except FileNotFoundError:
            raise AdapterFileError("no such file or folder", file=where) from None
        finally:
            system.invalidate_cache()
        files, folders = list[str](), list[str]()
        for entry in entries:
            name = str(entry["name"]).rstrip("/")
            if name != path.rstrip("/"):  # some list the folder itself
                (folders if entry["type"] == "directory" else files).append(name.rpartition("/")[2])
        return files, folders

    return listed


def s3_keys(system: Any, path: str, uri: str) -> Iterator[str]:
    """Yield the keys below a prefix of a bucket, without the prefix, in the order of their bytes, a page at a time."""
    bucket, key, _ = system.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key.strip("/") else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": PAGE}
    while True:
        try:
            page = retried(partial(system.call_s3, "list_objects_v2", **request), uri)
        except FileNotFoundError:
            raise AdapterFileError("no such bucket", file=uri) from None
        for entry in page.get("Contents", ()):
            yield entry["Key"][len(prefix) :]
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def grouped(paths: Iterable[str], enter: Enter = everywhere) -> Iterator[Folder]:
    """Yield the folders of sorted paths of files, each after the folders in it, as soon as it is complete."""
    opened: list[tuple[PathParts, list[str]]] = [((), [])]
    for path in paths:
        *above, name = path.split("/")
        parts = tuple(above)
        if not all(enter(parts[:i]) for i in range(1, len(parts) + 1)):
            continue
        while parts[: len(opened[-1][0])] != opened[-1][0]:
            yield folder_of(*opened.pop())
        for depth in range(len(opened[-1][0]) + 1, len(parts) + 1):
            opened.append((parts[:depth], []))
        if _matters(name):
            opened[-1][1].append(name)
    while opened:
        yield folder_of(*opened.pop())


def joined(root: str, *parts: str) -> str:
    """Return a URL or path below `root`, with one slash between any two parts.

    >>> joined("runs/", "a", "final"), joined("s3://bucket", "a"), joined("", "a")
    ('runs/a/final', 's3://bucket/a', 'a')
    """
    return root + ("" if not parts or root.endswith("/") or not root else "/") + "/".join(parts)
