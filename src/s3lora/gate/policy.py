"""A policy: rules and options for scanning, in `s3lora.toml` or under `[tool.s3lora]` in `pyproject.toml`.

The TOML reader gives values without their lines. For an error the line is found by reading longer and longer beginnings
of the file: a key stands in the first of them that has it.
"""

from __future__ import annotations

import bisect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from s3lora.choose.rules import RULES
from s3lora.errors import UsageError, one_of, printable
from s3lora.files import read_whole
from s3lora.wording import worded

OWN_FILE = "s3lora.toml"
SHARED_FILE = "pyproject.toml"
#: Largest file read, in bytes.
MAX_POLICY = 1024 * 1024
#: Key → what its value must be. They are the options of `scan`, without their hyphens.
KEYS = {
    "fail-on": "a list of strings",
    "allow": "a list of strings",
    "baseline": "a string",
    "reference": "a string",
    "preset": "a string",
    "method": "a string",
    "rank": "a whole number",
    "fit": "a string",
    "sample": "a whole number",
    "kurtosis": "true or false",
    "max-cost": "a number",
    "seed": "a whole number",
    "index": "a string",
    "match": "a string",
    "rule": "a string",
    **{setting.name: setting.kind for rule in RULES.values() for setting in rule.settings},
    "projection": "a string or a list of strings",
    "layers": "a string",
    "only": "a string",
    "unit": "a string",
    "combine": "a string",
}
#: Keys that say how many modules are chosen, of which one may be given.
CHOICES = (*(rule.name for rule in RULES.values() if rule.asked_by_option), "rule")
#: What a preset stands for, besides.
PRESET = ("method", "index")
_LARGEST = 2**63
#: What to do where keys stand as in the other of the two files.
_OWN = f"only {SHARED_FILE} has such a table: write the keys at the top, without a table"
_SHARED = f"in {SHARED_FILE} the keys stand under [tool.s3lora]; only {OWN_FILE} has them at the top"
#: Lines on which a key is looked for, and lines that one value may take.
_CANDIDATES, _LINES = 200, 1000
#: Characters that are parsed for it, all tries together.
_PARSED = 20_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """What a policy file says: `values` by key, checked for their types; `file` as it is named to the user."""

    file: Path
    values: dict[str, Any]
    text: str
    table: tuple[str, ...]

    def beside(self, given: Collection[str]) -> dict[str, Any]:
        """Return the values that are left beside options given elsewhere, which win; `given` has their keys.

        A way to choose modules takes the place of any other, and a preset that of all it stands for.
        """
        lost = set(given)
        if lost.intersection(CHOICES) or "preset" in lost:
            lost.update(CHOICES)
        if "preset" in lost:
            lost.update(PRESET)
        return {key: value for key, value in self.values.items() if key not in lost}

    def error(self, key: str, problem: str, *, item: str | None = None, fix: str | None = None) -> UsageError:
        """Return an error on the line of the key, or of an item in its list."""
        return UsageError(problem, file=f"{self.file}:{_line(self.text, self.table, key, item)}", fix=fix)


def find_policy(folder: Path) -> Policy | None:
    """Read the policy that lies in a folder, None if there is none.

    Raises UsageError if it cannot be meant, if both files have one, or if one of these names is that of no file: a link
    to nowhere would else switch off the gate.
    """
    own = folder / OWN_FILE
    shared = folder / SHARED_FILE
    found = read_policy(own) if os.path.lexists(own) else None
    # A project's file is not ours to criticise where it does not name us.
    if not os.path.lexists(shared) or b"s3lora" not in read_whole(shared, MAX_POLICY):
        return found
    text = _decode(shared)
    content = _parse(text, shared)
    if _table(content, ("tool", "s3lora")) is None:
        if isinstance(content.get("s3lora"), dict):
            raise Policy(shared, {}, text, ()).error("s3lora", "has [s3lora] and no [tool.s3lora]", fix=_SHARED)
        return found
    if found is not None:
        raise UsageError(
            f"{own} and {shared} both hold a policy", fix=worded("keep one of them, or name one with {policy}")
        )
    return read_policy(shared)


def read_policy(file: Path) -> Policy:
    """Read a policy: the whole of a file, or `[tool.s3lora]` of one that is called `pyproject.toml`.

    Raises UsageError that names the line if the file is no TOML, has an unknown key, a value of a wrong type, or two
    keys that exclude each other.
    """
    text = _decode(file)
    table = ("tool", "s3lora") if file.name == SHARED_FILE else ()
    values = _table(content := _parse(text, file), table)
    if values is None:
        misplaced = [key for key in (*KEYS, "s3lora") if key in content]
        raise UsageError("has no [tool.s3lora]", file=file, fix=_SHARED if misplaced else None)
    if not isinstance(values, dict):
        raise Policy(file, {}, text, ("tool",)).error("s3lora", "tool.s3lora must be a table")
    policy = Policy(file, values, text, table)
    for key, value in policy.values.items():
        _check(policy, key, value)
    chosen = [key for key in policy.values if key in CHOICES]
    if len(chosen) > 1:
        raise policy.error(chosen[1], f"{chosen[0]} and {chosen[1]} exclude each other", fix="give one of them")
    return policy


def _check(policy: Policy, key: str, value: Any) -> None:
    if key == "tool" and _table(value, ("s3lora",)) is not None:
        raise policy.error(key, "has [tool.s3lora]", fix=_OWN)
    if key == "s3lora" and isinstance(value, dict):
        raise policy.error(key, "has [s3lora]", fix=_OWN)
    if key not in KEYS:
        fix = one_of(key.replace("_", "-"), KEYS)
        raise policy.error(key, f"no key {printable(key, 40)!r} in a policy", fix=fix)
    if not any(_is(value, kind) for kind in KEYS[key].split(" or a ")):
        raise policy.error(key, f"{key} must be {KEYS[key]}, not {printable(repr(value), 40)}")


def _is(value: Any, kind: str) -> bool:
    kind = kind.removeprefix("a ")
    if kind == "true or false":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if kind == "list of strings":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    numbers = (int,) if kind == "whole number" else (int, float)
    whole = isinstance(value, int)
    return isinstance(value, numbers) and not isinstance(value, bool) and not (whole and abs(value) >= _LARGEST)


def _decode(file: Path) -> str:
    raw = read_whole(file, MAX_POLICY)
    try:
        return raw.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError("is not UTF-8, as TOML must be", file=f"{file}:{line}") from None


def _parse(text: str, file: Path | None = None) -> dict[str, Any]:
    """Return the content; raise UsageError where the text is no TOML."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(found[1]) if found else text.rstrip().count("\n") + 1  # at the end of the document
        what = re.sub(r" \(at .*\)$", "", str(error))
    except (ValueError, RecursionError) as error:  # a number of too many digits, or too deep a list
        line = _first_failing(text.split("\n"), type(error), tomllib.loads)
        what = "a number is too long" if isinstance(error, ValueError) else "a value is nested too deeply"
    raise UsageError(f"is no valid TOML: {printable(what)}", file=f"{file}:{line}")


def _first_failing(lines: list[str], kind: type[Exception], loads: Callable[[str], object]) -> int:
    """Return the number of the line that makes reading fail in this way; every longer beginning fails so as well."""

    def fails(count: int) -> bool:
        try:
            loads("\n".join(lines[:count]))
        except Exception as error:
            return type(error) is kind
        return False

    return bisect.bisect_left(range(1, len(lines) + 1), True, key=fails) + 1


def _table(content: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _line(text: str, table: tuple[str, ...], key: str, item: str | None) -> int:
    """Return the number of the line of a key, or of an item in its list."""
    lines = text.split("\n")
    for first, last in _statements(lines, key):
        before = _beginning(lines, first)
        after = _beginning(lines, last)
        if before is None or after is None or key in (_table(before, table) or {}):
            continue
        if key in (_table(after, table) or {}):
            inside = (number for number in range(first, last) if item is not None and item in lines[number])
            return next(inside, first) + 1
    return 1


def _statements(lines: list[str], key: str) -> Iterator[tuple[int, int]]:
    """Yield where a statement that names the key may begin, and where it ends."""
    candidates = [number for number, line in enumerate(lines) if key in line]
    lengths = [*accumulate(len(line) + 1 for line in lines)]
    parsed = 0
    for first in candidates[:_CANDIDATES]:
        for last in range(first + 1, min(len(lines), first + _LINES) + 1):
            parsed += lengths[last - 1]
            if parsed > _PARSED:
                return  # the line is a help, and not worth hours
            if _beginning(lines, last) is not None:
                yield first, last
                break


def _beginning(lines: list[str], count: int) -> dict[str, Any] | None:
    """Return the content of the first lines, None where they end in the middle of a value."""
    try:
        return _parse("\n".join(lines[:count]))
    except UsageError:
        return None
