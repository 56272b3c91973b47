"""Adapter + Plan → Rewrite → folder: each chosen module as a mode has it, for a loader."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import msgspec

from s3lora.adapter import peft_config
from s3lora.adapter.loaders import Loader, loader_of
from s3lora.adapter.loaders.problems import DropPart
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.open import opening
from s3lora.adapter.write import Rewrite, Written
from s3lora.arguments import checked
from s3lora.choose.select import Plan
from s3lora.errors import NothingToAuditError, OutputError, SelectionError, UsageError, printable
from s3lora.measure.scan import Scan
from s3lora.rewrite.code import code_notes, without_code
from s3lora.rewrite.drop import drop_notes, dropped_of, without
from s3lora.rewrite.edits import ModuleEdit, baking_of, edits_of, refuse_dora, refuse_fixed
from s3lora.rewrite.header import header_without
from s3lora.rewrite.modes import Mode, Remove, Zero
from s3lora.rewrite.names import plain_names
from s3lora.rewrite.provenance import Provenance, write_recorded
from s3lora.wording import worded

REMOVE, ZERO = Remove(), Zero()


@dataclass(frozen=True, slots=True, repr=False)
class Pruned:
    """A pruned adapter that is not written yet: what happens to each chosen module, and to the files.

    `modes` gives for each path what is done to it: `mode`, or zeroing where a module could not leave, for which
    `reasons` tells why. `drop` are the parts that were to leave besides modules, and `dropped` the names of their
    tensors.
    """

    plan: Plan
    mode: Mode
    loader: str
    bake: bool
    modes: Mapping[str, Mode]
    rewrite: Rewrite
    warnings: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[DropPart, ...] = ()
    dropped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return what is done to which adapter."""
        count = f"{len(self.modes)} module{'s' * (len(self.modes) != 1)}"
        return f"<Pruned {printable(self.rewrite.adapter.name, 60)}: {self.mode.name} {count}, for {self.loader}>"


@checked
def prune(
    adapter: Adapter | str | os.PathLike[str],
    plan: Plan,
    mode: Mode = REMOVE,
    *,
    loader: str = "peft",
    bake: bool = False,
    flat: bool = False,
    drop: Collection[DropPart] = (),
    known_start: bool = False,
) -> Pruned:
    """Apply a plan to an adapter. Nothing is written and the input stays as it is; see `write_pruned`.

    Keys of a PEFT adapter are written as PEFT finds them: without the prefixes of wrappers (`_orig_mod.`, `module.`,
    …), and with `base_model.model.` once.

    Examples:
        >>> import s3lora
        >>> plan = s3lora.select(s3lora.scan("my-adapter"), s3lora.Top(2))
        >>> s3lora.prune("my-adapter", plan, s3lora.Clip(component=3), loader="vllm")
        <Pruned my-adapter: clip 2 modules, for vllm>

    Parameters:
        adapter: the adapter that was scanned, or its path; then its files stay open as long as the result is there.
        plan: the chosen modules; every path must be in the adapter.
        mode: what becomes of them: `Remove()`, `Zero()`, `Clip(component)` or `Scale(factor)`.
        loader: the loader to write for: `peft`, `vllm`, `sglang` or `llamacpp`.
        bake: multiply every lora_B by its scaling and write one uniform `lora_alpha` = `r`.
        flat: prune even if the index does not tell the modules apart.
        known_start: the base weights tell what the factors began with, as `true_updates` of a scan says: then modules
            of such an adapter can be removed, for PEFT leaves the base weight of an excluded module alone.
        drop: what else leaves the file: `heads`, `bias`, `tokens`, `other` (base weights, and what s3lora does not
            know) or `all` of them. The plan may then choose no module.

    Raises:
        AdapterFileError: two tensors get one name once wrappers are taken off.
        NothingToAuditError: the plan chooses nothing, and nothing else changes.
        SelectionError: the index is flat, a path is not in the adapter, or every module would be removed.
        UnsupportedAdapterError: the adapter's base weights change at load (PiSSA and its kin), DoRA in a mode other
            than `Remove`, LoHa, LoKr or VeRA in `Clip`, one of two updates that PEFT ties, or an adapter that the
            loader rejects.
        UsageError: there is no such loader or part to drop, or nothing to bake into.
    """
    if not isinstance(adapter, Adapter):
        with opening(adapter, kept=True) as own:
            return prune(own, plan, mode, loader=loader, bake=bake, flat=flat, drop=drop, known_start=known_start)
    rules = loader_of(loader, to_write=True)
    parts = tuple(part for part in get_args(DropPart) if part in drop)
    dropped = dropped_of(adapter, [*drop])
    names = tuple(tensor.name for tensor in dropped)
    renamed, renamings = plain_names(adapter, frozenset(names))
    original, adapter = adapter, without(adapter, dropped)
    chosen = _chosen(adapter, plan, flat=flat)
    if not chosen and not names and not renamed:
        nothing = f"the rule ({plan.rule}) chooses no module, so there is nothing to prune"
        raise NothingToAuditError(f"{nothing}, and the file holds no {', '.join(parts)}" if parts else nothing)
    if (chosen or bake) and not (known_start and isinstance(mode, Remove) and loader == "peft" and not bake):
        peft_config.refuse_changed_base(adapter)
    peft_config.refuse_half_of_tied(adapter, chosen)
    rules.check(adapter, bake=bake)
    modes: dict[str, Mode] = dict.fromkeys(plan.paths, mode)
    reasons = rules.kept_as_zeros(adapter, set(plan.paths)) if isinstance(mode, Remove) else {}
    if reasons:
        peft_config.refuse_changed_base(adapter)  # zeros in place of its update would leave a wrong base behind
    modes.update(dict.fromkeys(reasons, ZERO))
    removed = [module for module in chosen if isinstance(modes[module.path], Remove)]
    gone = {module.path for module in removed}
    kept = [module for module in adapter.modules if module.path not in gone]
    if not kept:
        raise SelectionError("this removes every module, and loaders reject an adapter without any", fix="prune fewer")
    left = [module for module in chosen if module.path not in gone]
    refuse_dora(left, worded("use {remove}"))
    refuse_fixed((module for module in left if not isinstance(modes[module.path], Zero)), mode)
    if bake and (adapter.format != "peft" or adapter.config is None):
        raise UsageError(worded("{bake} needs a PEFT adapter with its adapter_config.json"))
    if bake and (other := next((module for module in kept if module.form != "LoRA"), None)) is not None:
        raise UsageError(worded("{bake} needs LoRA, and {path} is {form}", path=printable(other.path), form=other.form))
    config = _config(adapter, removed, kept, rules, bake=bake)
    leaving = frozenset(name for module in removed for name in module.tensor_names)
    rewrite = Rewrite(
        original,
        dropped=leaving.union(names),
        renamed={old: new for old, new in renamed.items() if old not in leaving},
        edits=edits_of(kept, _module_edits(kept, modes), baking_of(kept, rules) if bake else {}),
        config=config,
        metadata=header_without(adapter, removed, kept),
        check=None if bake else partial(_same_scalings, kept),
    )
    rest = dataclasses.replace(adapter, modules=tuple(kept), other_tensors=tuple(set(adapter.other_tensors) - leaving))
    notes = (
        *_removal_notes(adapter, removed, config, rules),
        *_zero_notes(reasons),
        *(mode.notes(chosen) if chosen else ()),
        *renamings,
        *drop_notes(original, rest, parts),
        *code_notes(original, config),
    )
    return Pruned(plan, mode, loader, bake, modes, rewrite, notes, reasons, parts, names)


@checked
def write_pruned(
    pruned: Pruned, scan: Scan, out: str | os.PathLike[str], *, force: bool = False
) -> tuple[Provenance, Written]:
    """Write a pruned adapter to the folder `out`, whole or not at all, and return its provenance.

    Kept tensors are bit-identical, heads and other files of the folder come along, and the result is opened again
    and compared before it takes its place. Files that are or run code, pickles and other weights stay behind. Same
    input and version, same bytes.

    Examples:
        >>> import s3lora
        >>> scan = s3lora.scan("my-adapter")
        >>> pruned = s3lora.prune("my-adapter", s3lora.select(scan, s3lora.Top(2)))
        >>> record, written = s3lora.write_pruned(pruned, scan, "two-less")
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
    return write_recorded(record, pruned.rewrite, out, force=force)


def _same_adapter(adapter: Adapter, scan: Scan) -> None:
    """Raise UsageError if name or size of the weights show that the scan is of another adapter."""
    scanned = {(file.name, file.bytes) for file in scan.source.files}
    if not {(printable(file.name, 255), file.file.size) for file in adapter.files} <= scanned:
        raise UsageError(
            f"the scan is of {printable(scan.source.name)}, not of the adapter to write", file=adapter.name
        )


def _chosen(adapter: Adapter, plan: Plan, *, flat: bool) -> list[LoraModule]:
    by_path = {module.path: module for module in adapter.modules}
    if unknown := [path for path in plan.paths if path not in by_path]:
        raise SelectionError("the plan names a module that the adapter has not", file=adapter.name, module=unknown[0])
    if plan.paths and plan.flat and not flat:
        raise SelectionError(
            f"{plan.index} does not discriminate between these modules, so pruning by it would be arbitrary",
            file=adapter.name,
            fix=worded("choose another index, or {force_flat}"),
        )
    return [by_path[path] for path in plan.paths]


def _config(
    adapter: Adapter, removed: Sequence[LoraModule], kept: Sequence[LoraModule], loader: Loader, *, bake: bool
) -> dict[str, Any] | None:
    if adapter.config is None:
        return None
    config = without_code(adapter.config)
    if adapter.format == "peft":
        config = peft_config.without_modules(config, removed, kept)
        if bake:
            config = peft_config.baked(config, kept, by_tensor=loader.divides_by_tensor)
    return config


def _same_scalings(kept: Sequence[LoraModule], result: Adapter) -> None:
    """Raise OutputError where a module that was kept has another scaling by the configuration that was written."""
    after = {module.path: module.scaling.value for module in result.modules}
    for module in kept:
        scaling = after.get(module.path, module.scaling.value)
        if scaling != module.scaling.value:
            what = f"did not verify: its scaling is {scaling:g} and was {module.scaling.value:g}"
            raise OutputError(what, module=printable(module.path))


def _module_edits(kept: Sequence[LoraModule], modes: Mapping[str, Mode]) -> dict[str, ModuleEdit]:
    chosen = [(module, modes[module.path]) for module in kept if module.path in modes]
    return {
        module.path: ModuleEdit(
            f"the mode {mode.name}", partial(mode.apply, module), mode.changes, mode.bias(), times=mode.times()
        )
        for module, mode in chosen
        if not mode.spares(module)
    }


def _removal_notes(
    adapter: Adapter, removed: Sequence[LoraModule], config: Mapping[str, Any] | None, loader: Loader
) -> list[str]:
    if not removed or adapter.format != "peft":
        return []
    if config is None or adapter.config is None:
        return ["no adapter_config.json: a loader that builds modules from its own list will build these again"]
    if loader.on_exclusion and config.get("exclude_modules") != adapter.config.get("exclude_modules"):
        return [loader.on_exclusion]
    return []


def _zero_notes(reasons: Mapping[str, str]) -> list[str]:
    notes = []
    for reason in sorted(set(reasons.values())):
        count = sum(given == reason for given in reasons.values())
        subject = "1 module stays as a zero tensor" if count == 1 else f"{count} modules stay as zero tensors"
        notes.append(f"{subject} instead of leaving: each {reason}")
    return notes
