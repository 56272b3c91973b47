"""`s3lora.json`: where an adapter that was written came from, and what was done to it."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from s3lora.adapter.digest import FileDigest, Source
from s3lora.adapter.loaders import loader_of
from s3lora.adapter.loaders.problems import DropPart
from s3lora.adapter.weights import PROVENANCE
from s3lora.adapter.write import Rewrite, Written, write_adapter
from s3lora.arguments import checked
from s3lora.choose.select import Choice, Plan
from s3lora.errors import AdapterFileError, UsageError, printable
from s3lora.files import read_whole
from s3lora.measure.configuration import Configuration
from s3lora.measure.scan import Tool
from s3lora.rewrite.conversion_record import CONVERSION_VERSION, ConversionRecord
from s3lora.rewrite.modes import MODES, Zero, mode_of
from s3lora.rewrite.record import WrittenRecord
from s3lora.rewrite.repair_record import REPAIR_VERSION, RepairProvenance
from s3lora.rewrite.resize_record import RESIZE_VERSION, ResizeProvenance
from s3lora.rewrite.sum_record import SUM_VERSION, SumProvenance

#: Of `s3lora.json`. 2: the plan is nested, the mode is a name with settings of its own, and `loader` was `compat`.
PROVENANCE_VERSION = 2
MAX_PROVENANCE = 64 * 1024 * 1024
#: Sources that a sentence names.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Removal:
    """What was done to one module, and why."""

    path: str
    action: str
    value: float | None
    position: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Provenance(WrittenRecord):
    """The content of `s3lora.json`: where a pruned adapter came from and what was done to it.

    `plan` names the chosen modules. `settings` are those of the `mode`; `zeroed` tells of modules that were to leave
    and had to stay as zeros, and why. `drop` says what else was to leave, and `dropped` names the tensors that did.
    """

    word: ClassVar[str] = "pruned"

    schema_version: int = PROVENANCE_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    source: Source
    plan: Plan
    mode: str
    settings: Mapping[str, Any]
    loader: str
    bake: bool
    zeroed: Mapping[str, str]
    drop: tuple[DropPart, ...] = ()
    dropped: tuple[str, ...] = ()
    warnings: tuple[str, ...]
    written: tuple[FileDigest, ...]

    def __post_init__(self) -> None:
        """Raise UsageError if there is no such mode or loader, or the mode has no such settings."""
        mode_of(self.mode, self.settings)
        loader_of(self.loader)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Return what it was made from."""
        return (self.source,)

    @property
    def modules(self) -> tuple[Removal, ...]:
        """Return what was done to each chosen module, in the order of the plan."""
        return tuple(self._done(choice) for choice in self.plan.chosen)

    @property
    def done(self) -> str:
        """Return in words how many modules were changed, and how many other tensors dropped."""
        actions = Counter(module.action for module in self.modules)
        counts = [f"{count:,} {action}" for action, count in actions.items()]
        if self.dropped:
            many = "1 other tensor" if len(self.dropped) == 1 else f"{len(self.dropped):,} other tensors"
            counts.append(f"{many} dropped ({', '.join(self.drop)})")
        return ", ".join(counts) or "no module chosen"

    @property
    def story(self) -> dict[str, str]:
        """Return what goes into `__metadata__`, so that a weights file without its folder still tells its story."""
        story: dict[str, Any] = {
            "version": self.tool.version,
            "source_sha256": self.source.sha256,
            "method": self.configuration.method,
            "index": self.plan.index,
            "rule": self.plan.rule,
            "modules": {module.path: [module.action, module.value] for module in self.modules},
        }
        if self.drop:
            story["drop"] = self.drop
        return {"s3lora": msgspec.json.encode(story).decode()}

    def _done(self, choice: Choice) -> Removal:
        why = self.zeroed.get(choice.path)
        action = MODES[self.mode].action if why is None else Zero.action
        reason = choice.reason if why is None else f"{choice.reason}; zeroed because it {why}"
        return Removal(choice.path, action, choice.value, choice.position, reason)


#: What a record tells of that can be undone with the original: a pruning or a repair.
Recorded = Provenance | RepairProvenance
_Record = TypeVar("_Record", Provenance, RepairProvenance, ResizeProvenance)
#: By the kind that a record names, none for a pruning: its type, its version, and how it is made again.
_KINDS: dict[str, tuple[type[Recorded], int, str]] = {
    "": (Provenance, PROVENANCE_VERSION, "prune the original again"),
    "repair": (RepairProvenance, REPAIR_VERSION, "repair the original again"),
}
#: What a record tells of that `restore` does not undo: there are no modules to put back one by one.
Remade = ResizeProvenance | SumProvenance | ConversionRecord
#: By the kind that such a record names: its type, its version, and how it is made again.
_REMADE: dict[str, tuple[type[Remade], int, str]] = {
    "resize": (ResizeProvenance, RESIZE_VERSION, "resize the original again"),
    "sum": (SumProvenance, SUM_VERSION, "add up the originals again"),
    "conversion": (ConversionRecord, CONVERSION_VERSION, "convert the original again"),
}


@dataclass(frozen=True, slots=True)
class _Versioned:
    """What every document begins with."""

    kind: str = ""
    schema_version: int | None = None


def write_recorded(
    record: _Record, rewrite: Rewrite, out: str | os.PathLike[str], *, force: bool
) -> tuple[_Record, Written]:
    """Write an adapter with its record, whose story goes into the weights too; return the record as it is written."""

    def finished(files: tuple[FileDigest, ...]) -> _Record:
        return dataclasses.replace(record, written=files)

    rewrite = dataclasses.replace(rewrite, metadata={**rewrite.metadata, **record.story})
    written = write_adapter(rewrite, Path(out), provenance=finished, force=force)
    return finished(written.files), written


@checked
def read_provenance(folder: str | os.PathLike[str]) -> Provenance | RepairProvenance:
    """Return the content of `s3lora.json` in `folder`; raise AdapterFileError if there is none of that form.

    Examples:
        >>> import s3lora
        >>> s3lora.read_provenance("pruned").plan
        <Plan: 10 of 120 modules, top 10 by ssi>
    """
    record = read_record(folder)
    if not isinstance(record, Remade):
        return record
    made_from = " and ".join(
        f"{printable(source.name, 120)} (SHA-256 {printable(source.sha256, 64)})" for source in record.sources[:NAMED]
    )
    more = f" and {len(record.sources) - NAMED} more" if len(record.sources) > NAMED else ""
    what = f"was {record.word}, which cannot be undone from it"
    raise AdapterFileError(what, file=PROVENANCE, fix=f"take what it was made from: {made_from}{more}")


def read_record(folder: str | os.PathLike[str]) -> Recorded | Remade:
    """Return the content of `s3lora.json` of whatever kind; raise AdapterFileError if s3lora did not write it."""
    path = Path(folder) / PROVENANCE
    raw = read_whole(path, MAX_PROVENANCE, AdapterFileError, fix="only what s3lora pruned or repaired can be restored")
    kinds = {**_KINDS, **_REMADE}
    try:
        told = msgspec.json.decode(raw, type=_Versioned)
        if told.kind not in kinds:
            what = f"tells of a {printable(told.kind, 40)}, which this s3lora does not know"
            raise AdapterFileError(what, file=path.name, fix="update s3lora")
        form, known, again = kinds[told.kind]
        version = known if told.schema_version is None else told.schema_version
        if version != known:
            what = f"is of schema version {version}, and this s3lora knows {known}"
            raise AdapterFileError(what, file=path.name, fix="update s3lora" if version > known else again)
        return msgspec.json.decode(raw, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UsageError) as error:
        raise AdapterFileError(f"is not what s3lora writes: {printable(error)}", file=path.name) from None


def provenance_of(source: Source, folder: str | os.PathLike[str]) -> Recorded | Remade | None:
    """Return how the adapter with the files of `source`, which lies in `folder`, was made, None without a record.

    Raises AdapterFileError if there is a `s3lora.json` that tells of other weights than those that are there.
    """
    if not os.path.lexists(Path(folder) / PROVENANCE):
        return None
    record = read_record(folder)
    there = {file.name: file.sha256 for file in source.files}
    wrong = next((file.name for file in record.written if there.get(file.name) != file.sha256), None)
    if wrong is None:
        return record
    raise AdapterFileError(
        f"tells of other weights than those that lie here: {printable(wrong)} differs by its SHA-256",
        file=Path(folder) / PROVENANCE,
        fix="make it again, or remove it if these weights were made by something else",
    )
