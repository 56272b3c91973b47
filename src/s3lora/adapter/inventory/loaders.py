"""Which files of a folder each loader would take, and whether these are what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.adapter.inventory.model import InventoryFile, LoaderChoice
from s3lora.adapter.loaders import LOADERS
from s3lora.adapter.loaders.folder import LoaderView
from s3lora.adapter.model import Adapter


def choices(adapter: Adapter, files: Sequence[InventoryFile]) -> tuple[LoaderChoice, ...]:
    """Return what each loader that is meant for such an adapter would take of its folder.

    An adapter in memory, or opened as one file, has no folder to choose from.
    """
    if adapter.path is None or adapter.path == adapter.entry:
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
