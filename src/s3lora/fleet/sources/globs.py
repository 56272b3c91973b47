"""Patterns of paths: `*`, `?` and `[…]` within one part, `**` for any number of parts."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

_MAGIC = re.compile(r"[*?\[]")


def is_pattern(path: str) -> bool:
    """Return whether `path` has a character that makes it a pattern."""
    return _MAGIC.search(path) is not None


def split_pattern(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the part of a pattern before its first special character, up to a `/`, and the parts that follow.

    >>> split_pattern("/data/runs-*/final")
    ('/data/', ('runs-*', 'final'))
    """
    magic = _MAGIC.search(path)
    at = path.rfind("/", 0, magic.start() if magic else len(path)) + 1
    return path[:at], tuple(part for part in path[at:].split("/") if part not in ("", "."))


def matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether the parts of a path match the whole pattern."""
    return len(pattern) in _reached(parts, pattern)


def may_hold(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether a folder can be, lie under, or hold something that matches."""
    return any(matches(parts[:i], pattern) for i in range(1, len(parts))) or bool(_reached(parts, pattern))


def _reached(parts: tuple[str, ...], pattern: tuple[str, ...]) -> set[int]:
    """Return how many parts of the pattern may be used up by all of `parts`; the time is their product."""
    states = _skip({0}, pattern)
    for part in parts:
        # as a shell does: no `**` stands for a hidden folder
        after = {i for i in states if i < len(pattern) and pattern[i] == "**" and not part.startswith(".")}
        after |= {i + 1 for i in states if i < len(pattern) and pattern[i] != "**" and _one(pattern[i]).match(part)}
        states = _skip(after, pattern)
        if not states:
            break
    return states


def _skip(states: set[int], pattern: tuple[str, ...]) -> set[int]:
    """Add what is reached when each `**` stands for nothing."""
    found = set(states)
    for i in range(len(pattern)):
        if i in found and pattern[i] == "**":
            found.add(i + 1)
    return found


@lru_cache(maxsize=256)
def _one(part: str) -> re.Pattern[str]:
    # As a shell does: a name that begins with a dot is matched by a pattern that begins with one.
    hidden = "" if part.startswith(".") else r"(?!\.)"
    return re.compile(hidden + translate(part), re.DOTALL)
