"""Which files of a folder each loader would take, whether these are what was measured, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from s3lora.adapter.inventory.model import InventoryFile, LoaderChoice
from s3lora.adapter.loaders import LOADERS, Loader
from s3lora.adapter.loaders.folder import LoaderView
from s3lora.adapter.loaders.problems import Problem, some
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import CONFIG, is_alone
from s3lora.errors import printable


def choices(adapter: Adapter, files: Sequence[InventoryFile]) -> tuple[LoaderChoice, ...]:
    """Return what each loader that is meant for such an adapter would take of its folder.

    An adapter in memory, or one that is a file alone, has no folder to choose from.
    """
    if adapter.path is None or is_alone(adapter):
        return ()
    view = view_of(adapter, files)
    measured = {file.path for file in files if file.role == "weights"}
    same = {file.path for file in files if file.content == "same"}
    made = []
    for loader in LOADERS.values():
        if not loader.reads(view):
            continue
        taken, note = loader.takes(view)
        fits = set(taken) in (set(), measured) or all(name in same or {name} == measured for name in taken)
        if not fits and not note:
            note = f"{', '.join(taken)} {'is' if len(taken) == 1 else 'are'} not what was measured"
        made.append(LoaderChoice(loader=loader.name, files=taken, measured=fits, note=note))
    return tuple(made)


def view_of(adapter: Adapter, files: Sequence[InventoryFile]) -> LoaderView:
    """Return what a loader looks at, of an adapter whose folder holds these files."""
    names = tuple(file.path for file in files if "/" not in file.path)
    return LoaderView(names, adapter.config, adapter.format)


def problems_of(loader: Loader, adapter: Adapter) -> list[Problem]:
    """Return what a loader has against an adapter as it lies in its files."""
    return [*_of_files(loader, adapter), *own_problems(loader, adapter)]


def own_problems(loader: Loader, adapter: Adapter) -> list[Problem]:
    """Return what a loader has against an adapter, whatever files it takes."""
    return [problem for problem in loader.all_problems(adapter) if problem.told != "prune"]


def _of_files(loader: Loader, adapter: Adapter) -> Iterator[Problem]:
    """Yield what is wrong with the files that the loader takes of the folder, or with the name of the one file."""
    if is_alone(adapter):
        yield from _of_name(loader, adapter)
        return
    choice = next((one for one in adapter.inventory.loaders if one.loader == loader.name), None)
    if choice is None:
        return
    if not choice.files:
        what = f"lies in files that it does not take: it {choice.note}"
        yield Problem(what, "name its weights as the loader does", mends=())
    elif not choice.measured:
        what = f"lies in a folder of which it takes {some([*choice.files])}, which is not what was read here"
        yield Problem(what, "keep one file of weights in the folder", "other", mends=())


def _of_name(loader: Loader, adapter: Adapter) -> Iterator[Problem]:
    """Yield that a loader does not find the file that is the adapter, under its name."""
    name = os.path.basename(adapter.path or "")
    view = LoaderView((name, *((CONFIG,) if adapter.config is not None else ())), adapter.config, adapter.format)
    if loader.reads(view):
        taken, note = loader.takes(view)
        if not taken:
            what = f"is called {printable(name, 80)}, and of its folder the loader {note}"
            yield Problem(what, "name its weights as the loader does", mends=())
