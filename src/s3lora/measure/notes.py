"""What a reader of a result on several adapters must bear in mind, and which of them it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from s3lora.adapter.digest import Source
from s3lora.errors import printable


def shared_notes(names: Sequence[str], notes: Sequence[Iterable[str]]) -> list[str]:
    """Return every note once, behind the names of the adapters that have it; `notes` are those of each adapter.

    >>> shared_notes(["a", "b"], [["no index", "zero updates"], ["zero updates"]])
    ['a: no index', 'both: zero updates']
    """
    owners: dict[str, list[str]] = {}
    for name, own in zip(names, notes, strict=True):
        for note in own:
            owners.setdefault(note, []).append(name)
    return [f"{_who(concerned, len(names))}: {note}" for note, concerned in owners.items()]


def _who(names: Sequence[str], total: int) -> str:
    if len(names) == total:
        return "both" if total == 2 else f"all {total}"
    shown = ", ".join(printable(name, 60) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def other_bases(sources: Sequence[Source], so: str) -> list[str]:
    """Return a note where adapters name different base models, and what follows; a path counts by its last part."""
    names = dict.fromkeys(re.split(r"[/\\]", one.base_model.rstrip("/\\"))[-1] for one in sources if one.base_model)
    if len({name.casefold() for name in names}) < 2:
        return []
    shown = ", ".join(printable(name, 60) for name in [*names][:3]) + (", …" if len(names) > 3 else "")
    return [f"the adapters name different base models ({shown}): {so}"]
