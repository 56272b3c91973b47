"""What one loader does with an adapter: its own rules, the files it takes, and what the base model has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from s3lora.adapter.inventory.loaders import own_problems, problems_of
from s3lora.adapter.loaders import Loader
from s3lora.adapter.loaders.folder import added_words
from s3lora.adapter.loaders.problems import DropPart, Effect, Problem, some
from s3lora.adapter.model import Adapter
from s3lora.base.model import BaseModel
from s3lora.base.names import readable_change, tail_of
from s3lora.compat.results import LoaderReason, LoaderVerdict, ModuleCheck, Verdict
from s3lora.compat.stacked import stacked
from s3lora.errors import S3LoRAError, printable
from s3lora.rewrite.convert.converting import convert
from s3lora.wording import for_command

#: `w_000` and `unet:9`: names that say nothing of a model.
_NUMBERED = re.compile(r"[A-Za-z_]+[:_]\d+")
_GRAVITY: tuple[Verdict, ...] = ("same", "unknown", "other", "fails")


def verdict_of(
    loader: Loader,
    adapter: Adapter,
    modules: Sequence[ModuleCheck],
    base: BaseModel | None,
) -> LoaderVerdict:
    """Return what a loader does; of the newest version that was seen, unless the loader is of another."""
    meant = loader if loader.version is not None or not loader.seen else loader.at(loader.seen[-1])
    tied = None if base is None else base.tied
    own = [one for problem in problems_of(meant, adapter) for one in _where_tied(problem, tied)]
    numbered = [*_numbered(adapter)] if base is None else []
    command = None if numbered else _mending(loader, meant, adapter, own)
    problems = [
        *own,
        *numbered,
        *_names(loader, modules, base),
        *_shapes(loader, modules),
        *_built(loader, adapter, modules, base),
        *_tied(loader, adapter, base),
        *_words(loader, adapter, base),
    ]
    reasons = tuple(
        LoaderReason(
            effect=one.effect,
            what=one.what,
            fix=for_command(one.fix),
            modules=one.modules,
            command=command if one.mends is not None else None,
        )
        for one in problems
    )
    outcomes: list[Verdict] = ["same", *(one.effect for one in problems)]
    verdict = max(outcomes, key=_GRAVITY.index)
    return LoaderVerdict(
        loader=loader.name,
        version=loader.version,
        verdict=verdict,
        reasons=reasons,
        notes=tuple(dict.fromkeys((*_notes(loader, adapter, base), *_older(loader, meant, adapter), *_unseen(loader)))),
        seen=loader.seen,
        how=loader.how,
    )


def _mending(loader: Loader, meant: Loader, adapter: Adapter, problems: Sequence[Problem]) -> str | None:
    """Return the command that writes the adapter so that the loader loads it, None where there is none that does."""
    if all(problem.mends is None for problem in problems):
        return None
    named = {part for problem in problems for part in problem.mends or ()}
    drop: list[DropPart] = ["all"] if "all" in named else sorted(named)
    # Of what all its releases load, and else of what the newest does.
    for asked in (loader, meant):
        try:
            convert(adapter, loader=asked.shown, drop=drop)
        except S3LoRAError:
            continue
        return " ".join(["s3lora convert PATH --loader", asked.shown, *(f"--drop {part}" for part in drop), "-o OUT"])
    return None


def _numbered(adapter: Adapter) -> Iterator[Problem]:
    """Yield modules that are only numbered: no model is known to have such, and no base is here to tell."""
    if paths := [one.path for one in adapter.modules if _NUMBERED.fullmatch(one.path)]:
        what = f"has modules called {some(paths)}, and no model is known to have such names"
        yield Problem(what, "hold it against its base by `--base`", "unknown", tuple(paths))


def _names(loader: Loader, modules: Sequence[ModuleCheck], base: BaseModel | None) -> Iterator[Problem]:
    """Yield what comes of modules that the base has not, or calls otherwise."""
    missing_of: dict[tuple[Effect, str], list[str]] = {}
    there = set() if base is None else {path.rpartition(".")[2] for path in base.modules}
    for one in modules:
        if one.standing == "missing":
            elsewhere = one.path.rpartition(".")[2] in there
            missing_of.setdefault(loader.missing_in(layer=elsewhere), []).append(one.path)
    for (effect, does), missing in missing_of.items():
        what = f"has {len(missing)} modules that the base has not ({some(missing)}), and the loader {does}"
        yield Problem(what, "give the base that it was trained on, or take these modules out", effect, tuple(missing))
    architecture = None if base is None else base.architecture
    by_effect: dict[tuple[Effect, str], list[ModuleCheck]] = {}
    for one in modules:
        if one.standing == "renamed" and (change := _of_renamed(loader, one, architecture)) is not None:
            by_effect.setdefault(change, []).append(one)
    for (effect, does), renamed in by_effect.items():
        one = renamed[0]
        what = (
            f"has {len(renamed)} modules that the base calls otherwise ({printable(one.path, 120)} is "
            f"{printable(one.base_path or '', 120)}), and the loader {does}"
        )
        yield Problem(what, "rename the keys as the check tells", effect, tuple(one.path for one in renamed))


def _of_renamed(loader: Loader, one: ModuleCheck, architecture: str | None) -> tuple[Effect, str] | None:
    """Return what comes of a module that the base calls otherwise, and what the loader does; None where it finds it."""
    path, base_path = one.path, one.base_path or ""
    if loader.by_layer and tail_of(path) == tail_of(base_path):
        return None
    old = readable_change(path, base_path)[0]
    mapped = loader.maps.get((architecture or "", old), loader.maps.get(("", old)))
    if mapped is not None:
        return None if mapped else loader.missing_in(layer=False)
    return loader.renamed or loader.missing_in(layer=False)


def _where_tied(problem: Problem, tied: bool | None) -> Iterator[Problem]:
    """Yield a problem unless it needs a tied base and this is none; whether it is may not be known."""
    if not problem.tied or tied:
        yield problem
    elif tied is None:
        yield replace(problem, effect="unknown")


def _shapes(loader: Loader, modules: Sequence[ModuleCheck]) -> Iterator[Problem]:
    """Yield the modules whose shapes are not those of the base, at which loaders stop but for rows that some cut."""
    every = [one for one in modules if one.fits is False]
    surplus = [one for one in every if one.path.rpartition(".")[2] in loader.cuts and _is_longer(one)]
    stops = "at which the loader stops", [one for one in every if one not in surplus]
    cut = "of which the loader takes the wrong rows with no word", surplus
    for effect, (does, wrong) in (("fails", stops), ("other", cut)):
        if not wrong:
            continue
        one = wrong[0]
        m, n = one.base_shape or (0, 0)
        told = f"{printable(one.path, 120)} is {one.shape[0]} × {one.shape[1]}, its weight {m} × {n}"
        note = f": {one.note}" if one.note else ""
        what = f"has {len(wrong)} modules whose shape is not that of the base ({told}{note}), {does}"
        fix = "give the base that it was trained on"
        yield Problem(what, fix, effect, tuple(one.path for one in wrong))  # type: ignore[arg-type]


def _is_longer(one: ModuleCheck) -> bool:
    m, n = one.base_shape or (0, 0)
    return one.shape[0] > m and one.shape[1] == n


def _built(
    loader: Loader, adapter: Adapter, modules: Sequence[ModuleCheck], base: BaseModel | None
) -> Iterator[Problem]:
    """Yield what a loader that builds modules by the configuration cannot build in this base."""
    if base is None or not loader.builds:
        return
    there: dict[str, dict[str, set[int]]] = {}
    for module, one in zip(adapter.modules, modules, strict=True):
        if one.standing == "expert" and one.base_path and module.group is None and module.expert is not None:
            there.setdefault(one.base_path, {}).setdefault(module.projection, set()).add(module.expert)
    lacking = [
        path for path, parts in there.items() if any(len(one) < base.modules[path].experts for one in parts.values())
    ]
    if lacking:
        what = f"has some experts of {some(lacking)} and not the others, which the loader stacks into one"
        yield Problem(what, "add the other experts with lora_B = 0, which changes nothing", modules=tuple(lacking))
    yield from stacked(adapter, [*zip(adapter.modules, modules, strict=True)], base)
    targets = (adapter.config or {}).get("target_modules")
    if base.complete and isinstance(targets, list) and targets and not there:
        ends = {f".{path}"[at:] for path in base.modules for at in _dots(path)}
        if not any(f".{name}" in ends for name in targets) and not (adapter.config or {}).get("target_parameters"):
            what = f"has {some([str(name) for name in targets])} in `target_modules`, and the base none of them"
            yield Problem(what, "give the base that it was trained on, or the names that it has")


def _dots(path: str) -> Iterator[int]:
    """Yield where the path, after a dot in front, has a dot."""
    yield from (at for at, letter in enumerate(f".{path}") if letter == ".")


def _tied(loader: Loader, adapter: Adapter, base: BaseModel | None) -> Iterator[Problem]:
    """Yield what comes of an update of an output layer that is tied to the embeddings."""
    heads = [module.path for module in adapter.modules if module.projection == "lm_head"]
    if base is not None and base.tied and heads and loader.tied_head is not None:
        effect, does = loader.tied_head
        what = f"has an update of {some(heads)}, which is tied to the embeddings in the base, and the loader {does}"
        yield Problem(what, "leave lm_head out of the training, or untie the base", effect, tuple(heads))


def _words(loader: Loader, adapter: Adapter, base: BaseModel | None) -> Iterator[Problem]:
    """Yield what comes of a tokenizer with more words than the base has embeddings."""
    if loader.more_words is None or base is None:
        return
    rows = [one.shape[0] for one in base.modules.values() if one.kind == "embedding" and one.shape is not None]
    names = [name for name, number in added_words(adapter).items() if rows and number >= max(rows)]
    if names:
        what = f"brings {len(names)} words in added_tokens.json ({some(names)}) that the base has not"
        yield Problem(f"{what}, and the loader {loader.more_words}", "take added_tokens.json out of the folder")


def _notes(loader: Loader, adapter: Adapter, base: BaseModel | None) -> Iterator[str]:
    apart = base is not None and base.tied is False
    for note in loader.notes(adapter):
        if not (apart and "tied" in note):
            yield note


def _older(loader: Loader, meant: Loader, adapter: Adapter) -> Iterator[str]:
    """Yield what releases before the one that is meant make of the adapter, where it is something else."""
    if loader.version is not None:
        return
    now = {problem.what for problem in own_problems(meant, adapter)}
    for problem in own_problems(loader, adapter):
        if problem.what not in now and problem.before is not None:
            outcome = {"fails": "stops", "other": "loads another update", "unknown": "was not seen"}[problem.effect]
            yield f"{outcome} before {problem.before}: the adapter {problem.what}"


def _unseen(loader: Loader) -> Iterator[str]:
    """Yield that the version that is asked about was not seen."""
    if loader.version is None or loader.version in loader.seen or not loader.seen:
        return
    yield f"was not run in {loader.version}: what is told of versions was seen in {', '.join(loader.seen)}"
