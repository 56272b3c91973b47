"""`rank_pattern` and `alpha_pattern` of a PEFT configuration, resolved as PEFT resolves them.

The keys are regular expressions out of an untrusted file, and Python's matcher has no time limit: a key that could
take exponential time is refused before it is used.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from s3lora.errors import AdapterFileError, printable

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import sre_constants as sre
    import sre_parse

MAX_PATTERN = 1024


class Pattern:
    """An ordered table of regular expressions on module paths; the first that matches decides.

    The rule is that of `peft.utils.other.get_pattern_key`: `(.*\\.)?(key)$` from the start of the path. Most keys
    are plain names, which need no regular expression.
    """

    def __init__(self, table: object, field: str, label: str) -> None:
        """Check `table` (a mapping from pattern to positive number, or None)."""
        self._entries: list[tuple[re.Pattern[str], float]] = []
        if table is None:
            return
        if not isinstance(table, Mapping):
            raise AdapterFileError(f"`{field}` must be an object", file=label)
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise AdapterFileError(f"`{field}` gives {printable(value)} for {printable(key)}", file=label)
            self._entries.append((_compiled(str(key), field, label), value))

    def __bool__(self) -> bool:
        """Return whether there is any entry."""
        return bool(self._entries)

    def find(self, path: str) -> float | None:
        """Return the number of the first entry that matches the module path, else None."""
        return next((value for expression, value in self._entries if expression.match(path)), None)


def _compiled(key: str, field: str, label: str) -> re.Pattern[str]:
    if len(key) > MAX_PATTERN:
        raise AdapterFileError(f"`{field}` has a key of {len(key)} characters", file=label)
    try:
        if re.fullmatch(r"[\w.]*", key) is None and _can_explode(sre_parse.parse(key), inside=False):
            raise AdapterFileError(
                f"`{field}` has a pattern that could take exponential time: {printable(key)}",
                file=label,
                fix="write the module paths without nested repetition",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(rf"(.*\.)?({key})$")
    except (re.error, RecursionError, OverflowError) as error:
        raise AdapterFileError(f"`{field}` has no valid pattern: {printable(key)} ({error})", file=label) from None


def _can_explode(parsed: Any, *, inside: bool) -> bool:
    """Return whether a repetition stands inside another, or a choice inside a repetition."""
    repeats = (sre.MAX_REPEAT, sre.MIN_REPEAT)
    for operation, argument in parsed:
        if operation in repeats:
            low, high, body = argument
            if high > 1 and (inside or _can_explode(body, inside=True)):
                return True
        elif operation is sre.BRANCH:
            if inside or any(_can_explode(choice, inside=inside) for choice in argument[1]):
                return True
        elif operation is sre.SUBPATTERN:
            if _can_explode(argument[-1], inside=inside):
                return True
        elif operation in (sre.ASSERT, sre.ASSERT_NOT):
            if _can_explode(argument[1], inside=inside):
                return True
        elif operation is sre.GROUPREF_EXISTS or operation is sre.GROUPREF:
            return True
    return False
