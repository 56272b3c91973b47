"""Writing a pruned adapter with its provenance, and undoing a pruning from the original."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from s3lora.adapter.companions import held_back
from s3lora.adapter.digest import FileDigest, Source, file_digest, source_of
from s3lora.adapter.folder import check_target, copy_companions, refuse_nesting
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_adapter
from s3lora.adapter.weights import PROVENANCE
from s3lora.adapter.write import Written, write_adapter
from s3lora.choose.select import Choice, Plan, share_of
from s3lora.errors import AdapterFileError, OutputError, UsageError, printable
from s3lora.files import copy_file, read_whole, replacing
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import MAX_COST
from s3lora.measure.scan import SCHEMA_VERSION, Scan, Tool, scan
from s3lora.rewrite.drop import DropPart
from s3lora.rewrite.loaders import loader_of
from s3lora.rewrite.modes import MODES, Zero, mode_of
from s3lora.rewrite.prune import Pruned, prune

#: Of `s3lora.json`. 2: the plan is nested, the mode is a name with settings of its own, and `loader` was `compat`.
PROVENANCE_VERSION = 2
MAX_PROVENANCE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Removal:
    """What was done to one module, and why."""

    path: str
    action: str
    value: float | None
    position: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The content of `s3lora.json`: where a pruned adapter came from and what was done to it.

    `plan` names the chosen modules. `settings` are those of the `mode`; `zeroed` tells of modules that were to leave
    and had to stay as zeros, and why. `drop` says what else was to leave, and `dropped` names the tensors that did.
    """

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

    def _done(self, choice: Choice) -> Removal:
        why = self.zeroed.get(choice.path)
        action = MODES[self.mode].action if why is None else Zero.action
        reason = choice.reason if why is None else f"{choice.reason}; zeroed because it {why}"
        return Removal(choice.path, action, choice.value, choice.position, reason)


@dataclass(frozen=True, slots=True)
class _Versioned:
    """What every document begins with."""

    schema_version: int = PROVENANCE_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What `restore` did: from which original, which modules are back, and which are still pruned.

    `tensors` names those that were dropped beside modules and are back.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    source: Source
    modules: tuple[str, ...]
    pruned: tuple[str, ...]
    tensors: tuple[str, ...] = ()


def write_pruned(
    pruned: Pruned, scan: Scan, out: str | os.PathLike[str], *, force: bool = False
) -> tuple[Provenance, Written]:
    """Write a pruned adapter to the folder `out`, whole or not at all, and return its provenance.

    Kept tensors are bit-identical, heads and other files of the folder come along, and the result is opened again
    and compared before it takes its place. Files that are or run code, pickles and other weights stay behind. Same
    input and version, same bytes.

    Examples:
        >>> import s3lora
        >>> with s3lora.open_adapter("my-adapter") as adapter:
        ...     scan = s3lora.scan(adapter)
        ...     pruned = s3lora.prune(adapter, s3lora.select(scan, s3lora.Top(2)))
        ...     record, written = s3lora.write_pruned(pruned, scan, "two-less")
        >>> record.mode, len(record.modules)
        ('remove', 2)

    Raises UsageError if `scan` is of another adapter, OutputError if `out` exists (without `force`), cannot be
    written, or does not verify.
    """
    _same_adapter(pruned.rewrite.adapter, scan)
    warnings = tuple(dict.fromkeys((*scan.warnings, *pruned.plan.warnings, *pruned.warnings)))
    record = Provenance(
        configuration=scan.configuration,
        source=scan.source,
        plan=pruned.plan,
        mode=pruned.mode.name,
        settings=msgspec.to_builtins(pruned.mode),
        loader=pruned.loader,
        bake=pruned.bake,
        zeroed=pruned.reasons,
        drop=pruned.drop,
        dropped=pruned.dropped,
        warnings=warnings,
        written=(),
    )
    made: list[Provenance] = []

    def provenance(files: tuple[FileDigest, ...]) -> Provenance:
        made.append(dataclasses.replace(record, written=files))
        return made[0]

    rewrite = dataclasses.replace(pruned.rewrite, metadata=_metadata(record))
    written = write_adapter(rewrite, Path(out), provenance=provenance, force=force)
    return made[0], written


def _same_adapter(adapter: Adapter, scan: Scan) -> None:
    """Raise UsageError if name or size of the weights show that the scan is of another adapter."""
    scanned = {(file.name, file.bytes) for file in scan.source.files}
    if not {(printable(file.name, 255), file.file.size) for file in adapter.files} <= scanned:
        raise UsageError(
            f"the scan is of {printable(scan.source.name)}, not of the adapter to write", file=adapter.name
        )


def _metadata(record: Provenance) -> dict[str, str]:
    """Return what goes into `__metadata__`, so that a weights file without its folder still tells its story."""
    story: dict[str, Any] = {
        "version": record.tool.version,
        "source_sha256": record.source.sha256,
        "method": record.configuration.method,
        "index": record.plan.index,
        "rule": record.plan.rule,
        "modules": {module.path: [module.action, module.value] for module in record.modules},
    }
    if record.drop:
        story["drop"] = record.drop
    return {"s3lora": msgspec.json.encode(story).decode()}


def read_provenance(folder: str | os.PathLike[str]) -> Provenance:
    """Return the content of `s3lora.json` in `folder`; raise AdapterFileError if there is none of that form.

    Examples:
        >>> import s3lora
        >>> s3lora.read_provenance("pruned").plan
        <Plan: 10 of 120 modules, top 10 by ssi>
    """
    path = Path(folder) / PROVENANCE
    raw = read_whole(path, MAX_PROVENANCE, AdapterFileError, fix="only what s3lora pruned can be restored")
    try:
        version = msgspec.json.decode(raw, type=_Versioned).schema_version
        if version != PROVENANCE_VERSION:
            what = f"is of schema version {version}, and this s3lora knows {PROVENANCE_VERSION}"
            fix = "update s3lora" if version > PROVENANCE_VERSION else "prune the original again"
            raise AdapterFileError(what, file=path.name, fix=fix)
        return msgspec.json.decode(raw, type=Provenance)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UsageError) as error:
        raise AdapterFileError(f"is not what s3lora writes: {printable(error)}", file=path.name) from None


def provenance_of(source: Source, folder: str | os.PathLike[str]) -> Provenance | None:
    """Return how the adapter with the files of `source`, which lies in `folder`, was pruned; None if it was not.

    Raises AdapterFileError if there is a `s3lora.json` that tells of other weights than those that are there.
    """
    if not os.path.lexists(Path(folder) / PROVENANCE):
        return None
    record = read_provenance(folder)
    there = {file.name: file.sha256 for file in source.files}
    wrong = next((file.name for file in record.written if there.get(file.name) != file.sha256), None)
    if wrong is None:
        return record
    raise AdapterFileError(
        f"tells of other weights than those that lie here: {printable(wrong)} differs by its SHA-256",
        file=Path(folder) / PROVENANCE,
        fix="prune again, or remove it if these weights were made by something else",
    )


def restore(
    pruned: str | os.PathLike[str],
    original: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    modules: Sequence[str] | None = None,
    force: bool = False,
    max_cost: float = MAX_COST,
) -> tuple[str, ...]:
    """Put pruned modules back from the original adapter, and return the paths of those put back.

    Files that lie beside the weights come along from the pruned folder or, where some modules stay pruned, from the
    original's; those that are or run code stay behind in either case, as in `write_pruned`.

    Examples:
        >>> import s3lora
        >>> len(s3lora.restore("pruned", "my-adapter", "restored"))
        10

    Parameters:
        pruned: a folder that `write_pruned` wrote.
        original: the adapter it was made from; its digests must be those recorded.
        out: the folder to write. With all modules back, weights and configuration are the original's, byte by byte.
        modules: which modules to put back; None puts all back, and what was dropped besides modules. Some are put back
            by a scan of the original.
        max_cost: operations that this scan may take, as for `scan`.

    Raises OutputError if `original` is not the adapter that was pruned, UsageError for a module that was not pruned.
    """
    record = read_provenance(pruned)
    if os.path.realpath(out) != os.path.realpath(pruned):
        refuse_nesting(Path(out), Path(pruned))
    with open_adapter(original) as adapter:
        _prove(source_of(adapter), record.source, original)
        there = [module.path for module in record.modules]
        back = set(there if modules is None else modules)
        if unknown := sorted(back - set(there)):
            raise UsageError(f"{printable(unknown[0])} was not pruned", fix=f"pruned were {', '.join(there[:5])} …")
        if modules is None or (back == set(there) and not record.dropped):
            _restore_all(adapter, Path(pruned), Path(out), force=force)
        else:
            _restore_some(adapter, record, back, Path(out), max_cost, force=force)
    return tuple(path for path in there if path in back)


def _prove(found: Source, recorded: Source, label: object) -> None:
    if found.files != recorded.files:
        there = {file.name: file.sha256 for file in found.files}
        missing = next((file.name for file in recorded.files if file.name not in there), None)
        if missing is not None:
            what = f"it has no {printable(missing)}"
        else:
            recordeds = {file.name: file.sha256 for file in recorded.files}
            wrong = next((name for name, digest in there.items() if recordeds.get(name) != digest), "its list of files")
            what = f"{printable(wrong)} differs by its SHA-256"
        raise OutputError(f"is not the adapter that was pruned: {what}", file=label, fix="give the original")


def _restore_all(adapter: Adapter, pruned: Path, out: Path, *, force: bool) -> None:
    check_target(out, adapter.path, force=force)
    originals = [file.file.path for file in adapter.files]
    originals += [path for path in (adapter.config_file, adapter.entry) if path and path not in originals]
    earlier = originals[0].with_name(PROVENANCE)  # of an adapter that had been pruned before
    originals += [earlier] if earlier.is_file() else []
    with replacing(out, force=force) as partial:
        for path in originals:
            copy_file(path, partial / path.name)
        names = {path.name for path in originals}
        held = held_back(dataclasses.replace(adapter, path=pruned))
        copy_companions(pruned, partial, written=names, held=held)
        with open_adapter(partial / (adapter.entry or originals[0]).name) as result:
            for file in result.files:
                _same(file.file.path, adapter)


def _same(copy: Path, adapter: Adapter) -> None:
    source = next(file for file in adapter.files if file.name == copy.name)
    if file_digest(copy).sha256 != source.file.sha256():
        raise OutputError("did not verify: the copy differs from the original", file=copy.name)


def _restore_some(
    adapter: Adapter, record: Provenance, back: set[str], out: Path, max_cost: float, *, force: bool
) -> None:
    measured = scan(adapter, **dataclasses.asdict(record.configuration), max_cost=max_cost)
    chosen = tuple(choice for choice in record.plan.chosen if choice.path not in back)
    share = share_of(measured, {choice.path for choice in chosen})
    plan = dataclasses.replace(record.plan, chosen=chosen, share=share)
    mode = mode_of(record.mode, record.settings)
    # Whether the index was flat was decided when it was pruned.
    pruned = prune(adapter, plan, mode, loader=record.loader, bake=record.bake, flat=True, drop=record.drop)
    write_pruned(pruned, measured, out, force=force)
