"""Adapters that are given as `A+B`: active together, and each alone beside them."""

from __future__ import annotations

import os

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
            problem = f"{printable('+'.join(rest))} of {printable(path)} does not exist"
            raise UsageError(problem, fix="give A+B, the folders of adapters that are active together")
        found.append("+".join(rest[:end]))
        rest = rest[end:]
    if len({os.path.realpath(one) for one in found}) < len(found):
        raise UsageError(f"{printable(path)} names the same adapter twice", fix="an adapter is active once")
    return tuple(found)
