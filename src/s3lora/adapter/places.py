"""What a path that leads to no adapter probably means, and what to give instead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from s3lora.adapter.checkpoints import step_of
from s3lora.adapter.hub import HUB, WEB, hub_name, name_in_page
from s3lora.adapter.weights import WEIGHTS
from s3lora.errors import AdapterFileError, NothingToAuditError, nearest, printable
from s3lora.wording import worded

#: How deep, and among how many folders and names, an adapter is looked for near a path.
DEPTH, FOLDERS, NAMES = 4, 1000, 5000
TOLD = 6


def absent(given: str) -> AdapterFileError:
    """Return the error for a path at which nothing lies: it may be a name on the Hub, or one letter may be wrong.

    >>> print(absent("me/lora").fix)
    if it is a name on the Hub, fetch it first: hf download me/lora --local-dir lora
    """
    elsewhere = given.startswith((HUB, *WEB))
    named = name_in_page(given) if given.startswith(WEB) else hub_name(given.removeprefix(HUB).strip("/"))
    if elsewhere and named is None:
        return AdapterFileError(
            "is an address, and files are read", file=given, fix="fetch it first, and give its folder"
        )
    if named is not None and (elsewhere or not Path(given).parent.exists()):
        shown = printable(named)
        fetch = f"hf download {shown} --local-dir {shown.rpartition('/')[2]}"
        if elsewhere:
            return AdapterFileError(
                "is an address on the Hub, and files are read", file=given, fix=f"fetch it first: {fetch}"
            )
        fix = f"if it is a name on the Hub, fetch it first: {fetch}"
        return AdapterFileError("no such file or folder", file=given, fix=fix)
    near = _near(Path(given))
    meant = None if near is None else f"did you mean {printable(near, 240)}?"
    return AdapterFileError("no such file or folder", file=given, fix=meant)


def _near(path: Path) -> Path | None:
    """Return what lies beside a missing path under nearly its name."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, NAMES)]
    except (OSError, ValueError):
        return None
    found = nearest(path.name, sorted(names))
    return None if found is None else path.parent / found


def without_weights(folder: Path, looked_for: str) -> NothingToAuditError:
    """Return the error for a folder that holds no weights: its folders may.

    Parameters:
        folder: the folder.
        looked_for: what was looked for in it.
    """
    inner = inner_adapters(folder)
    if not inner:
        return NothingToAuditError(f"holds no adapter weights (looked for {looked_for})", file=folder)
    told = ", ".join(f"{printable(name, 120)}/" for name in inner[:TOLD])
    more = f" and {len(inner) - TOLD} more" if len(inner) > TOLD else ""
    fix = "give one of them, such as {path}"
    if os.sep not in inner[0]:
        fix += ", or {adapter}{name}"
    if len(inner) > 1:
        run = all(step_of(name) is not None for name in inner)
        fix += "; s3lora compare {folder} shows the run" if run else "; s3lora fleet scan {folder} takes them all"
    names = {
        "path": printable(folder / inner[0], 240),
        "name": printable(inner[0], 60),
        "folder": printable(folder, 240),
    }
    what = f"holds no adapter weights itself, its folders do: {told}{more}"
    return NothingToAuditError(what, file=folder, fix=worded(fix, **names))


def inner_adapters(folder: Path) -> list[str]:
    """Return the folders below `folder` that hold weights of a name that loaders look for, the nearest first.

    Links are not followed, nor are hidden folders looked into.
    """
    found = islice(_below(folder), FOLDERS)
    held = [one for one in found if any((one / name).exists() for name in WEIGHTS)]
    return [os.path.relpath(one, folder) for one in held]


def _below(folder: Path) -> Iterator[Path]:
    """Yield the folders below, level by level, each level in the order of names; checkpoints in that of their steps."""
    level = [folder]
    for _ in range(DEPTH):
        following: list[Path] = []
        for one in level:
            try:
                with os.scandir(one) as entries:
                    names = [
                        entry.name
                        for entry in islice(entries, NAMES)
                        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                    ]
            except OSError:
                continue
            following += [one / name for name in sorted(names, key=lambda name: (step_of(name) or 0, name))]
            if len(following) > FOLDERS:
                break
        yield from following
        level = following
