"""Where an adapter lies, told without saying where on this machine: relative to the working directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import quote, unquote, unquote_to_bytes

from s3lora.errors import printable

#: Names that are kept of a file outside of the working directory: its own, its folder's, and that of the collection.
NAMES = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder: `uri` is relative and percent-encoded.

    `outside` tells that it does not lie in the working directory; then only its last names are kept.
    """

    uri: str
    outside: bool = False

    @property
    def here(self) -> bool:
        """Return whether there is such a file in the working directory."""
        return not self.outside and os.path.lexists(os.fsdecode(unquote_to_bytes(self.uri)))

    @property
    def shown(self) -> str:
        """Return the path for people."""
        return printable(unquote(self.uri), 240)

    def beside(self, name: str) -> Place:
        """Return the file of this name in the same folder."""
        folder = self.uri.rpartition("/")[0]
        return Place(f"{folder}/{quote(name)}" if folder else quote(name), self.outside)


def names_for(paths: Iterable[str]) -> int:
    """Return how many last names of a file tell adapters outside of the working directory apart, 3 or more."""
    folders = {os.path.realpath(path if os.path.isdir(path) else os.path.dirname(path)) for path in paths}
    parts = [PurePath(folder).parts for folder in folders]
    most = max(map(len, parts), default=0)
    return next((n for n in range(NAMES, most + 1) if len({one[1 - n :] for one in parts}) == len(parts)), NAMES)


def place_of(path: str, file: str | None = None, names: int = NAMES) -> Place:
    """Return the place of `path`, or of `file` in it where it is a folder.

    Outside of the working directory a file keeps so many `names`, a folder one less.
    """
    full = os.path.join(path, file) if file is not None and os.path.isdir(path) else path
    for real in (os.path.abspath, os.path.realpath):
        inside = _relative(real(full), real(os.curdir))
        if inside is not None:
            return Place(_uri(inside))
    # The realpath, so that `.` and `..` have names.
    kept = names - os.path.isdir(full)
    return Place(_uri(os.path.join(*PurePath(os.path.realpath(full)).parts[-kept:])), outside=True)


def same(first: str, second: str) -> bool:
    """Return whether two relative URIs can be of one file, seen from two working directories.

    They are equal, or one is the end of the other and has two names at least: a bare `adapter_model.safetensors` is the
    end of every adapter's.
    """
    a, b = first.split("/"), second.split("/")
    common = min(len(a), len(b))
    return first == second or (common > 1 and a[-common:] == b[-common:])


def _relative(path: str, start: str) -> str | None:
    try:
        relative = os.path.relpath(path, start)
    except ValueError:  # another drive
        return None
    return None if PurePath(relative).parts[:1] == (os.pardir,) else relative


def _uri(path: str) -> str:
    # Bytes, because a name need not be text.
    return quote(os.fsencode(path.replace(os.sep, "/")))
