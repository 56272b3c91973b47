"""`rank_pattern` and `alpha_pattern` of a PEFT configuration, resolved as PEFT resolves them.

The keys are regular expressions out of an untrusted file, and Python's matcher has no time limit. So the worst case
of each key is counted before it is used: a key that could take too long on one path is refused, and so is a table
that could take too long on all of them.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3lora.errors import AdapterFileError, printable

if sys.version_info >= (3, 11):
    from re import _constants as sre  # type: ignore[attr-defined]
    from re import _parser as sre_parse  # type: ignore[attr-defined]
else:
    import sre_constants as sre
    import sre_parse

MAX_PATTERN = 1024
#: Most ways in which a key may try to match TYPICAL characters: three times `.*` and some choices stay below it.
MAX_WAYS = 20_000_000
TYPICAL = 96
#: Most steps for a whole table: seconds at worst, because the count is far above what a match takes.
MAX_STEPS = 5_000_000_000
#: What comparing one plain name costs, in steps of the matcher.
PLAIN_STEPS = 50
_PLAIN = re.compile(r"[\w.]*")
_REPEATS = frozenset({sre.MAX_REPEAT, sre.MIN_REPEAT})
_SINGLE = frozenset({sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN, sre.AT})


@dataclass(slots=True)
class _Entry:
    """One key of the table: its place in it, its number, and how to try it."""

    order: int
    value: float
    expression: re.Pattern[str]
    last_word: str = ""
    parsed: Any = None
    ways: dict[int, int] = field(default_factory=dict)

    def steps(self, path: str) -> int:
        """Return an upper bound on the work of one match: the ways to match, from each dot in the path."""
        size = len(path)
        if size not in self.ways:
            self.ways[size] = _ways(self.parsed, size)
        return self.ways[size] * (path.count(".") + 2)


class Pattern:
    """An ordered table of regular expressions on module paths; the first that matches decides.

    The rule is that of `peft.utils.other.get_pattern_key`: `(.*\\.)?(key)$` from the start of the path. Most keys
    are plain names, in which only the dot is special: they can match no more than a suffix of their own length.
    """

    def __init__(self, table: object, field: str, label: str) -> None:
        """Check `table` (a mapping from pattern to positive number, or None)."""
        self._field, self._label = field, label
        self._plain: dict[int, list[_Entry]] = {}
        self._others: list[_Entry] = []
        self._steps = 0
        if table is not None and not isinstance(table, Mapping):
            raise AdapterFileError(f"`{field}` must be an object", file=label)
        for order, (key, value) in enumerate((table or {}).items()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
                number = f"{printable(value, 40)} for {printable(key)}"
                raise AdapterFileError(f"`{field}` gives {number}, not a positive number", file=label)
            self._add(str(key), order, value)

    def __bool__(self) -> bool:
        """Return whether there is any entry."""
        return bool(self._plain or self._others)

    def find(self, path: str) -> float | None:
        """Return the number of the first entry that matches the module path, else None."""
        candidates = (self._match(entries, path) for entries in (self._others, *self._of_fitting_length(path)))
        found = [entry for entry in candidates if entry is not None]
        return min(found, key=lambda entry: entry.order).value if found else None

    def _add(self, key: str, order: int, value: float) -> None:
        plain = _PLAIN.fullmatch(key) is not None
        expression, parsed = _compiled(key, plain, self._field, self._label)
        if plain:
            self._plain.setdefault(len(key), []).append(_Entry(order, value, expression, key.rpartition(".")[2]))
        else:
            self._others.append(_Entry(order, value, expression, parsed=parsed))

    def _of_fitting_length(self, path: str) -> Iterator[list[_Entry]]:
        """Yield the plain keys that are as long as the path, or as one of its ends after a dot."""
        if not self._plain:
            return
        for start in (0, *(at + 1 for at, character in enumerate(path) if character == ".")):
            yield self._plain.get(len(path) - start, [])

    def _match(self, entries: Iterable[_Entry], path: str) -> _Entry | None:
        for entry in entries:
            self._steps += PLAIN_STEPS if entry.parsed is None else entry.steps(path)
            if self._steps > MAX_STEPS:
                raise AdapterFileError(
                    f"`{self._field}` could take hours to match",
                    file=self._label,
                    fix="write fewer keys, and module paths instead of regular expressions",
                )
            if path.endswith(entry.last_word) and entry.expression.match(path):
                return entry
        return None


def _compiled(key: str, plain: bool, field: str, label: str) -> tuple[re.Pattern[str], Any]:
    if len(key) > MAX_PATTERN:
        raise AdapterFileError(f"`{field}` has a key of {len(key)} characters", file=label)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = None if plain else sre_parse.parse(key)
            if parsed is not None and _ways(parsed, TYPICAL) > MAX_WAYS:
                raise AdapterFileError(
                    f"`{field}` has a pattern that could take exponential time: {printable(key)}",
                    file=label,
                    fix="write the module paths without nested repetition",
                )
            return re.compile(rf"(.*\.)?({key})$"), parsed
    except (re.error, RecursionError, OverflowError) as error:
        reason = f"`{field}` has no valid pattern: {printable(key)} ({printable(error, 80)})"
        raise AdapterFileError(reason, file=label) from None


def _ways(parsed: Any, size: int) -> int:
    """Return an upper bound on the ways in which a backtracking matcher can try `parsed` on `size` characters.

    A sequence multiplies, a choice adds, a repetition multiplies as often as it may repeat. Counting stops above
    MAX_WAYS per character, so that the numbers stay small.
    """
    limit = MAX_WAYS * max(size, 1)
    total = 1
    for operation, argument in parsed:
        total = min(limit, total * _ways_of(operation, argument, size, limit))
    return total


def _ways_of(operation: Any, argument: Any, size: int, limit: int) -> int:
    if operation in _SINGLE:
        return 1
    if operation is sre.BRANCH:
        return sum(_ways(choice, size) for choice in argument[1])
    if operation is sre.SUBPATTERN:
        return _ways(argument[-1], size)
    if operation in _REPEATS:
        low, high, body = argument
        most = min(int(high), size)
        counts = max(1, most - min(int(low), size) + 1)
        inner = _ways(body, size)
        return counts if inner == 1 else limit if most * math.log(inner) > 40 else min(limit, counts * inner**most)
    # Lookaround, references to groups, possessive and atomic groups: no real pattern needs them.
    return limit
