"""For a loader: the format that it reads, what to bake or pad for it, and whether it loads what was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from s3lora.adapter import peft_config
from s3lora.adapter.formats.forms import PRODUCTS
from s3lora.adapter.inventory.loaders import own_problems, problems_of
from s3lora.adapter.loaders import Loader
from s3lora.adapter.loaders.problems import Problem
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_adapter
from s3lora.errors import UnsupportedAdapterError, UsageError, printable
from s3lora.rewrite.convert.peft import keeps_config
from s3lora.rewrite.convert.target import ConvertWish, TargetFiles, updates_of
from s3lora.wording import worded


def format_for(loader: Loader, to: str | None) -> str:
    """Return what is written for a loader; raise UsageError where that is not what is asked for."""
    if to is not None and to not in loader.formats:
        formats = " or ".join(loader.formats)
        raise UsageError(
            f"{loader.name} does not read {printable(to, 40)}",
            fix=worded("give {to} {formats}, or leave it out", formats=formats),
        )
    return to or loader.formats[0]


def wish_for(loader: Loader, adapter: Adapter, wish: ConvertWish) -> ConvertWish:
    """Return the wish with what the loader needs besides: a regular expression as names, one rank, no scaling.

    Raises UnsupportedAdapterError for what no writing mends.
    """
    if wish.to != "peft":
        return wish  # the other formats have scalings and ranks as their loaders read them
    refuse_lost(loader, own_problems(loader, adapter), adapter.name)
    kept = keeps_config(adapter)
    config = adapter.config or {}
    ranks = {module.rank for module in adapter.modules}
    if loader.one_rank and len(ranks) > 1 and wish.pad is None:
        wish = dataclasses.replace(wish, pad=0)
    padded = wish.pad is not None and ranks != {wish.pad or max(ranks)}
    wrong = loader.one_rank and kept and len(ranks) == 1 and config.get("r") not in ranks
    if wrong or _misscaled(loader, adapter, anew=not kept or padded, wish=wish):
        wish = dataclasses.replace(wish, bake=True)
    if wish.bake and wish.pad is None and loader.divides_by_tensor and len(ranks) > 1:
        wish = dataclasses.replace(wish, pad=0)
    return dataclasses.replace(wish, listed=loader.lists_targets)


def _misscaled(loader: Loader, adapter: Adapter, *, anew: bool, wish: ConvertWish) -> bool:
    """Return whether the loader would scale modules otherwise, once their configuration is written, `anew` or kept."""
    if not anew:
        return loader.misscaled(adapter) is not None
    if any(module.form not in PRODUCTS for module in adapter.modules):
        return False
    updates = updates_of(adapter, wish, {module.path: module.path for module in adapter.modules})
    modules = tuple(dataclasses.replace(update.as_module(), form="LoRA") for update in updates)
    config = peft_config.with_ranks({}, modules)
    written = dataclasses.replace(adapter, format="peft", config=config, modules=modules)
    return loader.misscaled(written) is not None


def refuse_lost(loader: Loader, problems: Iterable[Problem], name: str) -> None:
    """Raise UnsupportedAdapterError if the loader stops or loads another update however the adapter is written."""
    for problem in problems:
        # Whether the base ties its embeddings is not known here.
        if problem.mends is None and problem.effect != "unknown" and not problem.tied:
            what = f"{loader.shown} cannot load this adapter: it {problem.what}"
            raise UnsupportedAdapterError(what, file=name, fix=problem.fix)


def refuse_unloadable(loader: Loader, adapter: Adapter, files: TargetFiles) -> None:
    """Raise UnsupportedAdapterError if the loader stops at an adapter of another format once it is PEFT's."""
    if files.config is None or keeps_config(adapter) or loader.formats[0] != "peft" or loader.builds:
        return  # what builds modules goes by their keys, which are not written yet
    modules = tuple(
        dataclasses.replace(
            module, path=files.paths[module.path], form="LoRA" if module.form in PRODUCTS else module.form
        )
        for module in adapter.modules
    )
    written = dataclasses.replace(adapter, format="peft", config=dict(files.config), modules=modules)
    refuse_lost(loader, own_problems(loader, written), adapter.name)


def notes_for(loader: Loader, folder: Path, name: str) -> Sequence[str]:
    """Return what is not known of the loader and what was written; raise UnsupportedAdapterError where it is lost."""
    with open_adapter(folder) as written:
        problems = problems_of(loader, written)
    mended = [dataclasses.replace(problem, mends=None) for problem in problems]
    refuse_lost(loader, mended, name)
    return [f"{loader.shown} is not known to load it: it {problem.what}" for problem in mended]
