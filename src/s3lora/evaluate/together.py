"""Adapters that are given as `A+B`: active together, and each alone beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from s3lora.errors import UsageError, printable


def split_together(path: str) -> tuple[str, ...]:
    """Return the paths in `A+B`; the path itself where it is that of an adapter, or holds no plus sign.

    Names may hold a plus sign of their own: the shortest piece that exists is taken each time. Raises UsageError where
    a piece does not exist, or one is there twice.
    """
    if "+" not in path or os.path.lexists(path):
        return (path,)
    found: list[str] = []
    rest = path.split("+")
    while rest:
        ends = (n for n in range(1, len(rest) + 1) if os.path.lexists("+".join(rest[:n])))
        end = next(ends, None)
        if end is None:
            problem = f"{printable(rest[0])} of {printable(path)} does not exist"
            raise UsageError(problem, fix="give A+B, the folders of adapters that are active together")
        found.append("+".join(rest[:end]))
        rest = rest[end:]
    if len({os.path.realpath(one) for one in found}) < len(found):
        raise UsageError(f"{printable(path)} names the same adapter twice", fix="an adapter is active once")
    return tuple(found)


def alone_and_groups(paths: Sequence[str]) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return the adapters that are measured alone, and each group of several together as places among these.

    What is named within a group is measured alone as well.
    """
    named = [split_together(path) for path in paths]
    alone = [one[0] for one in named if len(one) == 1]
    groups = list(dict.fromkeys(one for one in named if len(one) > 1))
    alone += [path for path in dict.fromkeys(path for group in groups for path in group) if path not in alone]
    return alone, [tuple(alone.index(path) for path in group) for group in groups]
