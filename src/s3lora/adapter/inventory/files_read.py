"""A file that is no weights → what it is, and what it would run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from s3lora.adapter.inventory import kinds
from s3lora.adapter.inventory.model import FileRole, InventoryFile
from s3lora.adapter.inventory.walk import FolderEntry
from s3lora.adapter.regular import RegularFile
from s3lora.errors import AdapterFileError, printable

if TYPE_CHECKING:
    from s3lora.adapter.inventory.configs import ConfigFindings

HEAD = 4096
#: Most bytes of a template or a text that is read, bytes of configurations and characters of templates that are
#: parsed in one folder.
MAX_TEXT = 1024 * 1024
MAX_PARSED = 64 * 1024 * 1024
MAX_TEMPLATES = 512 * 1024
#: Names that are told of one file, those that are often misused before others.
MAX_TOLD = 50
_MISUSED = frozenset(
    (
        *(
            "os",
            "posix",
            "nt",
            "subprocess",
            "sys",
            "builtins",
            "__builtin__",
            "shutil",
            "socket",
            "runpy",
            "importlib",
        ),
        *("ctypes", "pty", "commands", "webbrowser", "code", "pickle", "operator", "functools", "types", "marshal"),
        *("asyncio", "multiprocessing", "pathlib", "tempfile", "urllib", "requests", "http", "ssl", "pip", "timeit"),
        *("platform", "imp", "pdb", "bdb", "profile", "cProfile", "doctest", "idlelib", "distutils", "setuptools"),
    )
)


class OpenedFile:
    """A file while it is looked at: its bytes, and its first ones."""

    def __init__(self, entry: FolderEntry, file: RegularFile) -> None:
        """Read the first bytes."""
        self.entry, self.file = entry, file
        self.head = file.bytes(0, HEAD)


class FileReader:
    """Reads files of one folder within bounds that they share."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._parsed = self._template_text = 0
        self._budget: object = None

    @contextmanager
    def opened(self, entry: FolderEntry) -> Iterator[OpenedFile]:
        """Open a regular file; raise AdapterFileError where it cannot be read."""
        file = RegularFile(entry.path)
        try:
            yield OpenedFile(entry, file)
        finally:
            file.close()

    def file(self, entry: FolderEntry) -> InventoryFile:
        """Return what a file is that is no weights."""
        try:
            with self.opened(entry) as opened:
                return self._file(opened)
        except AdapterFileError as error:
            role = self._by_name(entry.basename, b"")
            return InventoryFile(path=entry.name, role=role, bytes=entry.size, note=printable(error.problem))

    def pickle(self, opened: OpenedFile, *, named: bool) -> tuple[tuple[str, ...], str] | None:
        """Return what the pickles in a file name besides what rebuilds tensors, and a note; None if it holds none."""
        from s3lora.adapter.inventory.archives import ByteView, pickles_in
        from s3lora.adapter.inventory.pickle_source import PickleBudget
        from s3lora.adapter.torch_pickle import KNOWN

        if not isinstance(self._budget, PickleBudget):
            self._budget = PickleBudget()
        found = pickles_in(ByteView(opened.file.bytes, opened.file.size), self._budget, named=named)
        return None if found is None else (_told(found.names - KNOWN), found.note)

    def _file(self, opened: OpenedFile) -> InventoryFile:
        entry, name, head = opened.entry, opened.entry.basename, opened.head

        def made(role: FileRole, runs: Iterable[str] = (), note: str = "") -> InventoryFile:
            return InventoryFile(path=entry.name, role=role, bytes=opened.file.size, runs=tuple(runs), note=note)

        named = name.endswith(kinds.PICKLES)
        if named or _may_be_pickle(head):
            found = self.pickle(opened, named=named)
            if found is not None:
                return made("pickle", *found)
        role = self._by_name(name, head)
        if role == "code":
            return made(role)
        if name.endswith(kinds.TEMPLATES):
            return made("tokenizer", *self._template(opened))
        if name.endswith(".json") and not kinds.DATA.fullmatch(name):
            runs, note = self._json(opened)
            return made("configuration" if runs and role == "other" else role, runs, note)
        if name.endswith(kinds.YAML):
            from s3lora.adapter.inventory.configs import read_yaml

            runs = _listed(read_yaml(opened.file.bytes(0, MAX_TEXT).decode("utf-8", "replace")))
            return made("configuration" if runs else role, runs)
        return self._archive(opened, made("other")) if role == "other" else made(role)

    def _by_name(self, name: str, head: bytes) -> FileRole:
        if kinds.is_code(name, head):
            return "code"
        if kinds.is_tokenizer(name):
            return "tokenizer"
        return "configuration" if kinds.is_configuration(name) else "other"

    def _archive(self, opened: OpenedFile, other: InventoryFile) -> InventoryFile:
        if not _may_be_packed(opened.head):
            return other
        from s3lora.adapter.inventory.archives import ByteView, is_archive, is_closed, member_names

        if is_closed(opened.head):
            return replace(other, runs=("an archive of a kind that is not unpacked",))
        if not is_archive(opened.head):
            return other
        names = member_names(ByteView(opened.file.bytes, opened.file.size))
        if any(kinds.is_code(name.lower(), b"") for name in names):
            return replace(other, role="code", note="an archive that holds code")
        return replace(other, note="an archive, not unpacked")

    def _json(self, opened: OpenedFile) -> tuple[tuple[str, ...], str]:
        from s3lora.adapter.inventory.configs import MAX_CONFIG, read_config

        size = opened.file.size
        self._parsed += size
        if size > MAX_CONFIG or self._parsed > MAX_PARSED:
            # what is not read may point to anything, but few would put that into a file of data
            long = f"{size:,} bytes, which were not parsed"
            return ((long,), "") if opened.entry.basename.endswith("config.json") else ((), long)
        found = read_config(opened.file.bytes(0, size), opened.entry.basename)
        told = [*_listed(found)]
        notes = [found.note] if found.note else []
        for source in found.templates:
            runs, note = self._reaches(source)
            told.extend(f"chat template: {text}" for text in runs)
            notes.extend([note] if note else [])
        return tuple(dict.fromkeys(told)), "; ".join(dict.fromkeys(notes))

    def _template(self, opened: OpenedFile) -> tuple[tuple[str, ...], str]:
        return self._reaches(opened.file.bytes(0, MAX_TEXT).decode("utf-8", "replace"))

    def _reaches(self, source: str) -> tuple[tuple[str, ...], str]:
        from s3lora.adapter.inventory.templates import reaches

        self._template_text += len(source)
        if self._template_text > MAX_TEMPLATES:
            return (f"a template of {len(source):,} characters, which was not parsed: there are too many",), ""
        return reaches(source)


def _listed(found: ConfigFindings) -> tuple[str, ...]:
    """Return what a configuration points to, with a last entry for those that are not named."""
    return (*found.runs, *([f"and {found.more} more"] if found.more else []))


def _may_be_pickle(head: bytes) -> bool:
    """Return whether it is worth looking closer: by the first bytes of pickles, archives and what is compressed."""
    return head[:1] in (b"\x80", b"c", b"(", b"i", b"]", b"}") or _may_be_packed(head) or head[:6] == b"\x93NUMPY"


def _may_be_packed(head: bytes) -> bool:
    return (
        head[:1] in (b"P", b"\x1f", b"\x78", b"B", b"\xfd", b"\x5d", b"7", b"R", b"\x28", b"\x04")
        or head[148:156].strip(b" \0").isdigit()  # the sum in the header of a tar archive
    )


def _told(names: Iterable[str]) -> tuple[str, ...]:
    ranked = sorted(names, key=lambda name: (name.split(".")[0] not in _MISUSED, name))
    more = (f"and {len(ranked) - MAX_TOLD} more",) if len(ranked) > MAX_TOLD else ()
    return (*ranked[:MAX_TOLD], *more)
