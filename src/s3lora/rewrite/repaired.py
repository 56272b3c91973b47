"""Adapter + new factors → Rewrite → folder: modules get new factors, of another rank where they have one."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from s3lora.adapter import peft_config
from s3lora.adapter.digest import source_of
from s3lora.adapter.loaders import Loader, loader_of
from s3lora.adapter.model import Adapter, Factor, LoraModule
from s3lora.adapter.tensor import ArrayTensor
from s3lora.adapter.write import Rewrite, Written
from s3lora.errors import OutputError, SelectionError, UsageError, printable
from s3lora.rewrite.code import code_notes, without_code
from s3lora.rewrite.edits import ModuleEdit, baking_of, edits_of, refuse_dora
from s3lora.rewrite.factors import NewFactor, NewFactors
from s3lora.rewrite.names import plain_names
from s3lora.rewrite.provenance import write_recorded
from s3lora.rewrite.ranks import folded, other_config, other_metadata, refuse_ranks
from s3lora.rewrite.repair_record import RepairedModule, RepairFields, RepairProvenance
from s3lora.wording import worded

KEEP = worded("use {keep_rank}")


@dataclass(frozen=True, slots=True)
class Repaired:
    """A repaired adapter that is not written yet: the modules that get new factors, and what happens to the files."""

    factors: NewFactors
    loader: str
    bake: bool
    modules: tuple[RepairedModule, ...]
    rewrite: Rewrite
    warnings: tuple[str, ...] = ()


def repaired(
    adapter: Adapter,
    factors: NewFactors,
    *,
    loader: str = "peft",
    bake: bool = False,
    others: bool = False,
    fix: str = KEEP,
) -> Repaired:
    """Give modules new factors. Nothing is written and the input stays as it is; see `write_repaired`.

    Modules that are not named keep their tensors, bit for bit. Where ranks change, the configuration follows, so that
    each module keeps its scaling s. Keys are written as PEFT finds them, as `prune` does.

    Examples:
        >>> import s3lora
        >>> from s3lora.rewrite.factors import NewFactors, rounded
        >>> from s3lora.rewrite.repaired import repaired
        >>> with s3lora.open_adapter("my-adapter") as adapter:
        ...     first = adapter.modules[0]
        ...     half = rounded(first, first.A.array(), first.B.array().astype(float) / 2)
        ...     len(repaired(adapter, NewFactors({first.path: half})).modules)
        1

    Parameters:
        adapter: the adapter as it is.
        factors: new A (r′, n) and B (m, r′) by path, in the dtypes of the file, with ΔW′ = s·B·A.
        loader: the loader to write for: `peft`, `vllm`, `sglang` or `llamacpp`.
        bake: multiply every lora_B by its scaling, round it once more, and write one uniform `lora_alpha` = `r`.
        others: whether other formats than PEFT's may get other ranks; B then has what `ranks.folded` says in it.
        fix: what helps where another rank cannot be written.

    Raises:
        AdapterFileError: two tensors get one name once wrappers are taken off.
        SelectionError: a path is not in the adapter.
        UnsupportedAdapterError: the adapter's base weights change at load (PiSSA and its kin), DoRA, an adapter the
            loader rejects, or another rank where it cannot be written.
        UsageError: there is no such loader, factors that do not fit the module, or nothing to bake into.
    """
    rules = loader_of(loader, to_write=True)
    if factors.modules or bake:
        peft_config.refuse_changed_base(adapter)
    chosen = _chosen(adapter, factors)
    refuse_dora(chosen, "merge it, or train it again without use_dora")
    renamed, renamings = plain_names(adapter)
    after = _after(adapter, factors)
    raised = [new for new, old in zip(after.modules, adapter.modules, strict=True) if new.rank != old.rank]
    if raised:
        refuse_ranks(adapter, after, raised, rules, fix, others=others)
    rules.check(after, bake=bake)
    if bake and (adapter.format != "peft" or adapter.config is None):
        raise UsageError(worded("{bake} needs a PEFT adapter with its adapter_config.json"))
    if bake and (other := next((module for module in after.modules if module.form != "LoRA"), None)) is not None:
        raise UsageError(worded("{bake} needs LoRA, and {path} is {form}", path=printable(other.path), form=other.form))
    baking = baking_of(after.modules, rules) if bake else {}
    config = after.config
    if bake and config is not None:
        config = peft_config.baked(config, after.modules, by_tensor=rules.divides_by_tensor)
    rewrite = Rewrite(
        adapter,
        renamed=renamed,
        edits=edits_of(adapter.modules, {m.path: _edit(m, factors.modules[m.path]) for m in chosen}, baking),
        config=config,
        metadata=other_metadata(adapter, after.modules) if raised else {},
        check=partial(_check, after, baking),
    )
    modules = tuple(_module(module, factors.modules[module.path]) for module in chosen)
    told = (*_baking_notes(baking), *renamings, *code_notes(adapter, config))
    notes = (*_rank_notes(adapter, after, config, rules), *told)
    return Repaired(factors, loader, bake, modules, rewrite, notes)


def write_repaired(
    adapter: Adapter,
    factors: NewFactors,
    fields: RepairFields,
    out: str | os.PathLike[str],
    *,
    loader: str = "peft",
    bake: bool = False,
    force: bool = False,
) -> tuple[RepairProvenance, Written]:
    """Write a repaired adapter to the folder `out`, whole or not at all, and return its record.

    What comes along and what stays behind is as with `write_pruned`. The result is opened again: tensors must be what
    they should, and each module must have its rank and scaling. `restore` undoes it. Same input, same bytes.

    Examples:
        >>> import s3lora
        >>> from s3lora.rewrite.factors import NewFactors, rounded
        >>> from s3lora.rewrite.repair_record import RepairFields
        >>> from s3lora.rewrite.repaired import write_repaired
        >>> with s3lora.open_adapter("my-adapter") as adapter:
        ...     first = adapter.modules[0]
        ...     half = rounded(first, first.A.array(), first.B.array().astype(float) / 2)
        ...     how = RepairFields(method="shrink", strength=0.5)
        ...     record, _ = write_repaired(adapter, NewFactors({first.path: half}), how, "repaired")
        >>> record.done
        '1 repaired by shrink at strength 0.5'

    Parameters:
        adapter: the adapter as it is, open.
        factors: as for `repaired`.
        fields: what the record says of the repair.
        out: the folder to write; new or empty, unless `force`.
        loader: as for `repaired`.
        bake: as for `repaired`.
        force: replace an adapter folder, the input included.

    Raises what `repaired` does, and OutputError if `out` exists (without `force`), cannot be written, or does not
    verify.
    """
    made = repaired(adapter, factors, loader=loader, bake=bake)
    record = RepairProvenance(
        source=source_of(adapter),
        repair=fields,
        loader=loader,
        bake=bake,
        modules=made.modules,
        warnings=tuple(dict.fromkeys((*adapter.warnings, *fields.warnings, *made.warnings))),
        written=(),
    )
    return write_recorded(record, made.rewrite, out, force=force)


def _chosen(adapter: Adapter, factors: NewFactors) -> list[LoraModule]:
    """Return the modules that get new factors, in the order of the adapter; each must fit."""
    there = {module.path: module for module in adapter.modules}
    if unknown := sorted(set(factors.modules) - there.keys()):
        raise SelectionError("there are new factors of a module that the adapter has not", module=unknown[0])
    for path, new in factors.modules.items():
        module, (m, rank) = there[path], new.B.shape
        if not rank or new.A.shape != (rank, module.n) or m != module.m:
            what = f"the new factors do not fit: A is {new.A.shape}, B is {new.B.shape}"
            raise UsageError(what, module=path, shape=(module.m, module.n))
    return [module for module in adapter.modules if module.path in factors.modules]


def _after(adapter: Adapter, factors: NewFactors) -> Adapter:
    """Return the adapter as it will be, but for the values of factors that keep their rank."""

    def made(module: LoraModule) -> LoraModule:
        new = factors.modules.get(module.path)
        if new is None or new.rank == module.rank:
            return module
        a, b = (Factor(ArrayTensor(name, one), one.shape) for name, one in (("A", new.A), ("B", new.B)))
        fold = folded(adapter, module, new.rank)
        scaling = dataclasses.replace(module.scaling, value=module.scaling.value / fold)
        return dataclasses.replace(module, A=a, B=b, scaling=scaling)

    modules = tuple(made(module) for module in adapter.modules)
    config = other_config(adapter, modules)
    if config is not None:
        config = without_code(config)
        same = all(new.rank == old.rank for new, old in zip(modules, adapter.modules, strict=True))
        if adapter.format == "peft" and not same:
            config = peft_config.with_ranks(config, modules)
    return dataclasses.replace(adapter, modules=modules, config=config)


def _edit(module: LoraModule, new: NewFactor) -> ModuleEdit:
    rank = new.rank if new.rank != module.rank else None
    return ModuleEdit("what was made anew", lambda: (new.A, new.B), bias=new.bias, rank=rank)


def _module(module: LoraModule, new: NewFactor) -> RepairedModule:
    return RepairedModule(module.path, module.rank, new.rank, new.bias)


def _check(after: Adapter, baking: Mapping[str, float], result: Adapter) -> None:
    """Raise OutputError unless the adapter that was written has each module with its shape, rank and scaling."""
    there = {module.path: module for module in result.modules}
    for module in after.modules:
        found = there.get(module.path)
        same = found is not None and (found.m, found.n, found.rank) == (module.m, module.n, module.rank)
        scaling = found.scaling.value * baking.get(module.path, 1.0) if found is not None else 0.0
        # A module's group shares its scaling, so that a table of patterns can say it; otherwise this finds it.
        if not same or not math.isclose(scaling, module.scaling.value, rel_tol=1e-12):
            raise OutputError("did not verify: it would be loaded with another rank or scaling", module=module.path)


def _rank_notes(adapter: Adapter, after: Adapter, config: Mapping[str, Any] | None, rules: Loader) -> list[str]:
    pairs = zip(adapter.modules, after.modules, strict=True)
    changes = Counter((old.rank, new.rank) for old, new in pairs if old.rank != new.rank)
    if not changes or config is None or adapter.format != "peft":
        return []
    told = ", ".join(f"rank {old} → {new} in {count}" for (old, new), count in sorted(changes.items()))
    before, now = (adapter.config or {}).get("lora_alpha"), config["lora_alpha"]
    kept = f"; lora_alpha {before} → {now} keeps their scaling" if config is after.config else ""
    notes = [f"{told} of {len(after.modules)} modules{kept}"]
    if not isinstance(now, int):
        notes.append("lora_alpha is no whole number, which loaders read as it is; --bake-scaling writes alpha = r")
    largest = (max(module.rank for module in one.modules) for one in (adapter, after))
    if note := rules.rank_note(*largest):
        notes.append(note)
    return notes


def _baking_notes(baking: Mapping[str, float]) -> list[str]:
    if all(math.frexp(factor)[0] == 0.5 for factor in baking.values()):  # powers of two, which round nothing
        return []
    return ["the scaling in lora_B rounds it once more: the update is not to the last bit the one that was measured"]


__all__ = ["Repaired", "repaired", "write_repaired"]
