"""What a judge wrote, read: without its reasoning, as labelled values wherever judges put them.

A value stands on the line of its label (`#thescore 4`, `Score: 4/5`, `**1.b** 0`), alone on the next line, in a table,
or under its key in a JSON object. A label within a sentence or behind a mark of quotation is no verdict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

#: Where a reply is longer, its end is read: a verdict comes last where a judge reasons.
MAX_REPLY = 20_000
#: Objects that are tried as JSON, from the end.
MAX_OBJECTS = 32
_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning|analysis|scratchpad)>", re.IGNORECASE)
#: How a reply in OpenAI's harmony format begins and where its last channel does, with and without special tokens.
_CHANNELS = re.compile(r"\s*(?:<\|channel\|>|(?:analysis|commentary)(?=[A-Z]))")
_FINAL = re.compile(r"<\|channel\|>\s*final\s*<\|message\|>|assistantfinal")
#: Bold, code, brackets, quotes: what a value may be dressed in.
DRESS = " \t\r*_`\"'[]()<>"
#: What may stand before a label on its line, quotation marks not among it.
BEGIN = r"^[ \t*_`\[(|•-]*"
#: A row of a table that only rules a line.
_RULE = re.compile(r"[|\s:+=-]+")
#: What follows a number that is part of a range, of a longer number or of another scale.
_MORE = r"[^\W_]|[ \t]*%|[.,]+[^\W_]|[ \t]*(?:[-–—/]|or|to|out[ \t]+of|of)[ \t]*\d"
#: A number of 0 to 5, as 4, 4.0, 4/5, 4 out of 5.
NUMBER = re.compile(rf"([0-5])(?:\.0+)?(?:[ \t]*(?:/|out[ \t]+of|of)[ \t]*5(?:\.0+)?)?(?!{_MORE})", re.IGNORECASE)


def spoken(reply: str) -> str:
    """Return a reply without its reasoning; "" where it ends within.

    >>> spoken("<think>A score of 1? No.</think>#thescore: 4")
    '#thescore: 4'
    """
    text = reply.strip()[-MAX_REPLY:]
    if _CHANNELS.match(text):
        *_, start = (-1, *(found.end() for found in _FINAL.finditer(text)))
        if start < 0:
            return ""
        text = text[start:]
    parts: list[str] = []
    at, inside = 0, False
    for i, tag in enumerate(_TAG.finditer(text)):
        if not tag[1] and not inside:
            parts.append(text[at : tag.start()])
        elif tag[1] and not inside and i:
            continue
        # A template can open the reasoning itself, so that a reply begins within it.
        at, inside = tag.end(), not tag[1]
    return "".join([*parts, *([] if inside else [text[at:]])]).strip()


def objects(text: str) -> Iterator[Mapping[str, object]]:
    """Yield the JSON objects of a reply, the last first, each before the objects in it; keys in small letters."""
    decoder = json.JSONDecoder()
    outer: list[dict[str, object]] = []
    end = 0
    for start in [found.start() for found in re.finditer(r"\{", text)][-MAX_OBJECTS:]:
        if start < end:
            continue
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        outer.append(value)
    for value in reversed(outer):
        for item in (value, *(inner for inner in value.values() if isinstance(inner, dict))):
            yield {str(key).strip().lstrip("#").casefold(): item[key] for key in item}


def in_objects(text: str, keys: Iterable[str]) -> object | None:
    """Return the value of the first of these keys that a JSON object of the reply has, None where none has one."""
    names = list(keys)
    return next((value[key] for value in objects(text) for key in names if key in value), None)


def number_at(text: str, start: int) -> int | None:
    """Return the number of 0 to 5 that stands at a place of a line, or alone on the next line; None for another."""
    line, *following = text[start:].split("\n")
    rest = _undressed(line)
    if rest.strip(DRESS + "|"):
        found = NUMBER.match(rest)
        return None if found is None else int(found[1])
    lines = (line for line in following if line.strip() and not _RULE.fullmatch(line))
    return whole_number(next(lines, "").strip(DRESS + "|."))


def whole_number(value: object) -> int | None:
    """Return the number of 0 to 5 that a JSON value or a text is, as 4, 4.0, "4" or "4/5"; None for another.

    >>> [whole_number(value) for value in (4, 4.0, "4/5", 4.5, "4 of 10", True)]
    [4, 4, 4, None, None, None]
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return int(value) if value in (0, 1, 2, 3, 4, 5) else None
    found = NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    return None if found is None else int(found[1])


def in_column(text: str, label: re.Pattern[str]) -> str | None:
    """Return the cell under the one that a label is all of, in a table of `|`; None where there is none."""
    column: int | None = None
    for line in text.split("\n"):
        cells = [cell.strip(DRESS) for cell in line.strip().strip("|").split("|")]
        if column is None:
            # A table of one row a label has its value in the next cell, and is no matter of columns.
            heads = [i for i, cell in enumerate(cells) if label.fullmatch(cell)]
            if "|" in line and heads and not any(NUMBER.fullmatch(cell) for cell in cells):
                column = heads[0]
        elif not _RULE.fullmatch(line):
            return cells[column] if column < len(cells) else None
    return None


def word_after(label: str, words: Sequence[str], text: str) -> str | None:
    """Return the one of some words that follows a label at the beginning of a line, or is its value in JSON.

    `label` is in small letters. None where no line has it, or two lines disagree.

    >>> word_after("safety", ("safe", "unsafe"), "Safety: Unsafe\\nCategories: Violent")
    'unsafe'
    """
    choice = "|".join(map(re.escape, words))
    pattern = rf"""{BEGIN}{re.escape(label)}[ \t*_`]*[:=|][\s*_`"'\[(]*({choice})[ \t\r*_`"'\]).,;|]*$"""
    said = {found[1].casefold() for found in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE)}
    if not said:
        value = in_objects(text, [label])
        said = {value.strip().casefold()} & {*words} if isinstance(value, str) else set()
    return said.pop() if len(said) == 1 else None


def first_word(words: Sequence[str], text: str) -> str | None:
    """Return the one of some words that a reply begins with, where it is a verdict and not part of a sentence.

    >>> first_word(("yes", "no"), "Yes.\\nIt is one."), first_word(("yes", "no"), "No doubt: yes")
    ('yes', None)
    """
    choice = "|".join(map(re.escape, words))
    found = re.match(rf"""[\s*_`"'\[(<]*({choice})[*_`"'\])>]*(?=[ \t\r]*(?:\Z|[\n.,:;!—–-]))""", text, re.IGNORECASE)
    if found is None or re.match(rf"[^\n]{{0,8}}?\b(?:or|/)[ \t]*(?:{choice})\b", text[found.end() :], re.IGNORECASE):
        return None
    return found[1].casefold()


def _undressed(line: str) -> str:
    """Return what follows an optional colon, equals sign or edge of a cell, without dress before it."""
    rest = line.lstrip(DRESS)
    if rest[:2] == "->" or rest[:1] in (":", "=", "|", "→"):
        rest = rest[2 if rest[:2] == "->" else 1 :].lstrip(DRESS)
    return rest
