"""Inputs → URIs of adapters: folders, patterns, lists, URLs and the Hub, one after the other, as they are listed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from s3lora.adapter.weights import CONFIG, WEIGHTS, chosen
from s3lora.errors import AdapterFileError, NothingToAuditError, S3LoRAError, UsageError, printable
from s3lora.fleet.sources import hub
from s3lora.fleet.sources.discover import BASE_MODEL, UNREAD, Adapters, in_order, is_weights, may_be_weights
from s3lora.fleet.sources.globs import is_pattern, matches, may_hold, split_pattern
from s3lora.fleet.sources.listing import (
    Enter,
    Folder,
    PathParts,
    everywhere,
    grouped,
    joined,
    local_lister,
    remote_lister,
    s3_keys,
    walk,
)
from s3lora.fleet.sources.lists import is_list, read_list
from s3lora.fleet.sources.protocols import file_system, local_path, protocol_of
from s3lora.outside import without_secrets

#: Called with the URI of what is skipped, and why.
OnSkip = Callable[[str, str], object]
#: Why a model that a search found is not scanned.
NO_ADAPTER = "no adapter files"


@dataclass(frozen=True, slots=True)
class Found:
    """An adapter to scan, as given or found; or an input that gave none, with the reason."""

    uri: str
    error: S3LoRAError | None = None


def expand(inputs: Sequence[str], *, on_skip: OnSkip | None = None, follow: Sequence[str] = ()) -> Iterator[Found]:
    """Yield what the inputs name, each URI once, folders in natural order with checkpoints before the last adapter.

    An input is a folder, which is searched; a pattern with `*`, `?`, `[…]` or `**`; a list (`.txt`, `.parquet`, `-`
    for standard input), whose entries are adapters, or patterns with `*`; a weights file; a URL of fsspec; or an
    address of the Hub (`hub`). An object store's keys come in the order of their bytes.

    Nothing is raised for an input: one that cannot be listed, or holds no adapter, is yielded with its error. What is
    searched and is no adapter by its name is told to `on_skip`. A list may be redirected to a host of `follow`. Where
    URIs may repeat, 16 bytes of digest are kept of each.
    """
    skip = on_skip or (lambda uri, reason: None)
    unique = len(inputs) == 1 and not is_list(inputs[0])
    seen: set[bytes] = set()
    for given in inputs:
        for found in _expand(given, skip, follow, listed=False):
            if not unique and found.error is None:
                # The same address with another password is the same adapter: results hold no secrets.
                plain, full = _digest(without_secrets(found.uri)), _digest(found.uri)
                if plain in seen:
                    if full not in seen:
                        skip(found.uri, "differs from an address before it in a secret alone")
                    continue
                seen.update((plain, full))
            yield found


def _digest(uri: str) -> bytes:
    return blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _expand(given: str, skip: OnSkip, follow: Sequence[str], *, listed: bool) -> Iterator[Found]:
    """Yield what one input, or one entry of a list, names; `listed`: an entry, which is taken as it is if it can."""
    try:
        if not given or "\0" in given:
            raise UsageError("an input is empty" if not given else f"{printable(given)} holds a null character")
        protocol = protocol_of(given)
        if not listed and is_list(given) and (given == "-" or protocol or os.path.isfile(given)):
            for entry in read_list(given, follow):
                yield from _expand(entry, skip, follow, listed=True)
        elif protocol == "hf":
            yield from _hub(given, skip, listed=listed)
        elif (path := local_path(given)) is not None:
            before = given[: len(given) - len(path)]
            for found in _local(path, lambda uri, reason: skip(before + uri, reason), listed=listed):
                yield Found(before + found.uri, found.error)
        else:
            yield from _remote(given, skip, listed=listed)
    except S3LoRAError as error:
        yield Found(given, error)
    except OSError as error:
        yield Found(given, AdapterFileError(f"cannot be listed ({printable(error.strerror or error)})", file=given))


def _local(path: str, skip: OnSkip, *, listed: bool) -> Iterator[Found]:
    # A name may hold a bracket or a question mark: an entry of a list is a pattern only with an asterisk.
    there = os.path.lexists(path)
    if not there and ("*" in path or (not listed and is_pattern(path))):
        root, pattern = split_pattern(path)
        # A pattern names its folders, links too; `**` does not, and would go round in a circle of them.
        links = len(pattern) if "**" not in pattern else 0
        folders = walk(local_lister(root or ".", links=links), _within(pattern))
        yield from _told(path, _matching(folders, pattern), root, skip)
    elif not there and not listed:
        raise AdapterFileError("no such file or folder", file=path)
    elif listed or not os.path.isdir(path):
        yield Found(path)
    else:
        yield from _told(path, _folders(walk(local_lister(path))), path, skip)


def _remote(given: str, skip: OnSkip, *, listed: bool) -> Iterator[Found]:
    pattern = "*" in given or (not listed and is_pattern(given) and protocol_of(given) not in ("http", "https"))
    if protocol_of(given) in ("http", "https"):
        if pattern:
            raise UsageError(f"{printable(given)}: https:// cannot be listed", fix="give a list of the URLs (.txt)")
        yield Found(given)
    elif not pattern and (listed or is_weights(given)):
        yield Found(given)
    elif pattern:
        root, parts = split_pattern(given)
        if root.endswith("://"):
            raise UsageError(f"{printable(given)} is a pattern of buckets", fix="name the bucket")
        yield from _told(given, _matching(_listed(root, _within(parts)), parts), root, skip)
    else:
        yield from _told(given, _folders(_listed(given, everywhere)), given, skip)


def _listed(root: str, enter: Enter) -> Iterator[Folder]:
    system, path = file_system(root)
    if protocol_of(root) in ("s3", "s3a"):
        return grouped(s3_keys(system, path, root), enter)
    return walk(remote_lister(system, path, root.rstrip("/")), enter)


def _hub(given: str, skip: OnSkip, *, listed: bool) -> Iterator[Found]:
    repo = hub.repository(given)
    if repo is None:
        yield from _searched(given, skip)
    elif listed or is_weights(repo.path):
        yield Found(given)
    else:
        names = (file.rfilename for file in hub.information(repo, given).siblings or ())
        below = f"{repo.path.rstrip('/')}/" if repo.path.strip("/") else ""
        inner = sorted(name[len(below) :] for name in names if name.startswith(below))
        yield from _told(given, _folders(grouped(inner)), given, skip)


def _searched(given: str, skip: OnSkip) -> Iterator[Found]:
    nothing = True
    for model in hub.search(given):
        address = f"hf://{model.name}"
        adapters = [Found(address)]
        if model.files is not None:
            adapters = list(_named(_folders(grouped(sorted(model.files))), address, skip))
        if not adapters:
            skip(address, NO_ADAPTER)
        nothing = nothing and not adapters
        yield from adapters
    if nothing:
        raise NothingToAuditError("finds no adapter", file=given, fix=f"models are searched by the tags {hub.TAGS}")


def _folders(folders: Iterator[Folder]) -> Iterator[tuple[Folder, Adapters]]:
    return ((folder, folder.adapters) for folder in folders)


def _within(pattern: PathParts) -> Enter:
    return lambda parts: may_hold(parts, pattern)


def _matching(folders: Iterator[Folder], pattern: PathParts) -> Iterator[tuple[Folder, Adapters]]:
    """Yield what a pattern means of each folder: all adapters where it or one above it matches, else files that do."""
    for folder in folders:
        if any(matches(folder.parts[:i], pattern) for i in range(1, len(folder.parts) + 1)):
            yield folder, folder.adapters
        elif folder.error is None:
            yield folder, _matched(folder, {name for name in folder.names if matches((*folder.parts, name), pattern)})


def _matched(folder: Folder, names: set[str]) -> Adapters:
    """Return the adapters of a folder among the files that a pattern matches, and why the others are none."""
    weights = [name for name in in_order(names) if may_be_weights(name)]
    told = dict(folder.adapters.skipped)
    skipped = tuple((name, told[name]) for name in weights if name in told)
    if not folder.adapters.whole:
        files = tuple(name for name in folder.adapters.files if name in weights)
        # those of a base model are skipped as their folder, of which the pattern may leave out a part
        base = tuple((name, BASE_MODEL) for name in weights if name not in told and name not in files)
        return Adapters(False, files, (*skipped, *base))
    # Which of them is opened is for a configuration to say that is not read here.
    known = [name for name in WEIGHTS if name in folder.names]
    kinds: tuple[dict[str, object] | None, ...] = (None, {"peft_type": "LORA"}, {"lora_parameters": {}})
    meant = {name for kind in kinds if (name := chosen(known, kind))}
    if weights and meant <= {*weights}:
        return Adapters(True, tuple(name for name in folder.adapters.files if name in weights), skipped)
    # the folder would stand for weights that the pattern leaves out
    left = [name for name in weights if name not in told]
    unread = tuple((name, UNREAD) for name in left if not is_weights(name))
    return Adapters(False, tuple(name for name in left if is_weights(name)), (*skipped, *unread))


def _told(given: str, pairs: Iterator[tuple[Folder, Adapters]], root: str, skip: OnSkip) -> Iterator[Found]:
    """Yield what was found in an input, and an error if that is nothing."""
    skipped = Counter[str]()

    def count(uri: str, reason: str) -> None:
        skipped[reason] += 1
        skip(uri, reason)

    nothing = True
    for one in _named(pairs, root, count):
        nothing = False
        yield one
    if nothing:
        what = "matches no adapter" if is_pattern(given) and root != given else "holds no adapter"
        others = "; skipped are " + "; ".join(f"{reason}: {skipped[reason]}" for reason in sorted(skipped))
        fix = f"an adapter has {CONFIG} or LoRA weights; a weights file given by its own path is opened"
        yield Found(given, NothingToAuditError(f"{what}{others if skipped else ''}", file=given, fix=fix))


def _named(pairs: Iterator[tuple[Folder, Adapters]], root: str, skip: OnSkip) -> Iterator[Found]:
    for folder, adapters in pairs:
        uri = joined(root, *folder.parts)
        if folder.error is not None:
            yield Found(uri, folder.error)
        for name in adapters.files:
            yield Found(joined(root, *folder.parts, name))
        if adapters.whole:
            yield Found(uri.rstrip("/") or uri)
        for name, reason in adapters.skipped:
            skip(joined(root, *folder.parts, name) if name else uri, reason)
