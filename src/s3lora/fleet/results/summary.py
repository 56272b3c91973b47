"""`fleet.json`: with what a fleet was scanned, and how many of everything its dataset holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from s3lora.errors import AdapterFileError, UsageError, printable
from s3lora.files import read_bytes, reason
from s3lora.fleet.results.outcome import Settings, Trace
from s3lora.fleet.results.schema import SCHEMA_VERSION
from s3lora.measure.scan import Tool

SUMMARY = "fleet.json"
MAX_SUMMARY = 16 * 1024 * 1024
#: Inputs that are named: a shell may make a hundred thousand of one pattern.
NAMED = 100


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows the tables have, and of what.

    `duplicates` are adapters whose factors are those of an earlier one in order of uri, whatever either is called.
    `errors` maps each kind to its number, `skipped` what was found and is no adapter, by reason. `inside` maps columns
    of `adapters` to the number of adapters in which they are not 0: what is not LoRA in them, and beside them; and
    `unseen` to that of adapters whose folder was not looked into.
    """

    adapters: int = 0
    modules: int = 0
    duplicates: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    inside: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Return the number of inputs that gave an error."""
        return sum(self.errors.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The content of `fleet.json`; `complete` tells whether the last run came to its end.

    `inputs` are the first of those that were given, and `more_inputs` counts the others.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    settings: Settings = field(default_factory=Settings)
    inputs: tuple[str, ...] = ()
    more_inputs: int = 0
    counts: Counts = field(default_factory=Counts)
    complete: bool = False

    def encode(self) -> bytes:
        """Return the document as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def counted(traces: Iterable[Trace], skipped: Mapping[str, int], inside: Mapping[str, int]) -> Counts:
    """Return the counts of a dataset with these rows."""
    found = list(traces)
    adapters = [trace for trace in found if trace.kind is None]
    kinds = Counter(trace.kind for trace in found if trace.kind is not None)
    return Counts(
        adapters=len(adapters),
        modules=sum(trace.modules for trace in adapters),
        duplicates=len(adapters) - len({trace.tensors for trace in adapters}),
        errors=dict(sorted(kinds.items())),
        skipped=dict(sorted(skipped.items())),
        inside=dict(inside),
    )


def read_summary(folder: Path) -> Summary:
    """Return the content of `fleet.json`; raise AdapterFileError if it is none, or of a newer version."""
    file = folder / SUMMARY
    try:
        raw = read_bytes(file, MAX_SUMMARY)
    except (FileNotFoundError, NotADirectoryError):
        fix = "make one with: s3lora fleet scan INPUT --out DIR"
        raise AdapterFileError("holds no results of a fleet", file=folder, fix=fix) from None
    except OSError as error:
        raise AdapterFileError(f"cannot be read ({reason(error)})", file=file) from None
    try:
        summary = msgspec.json.decode(raw, type=Summary)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UsageError) as error:
        raise AdapterFileError(f"is not what s3lora writes: {printable(error)}", file=file) from None
    if summary.schema_version > SCHEMA_VERSION:
        what = f"is of schema version {summary.schema_version}, and this s3lora knows {SCHEMA_VERSION}"
        raise AdapterFileError(what, file=file, fix="update s3lora")
    return summary
