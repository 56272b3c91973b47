"""Adapter → Check: will it load on this base, and with these loaders?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from s3lora.adapter.digest import source_of
from s3lora.adapter.inventory.loaders import view_of
from s3lora.adapter.loaders import LOADERS, Loader, loader_of
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import opening
from s3lora.adapter.weights import PEFT_WEIGHTS
from s3lora.arguments import checked
from s3lora.base.model import BaseModel
from s3lora.base.names import renamings
from s3lora.base.read import read_base
from s3lora.compat.against_base import against
from s3lora.compat.results import BaseFacts, Check, LoaderVerdict, ModuleCheck
from s3lora.compat.rules import CheckRule, findings_of
from s3lora.compat.verdicts import verdict_of
from s3lora.errors import printable

#: ModuleNames of `target_modules` that stand for whatever the model has.
_ANY = ("all-linear", "all")


@checked
def check(
    adapter: Adapter | str | os.PathLike[str],
    base: BaseModel | str | os.PathLike[str] | None = None,
    loaders: Sequence[str] = (),
    fail_on: Sequence[str] = (),
) -> Check:
    """Return whether an adapter fits a base model, and what loaders make of it. No torch is needed.

    Examples:
        >>> import s3lora
        >>> check = s3lora.check("my-adapter", loaders=["vllm", "sglang=0.5.23"])
        >>> check["vllm"].verdict
        'same'

    Parameters:
        adapter: an opened adapter, or the path of one.
        base: the base model: its `config.json`, its folder, an index or file of its weights, or the name of one that is
            in the cache of the Hub; None checks against loaders alone.
        loaders: names of loaders, or `NAME=VERSION`; none takes those that are meant for such an adapter.
        fail_on: rules for `findings`: `loader:NAME`, `loaders` or `modules`.

    Raises:
        AdapterFileError: a file of the adapter or of the base cannot be read.
        UnsupportedAdapterError: the adapter is of a kind that s3lora does not read.
        NothingToAuditError: there is no LoRA module.
        UsageError: there is no such base, loader or rule.
    """
    rules = [CheckRule.parse(text) for text in fail_on]
    asked = [loader_of(name) for name in loaders]
    model = read_base(base) if isinstance(base, str | os.PathLike) else base
    with opening(adapter) as opened:
        return _checked(opened, model, asked, rules)


def verdicts_on(
    adapter: Adapter, loaders: Sequence[Loader], base: BaseModel | None = None
) -> tuple[LoaderVerdict, ...]:
    """Return what these loaders make of an adapter, on a base model where one is given."""
    return _verdicts(adapter, loaders, base, _modules(adapter, loaders, base))


def _verdicts(
    adapter: Adapter, loaders: Sequence[Loader], base: BaseModel | None, modules: Sequence[ModuleCheck]
) -> tuple[LoaderVerdict, ...]:
    return tuple(verdict_of(one, adapter, modules, base) for one in loaders)


def _checked(adapter: Adapter, base: BaseModel | None, asked: Sequence[Loader], rules: Sequence[CheckRule]) -> Check:
    view = view_of(adapter, adapter.inventory.files)
    # Without its configuration an adapter of PEFT's is still one that those loaders are tried with, and refuse.
    named = adapter.entry is not None and adapter.entry.name in PEFT_WEIGHTS
    lost = adapter.format == "peft" and adapter.config is None and named
    views = [view, *([replace(view, config={"peft_type": "LORA"})] if lost else [])]
    meant = [one for one in LOADERS.values() if any(one.reads(given) for given in views)]
    meant = meant or [*LOADERS.values()]
    gated = [rule.loader for rule in rules if rule.loader is not None]
    chosen = [*{one.shown: one for one in (*(asked or meant), *gated)}.values()]
    modules = _modules(adapter, chosen, base)
    made = Check(
        source=source_of(adapter),
        base=None if base is None else _facts(adapter, base),
        modules=modules,
        renamings=renamings(
            {one.path: one.base_path for one in modules if one.standing == "renamed" and one.base_path}
        ),
        loaders=_verdicts(adapter, chosen, base, modules),
        notes=tuple(_notes(adapter, base, modules)),
    )
    return replace(made, findings=findings_of(rules, made))


def _modules(adapter: Adapter, loaders: Sequence[Loader], base: BaseModel | None) -> tuple[ModuleCheck, ...]:
    view = view_of(adapter, adapter.inventory.files)
    scales = {one.shown: one.scales(adapter) for one in loaders if one.reads(view)}
    modules = tuple(
        ModuleCheck(
            path=printable(module.path, 512),
            shape=(module.m, module.n),
            rank=module.rank,
            scaling=module.scaling.value,
            scalings={name: compute(module) for name, compute in scales.items()},
        )
        for module in adapter.modules
    )
    return modules if base is None else against(adapter, base, modules)


def _facts(adapter: Adapter, base: BaseModel) -> BaseFacts:
    return BaseFacts(
        name=base.name,
        architecture=base.architecture,
        modules=len(base.modules),
        evidence=base.evidence,
        complete=base.complete,
        tied=base.tied,
        missing_targets=tuple(_missing_targets(adapter, base)),
    )


def _missing_targets(adapter: Adapter, base: BaseModel) -> Iterator[str]:
    """Yield the names in `target_modules` that no module of the base answers to, where all of its modules are known."""
    targets = (adapter.config or {}).get("target_modules")
    if not base.complete or not isinstance(targets, list):
        return
    ends = {end for path in base.modules for end in _ends(path)}
    # Experts that the base has fused have names of their own in older versions of it.
    ends.update(end for module in adapter.modules for end in _ends(module.path))
    yield from (printable(name, 120) for name in targets if str(name) not in ends and name not in _ANY)


def _ends(path: str) -> Iterator[str]:
    parts = path.split(".")
    yield from (".".join(parts[i:]) for i in range(len(parts)))


def _notes(adapter: Adapter, base: BaseModel | None, modules: Iterable[ModuleCheck]) -> Iterator[str]:
    inventory = adapter.inventory
    found = [name for name, files in (("code", inventory.code), ("pickles", inventory.pickles)) if files]
    if found:
        yield f"the folder holds {' and '.join(found)}, which scan lists: no verdict says what is run of that at load"
    yield from adapter.warnings
    if base is None:
        return
    yield from base.notes
    if base.modules and base.evidence == "configuration":
        yield f"names and shapes of the base are those of transformers 5 for {base.architecture}: no weights were given"
    unknown = sum(one.standing == "unknown" for one in modules)
    if unknown and base.modules:
        yield f"{unknown} modules lie where the names of the base are not known"
    both = {module.projection for module in adapter.modules}
    if base.tied and both & {"embed_tokens", "wte"} and both & {"lm_head"}:
        yield "embeddings and output layer are tied in the base, and both have an update: both act on one weight"
