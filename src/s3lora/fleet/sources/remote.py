"""An adapter anywhere → one on this machine, of which only the needed bytes were fetched.

Memory: reading takes at most `MEMORY` bytes, whatever the size of the file, besides its header (`MAX_HEADER`) and
what opening an adapter takes anyway. Disk: `limit` bytes, in a temporary folder that is removed whatever happens.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from s3lora.adapter.inventory import kinds
from s3lora.adapter.inventory.walk import walk
from s3lora.adapter.weights import CONFIG, INDEX, WEIGHTS, chosen, likely, parsed_config, raw_config
from s3lora.errors import AdapterFileError, NothingToAuditError, printable
from s3lora.fleet.sources.discover import is_weights
from s3lora.fleet.sources.fetch import Copy, is_index, shards
from s3lora.fleet.sources.protocols import ChangedError, UnreachableError, local_path
from s3lora.fleet.sources.stores import CHUNK, Entry, Store, open_store

__all__ = ["CHUNK", "LIMIT", "MEMORY", "ChangedError", "Local", "UnreachableError", "localised"]

#: A chunk that is received, one that is written, and what the allocator keeps of them.
MEMORY = 3 * CHUNK
#: Most bytes that are fetched of one adapter unless another limit is given.
LIMIT = 4 * 1024**3
#: Files of a folder without weights that its fingerprint is made of, at most.
MAX_FILES = 1000
#: What the names of files elsewhere tell, and what is read by people only.
_TOLD = ("code", "pickle", "other weights")
_DOCUMENTS = (".md", ".txt")
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+=-]{0,120}")


@dataclass(frozen=True, slots=True)
class Local:
    """An adapter on this machine.

    `path` is what to open, None where the adapter is as it was. `fingerprint` changes when its files do: it is made of
    their names, their sizes and what the other side says of their content (`tag`), of their times here (`time`), or
    of nothing else (`size`), as its first word tells. `size` is that of the weights files in bytes, as stored, and
    `bytes_read` what came over the network. In a `partial` copy there are holes where a scan does not read: digests of
    its files are not those of the adapter's, nor are values of tensors that no factor is made of. `beside` tells what
    is known of other files in the folder: None where it was not looked into, as that of a weights file given by
    itself, `read` where they lie here and can be read, and otherwise their names.
    """

    path: Path | None
    fingerprint: str
    size: int
    bytes_read: int = 0
    partial: bool = False
    beside: Literal["read"] | tuple[str, ...] | None = None


@contextmanager
def localised(
    uri: str,
    *,
    unless: str | None = None,
    limit: int = LIMIT,
    follow: Sequence[str] = (),
    adapter: str | None = None,
) -> Iterator[Local]:
    """Give an adapter as something that `open_adapter` opens; a copy of what lies elsewhere is removed afterwards.

    Parameters:
        uri: a path, a URL of fsspec, or `hf://OWNER/NAME[@REVISION][/PATH]`.
        unless: a fingerprint; if the adapter still has it, `path` is None, and no more is read than an index of shards
            and, where several files may be the weights, the configuration.
        limit: most bytes to fetch.
        follow: hosts that a web server may redirect to besides itself, as `redirects.checked` returns them.
        adapter: which one is fetched, where a file holds several.

    Raises:
        UnreachableError: the network or the other side failed three times, or the file was replaced meanwhile
            (ChangedError): another try may go better.
        AdapterFileError: there is nothing, it may not be read, or it needs more than `limit` bytes.
        MissingPackageError, UsageError: the protocol's package is not installed, or nobody knows it.
        OSError: this machine's disk.

    For adapters elsewhere also what `open_adapter` raises.
    """
    path = local_path(uri)
    if path is not None:
        here = _here(path, uri)
        yield Local(None, here.fingerprint, here.size) if here.fingerprint == unless else here
        return
    store, name = open_store(uri, follow)
    entries = _entries(store, name)
    with tempfile.TemporaryDirectory(prefix="s3lora-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / _safe(uri.partition("?")[0], "adapter")
        folder.mkdir()
        copy = Copy(store, folder, limit, uri, adapter)
        weights = _weights(copy, entries, name)
        file, parts = _index(copy, entries, weights) if is_index(weights.name) else (_target(copy, weights), [weights])
        looked = [*parts, entries[CONFIG]] if CONFIG in entries else parts
        beside = _beside(entries, {one.name for one in looked}) if name is None and store.lists else None
        named = [Entry(one, None, "there") for one in beside or () if kinds.role_by_name(one.lower()) in _TOLD]
        fingerprint, size = _fingerprint([*looked, *named], "tag"), _size(parts)
        if fingerprint == unless:
            yield Local(None, fingerprint, size, copy.read)
            return
        _copy(copy, file, parts, entries.get(CONFIG))
        yield Local(folder if name is None else file, fingerprint, size, copy.read, copy.partial, beside)


def _beside(entries: Mapping[str, Entry], looked: Set[str]) -> tuple[str, ...]:
    """Return the names of the other files in an adapter's folder, in order."""
    return tuple(sorted(name for name in entries if name not in looked))


def _target(copy: Copy, weights: Entry) -> Path:
    """Return where a weights file is copied to: under its own name if that does no harm."""
    suffix = INDEX if is_index(weights.name) else weights.name[weights.name.rfind(".") :].lower()
    return copy.folder / _safe(weights.name, f"weights{suffix}")


def _index(copy: Copy, known: Mapping[str, Entry], index: Entry) -> tuple[Path, list[Entry]]:
    """Copy an index of shards; return it, and itself with the shards that are there: opening says which are not."""
    file = copy.small(index, _target(copy, index).name)
    entries = (known.get(shard) or copy.store.stat(shard) for shard in shards(file))
    return file, [index, *(entry for entry in entries if entry is not None)]


def _copy(copy: Copy, file: Path, parts: list[Entry], config: Entry | None) -> None:
    """Copy what a scan reads of the configuration and the weights."""
    if config is not None and not (copy.folder / CONFIG).exists():
        copy.small(config, CONFIG)
    if is_index(file.name):
        for shard in parts[1:]:
            copy.header(shard, copy.folder / shard.name)
        copy.tensors(file)
    elif file.suffix == ".safetensors":
        copy.header(parts[0], file)
        copy.tensors(file)
    else:
        copy.whole(parts[0], file)
    copy.confirm()


def _entries(store: Store, name: str | None) -> Mapping[str, Entry]:
    """Return the files of an adapter's folder; of a named weights file only that and the configuration."""
    if name is None:
        return store.entries()
    stated = {one: store.stat(one) for one in (name, CONFIG)}
    return {one: entry for one, entry in stated.items() if entry is not None}


def _weights(copy: Copy, entries: Mapping[str, Entry], name: str | None) -> Entry:
    """Return the weights file that `open_adapter` would take, or raise what it would."""
    if name is not None:
        if name not in entries:
            raise AdapterFileError("no such file", file=copy.label)
        return entries[name]
    config = None
    if CONFIG in entries and sum(known in entries for known in WEIGHTS) > 1:
        config = parsed_config(raw_config(copy.small(entries[CONFIG], CONFIG)), CONFIG)
    if (found := chosen(entries, config)) is not None:
        return entries[found]
    others = likely(sorted(entries))
    if len(others) == 1:
        return entries[others[0]]
    if others:
        names = ", ".join(printable(one, 60) for one in others[:6])
        raise AdapterFileError(f"holds {len(others)} weights files ({names})", file=copy.label, fix="name one of them")
    raise NothingToAuditError(f"holds no adapter weights (looked for {', '.join(WEIGHTS)})", file=copy.label)


def _fingerprint(parts: Iterable[Entry], kind: str) -> str:
    """Return the kind of a fingerprint and 128 bits of SHA-256; `size` where a part has no tag."""
    digest = hashlib.sha256()
    for entry in sorted(parts, key=lambda entry: entry.name):
        kind = kind if entry.tag else "size"
        digest.update(repr((entry.name, entry.size, entry.tag)).encode("utf-8", "backslashreplace"))
    return f"{kind}:{digest.hexdigest()[:32]}"


def _size(parts: Iterable[Entry]) -> int:
    return sum(entry.size or 0 for entry in parts if entry.name != CONFIG and not is_index(entry.name))


def _here(path: str, uri: str) -> Local:
    """Return an adapter that is on this machine: its files are looked at from outside only."""
    try:
        whole = stat.S_ISDIR(os.stat(path).st_mode)
        folder, given = (path, "") if whole else os.path.split(path)
        names = os.listdir(folder or ".") if whole or is_index(given) else [given, CONFIG]
        if whole:
            names = [name for name in names if name == CONFIG or is_weights(name)] or sorted(names)[:MAX_FILES]
        entries = {name: entry for name in names if (entry := _stat(os.path.join(folder, name))) is not None}
    except FileNotFoundError:
        raise AdapterFileError("no such file or folder", file=path or uri) from None
    except (OSError, ValueError) as error:
        raise AdapterFileError(f"cannot be read ({getattr(error, 'strerror', None) or error})", file=uri) from None
    known = [name for name in WEIGHTS if name in entries]
    taken = given or (chosen(known, _config_of(Path(folder)) if len(known) > 1 else None) if known else None)
    kept = set(entries)
    if taken is not None:
        # without reading an index, whatever lies beside it may be a shard of it
        beside = {name for name in entries if is_index(taken) and name.endswith(".safetensors")}
        kept &= {taken, CONFIG} | beside
    parts = {name: entries[name] for name in sorted(kept)}
    looked = {**_files_below(Path(path)), **parts} if whole else parts
    return Local(
        Path(path), _fingerprint(looked.values(), "time"), _size(parts.values()), beside="read" if whole else None
    )


def _files_below(folder: Path) -> dict[str, Entry]:
    """Return what an inventory reads of a folder, but for documents: nothing runs them."""
    found = (Entry(one.name, one.size, str(one.changed)) for one in walk(folder)[0])
    return {entry.name: entry for entry in found if not entry.name.lower().endswith(_DOCUMENTS)}


def _config_of(folder: Path) -> dict[str, Any] | None:
    """Return the configuration in a folder, None where there is none: opening the adapter says what is wrong."""
    try:
        return parsed_config(raw_config(folder / CONFIG), CONFIG)
    except AdapterFileError:
        return None


def _stat(path: str) -> Entry | None:
    """Return a file or where a link leads, None for what is neither."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    return Entry(os.path.basename(path), status.st_size, str(status.st_mtime_ns))


def _safe(path: str, otherwise: str) -> str:
    """Return the last part of a path if it can name a file here without harm."""
    last = path.rstrip("/").rpartition("/")[2]
    return last if _SAFE.fullmatch(last) and last != CONFIG else otherwise
