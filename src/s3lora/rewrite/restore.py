"""Undoing a pruning or a repair from the original."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from s3lora.adapter.companions import held_back
from s3lora.adapter.digest import Source, file_digest, source_of
from s3lora.adapter.folder import check_target, copy_companions, refuse_nesting
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_adapter
from s3lora.adapter.weights import PROVENANCE
from s3lora.arguments import checked
from s3lora.choose.select import share_of
from s3lora.errors import AdapterFileError, OutputError, UsageError, printable
from s3lora.files import copy_file, replacing
from s3lora.measure.cost import MAX_COST
from s3lora.measure.scan import SCHEMA_VERSION, Tool, scan
from s3lora.rewrite.factors import NewFactor, NewFactors
from s3lora.rewrite.modes import mode_of
from s3lora.rewrite.provenance import Provenance, Recorded, provenance_of, read_provenance
from s3lora.rewrite.prune import prune, write_pruned
from s3lora.rewrite.repair_record import RepairProvenance
from s3lora.rewrite.repaired import write_repaired


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What `restore` did: from which original, which modules are back, and which are still pruned or repaired.

    `tensors` names those that were dropped beside modules and are back, `notes` says what to know of what was written.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    source: Source
    modules: tuple[str, ...]
    pruned: tuple[str, ...]
    tensors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@checked
def restore(
    pruned: str | os.PathLike[str],
    original: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    modules: Sequence[str] | None = None,
    force: bool = False,
    max_cost: float = MAX_COST,
) -> tuple[str, ...]:
    """Put pruned or repaired modules back from the original adapter, and return the paths of those put back.

    Files that lie beside the weights come along from the pruned folder or, where some modules stay pruned, from the
    original's; those that are or run code stay behind in either case, as in `write_pruned`. Modules that stay repaired
    have the tensors of the repaired folder, bit for bit.

    Examples:
        >>> import s3lora
        >>> len(s3lora.restore("pruned", "my-adapter", "restored"))
        10

    Parameters:
        pruned: a folder that `write_pruned` or `write_repaired` wrote.
        original: the adapter it was made from; its digests must be those recorded.
        out: the folder to write. With all modules back, weights and configuration are the original's, byte by byte.
        modules: which modules to put back; None puts all back, and what was dropped besides modules. Some of a pruned
            adapter are put back by a scan of the original.
        max_cost: operations that this scan may take, as for `scan`.

    Raises OutputError if `original` is not the adapter that was pruned or repaired, UsageError for a module that was
    not, AdapterFileError if modules are to stay repaired and the repaired weights are not those of the record.
    """
    record = read_provenance(pruned)
    if os.path.realpath(out) != os.path.realpath(pruned):
        refuse_nesting(Path(out), Path(pruned))
    with open_adapter(original, record.source.adapter) as adapter:
        _prove(source_of(adapter), record, original)
        there = [module.path for module in record.modules]
        back = set(there if modules is None else modules)
        if unknown := sorted(back - set(there)):
            fix = f"{record.word} were {', '.join(there[:5])} …"
            raise UsageError(f"{printable(unknown[0])} was not {record.word}", fix=fix)
        if modules is None or (back == set(there) and not record.dropped):
            _restore_all(adapter, Path(pruned), Path(out), force=force)
        elif isinstance(record, RepairProvenance):
            _leave_repaired(adapter, Path(pruned), record, back, Path(out), force=force)
        else:
            _leave_pruned(adapter, record, back, Path(out), max_cost, force=force)
    return tuple(path for path in there if path in back)


def _prove(found: Source, record: Recorded, label: object) -> None:
    recorded = record.source
    if found.files != recorded.files:
        there = {file.name: file.sha256 for file in found.files}
        missing = next((file.name for file in recorded.files if file.name not in there), None)
        if missing is not None:
            what = f"it has no {printable(missing)}"
        else:
            recordeds = {file.name: file.sha256 for file in recorded.files}
            wrong = next((name for name, digest in there.items() if recordeds.get(name) != digest), "its list of files")
            what = f"{printable(wrong)} differs by its SHA-256"
        raise OutputError(f"is not the adapter that was {record.word}: {what}", file=label, fix="give the original")


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
        with open_adapter(partial / (adapter.entry or originals[0]).name, adapter.picked) as result:
            for file in result.files:
                _same(file.file.path, adapter)


def _same(copy: Path, adapter: Adapter) -> None:
    source = next(file for file in adapter.files if file.name == copy.name)
    if file_digest(copy).sha256 != source.file.sha256():
        raise OutputError("did not verify: the copy differs from the original", file=copy.name)


def _leave_pruned(
    adapter: Adapter, record: Provenance, back: set[str], out: Path, max_cost: float, *, force: bool
) -> None:
    measured = scan(adapter, **dataclasses.asdict(record.configuration), max_cost=max_cost)
    chosen = tuple(choice for choice in record.plan.chosen if choice.path not in back)
    share = share_of(measured, {choice.path for choice in chosen})
    plan = dataclasses.replace(record.plan, chosen=chosen, share=share)
    mode = mode_of(record.mode, record.settings)
    # Whether the index was flat, and how the factors began, was decided when it was pruned.
    pruned = prune(
        adapter, plan, mode, loader=record.loader, bake=record.bake, flat=True, drop=record.drop, known_start=True
    )
    write_pruned(pruned, measured, out, force=force)


def _leave_repaired(
    adapter: Adapter, folder: Path, record: RepairProvenance, back: set[str], out: Path, *, force: bool
) -> None:
    """Write the original with the repaired tensors of the modules that are not put back."""
    if record.bake:
        what = "its scaling was baked into lora_B, so that single modules cannot be put back"
        raise UsageError(what, file=folder, fix="put all back")
    names = [file.name for file in record.written]
    if any(Path(name).name != name or name in ("", ".", "..") for name in names):
        raise AdapterFileError("names a file outside the folder", file=PROVENANCE)
    with open_adapter(folder if len(names) != 1 else folder / names[0]) as result:
        provenance_of(source_of(result), folder)
        left = {module.path: module for module in record.modules if module.path not in back}
        made = {module.path: module for module in result.modules if module.path in left}
        if lost := sorted(left.keys() - made.keys()):
            raise AdapterFileError("has no such module, and its record says that it has", file=folder, module=lost[0])
        factors = {path: NewFactor(one.A.array(), one.B.array(), left[path].bias) for path, one in made.items()}
        gates = {path: gates for path, gates in record.repair.gates.items() if path not in back}
        fields = dataclasses.replace(record.repair, gates=gates)
        write_repaired(adapter, NewFactors(factors), fields, out, loader=record.loader, force=force)
