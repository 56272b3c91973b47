"""A model card as a file: its marked section put in or replaced, everything else as it was, byte for byte."""

from __future__ import annotations

import os
import re
from pathlib import Path

from s3lora.adapter.folder import is_blob
from s3lora.errors import OutputError, printable
from s3lora.files import LINK, read_bytes, read_whole

BEGIN, END = "<!-- s3lora:begin -->", "<!-- s3lora:end -->"
CARD = "README.md"
LARGEST = 16 * 1024 * 1024
LONGEST_FIELD = 1000
_MARKER = re.compile(r"<!--[ \t]*s3lora:(begin|end)[ \t]*-->")
_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*\r?(?:\n|\Z)", re.DOTALL | re.MULTILINE)
#: One field of the metadata that is a word, quoted or not; anything richer is left to readers of YAML.
_FIELD = re.compile(
    r"""([A-Za-z_]+):[ \t]+(?:"([^"\\]*)"|'([^']*)'|([^\s#'"\[\]{}>|*&!%@`][^#\r\n]*?))[ \t]*(?:[ \t]#.*)?\r?"""
)


def card_in(folder: Path) -> Path:
    """Return where the card of the adapter in `folder` lies; raise OutputError where it is a link.

    A model hub's cache keeps files so, under names that are their digests.
    """
    path = folder / CARD
    if path.is_symlink():
        raise OutputError(LINK, file=path, fix="give -o the file that is meant")
    return path


def read_card(path: Path) -> str | None:
    """Return the card with its line ends as they are, None where there is none.

    Raises OutputError if it is there and cannot be read as UTF-8 text, for then it cannot be written back either.
    """
    if path.is_symlink():
        raise OutputError(LINK, file=path, fix="give -o the file that is meant")
    if not path.exists():
        return None
    raw = read_whole(path, LARGEST, OutputError)
    try:
        card = raw.decode()
    except UnicodeDecodeError:
        card = "\0"
    if "\0" in card:
        raise OutputError("is not UTF-8 text, as the Hub wants model cards", file=path, fix="convert it first")
    return card


def card_beside(folder: Path) -> str | None:
    """Return the card as one who writes nothing reads it, None where there is none that can be read.

    A link is followed where a model hub's cache keeps the file so.
    """
    path = folder / CARD
    if path.is_symlink() and not is_blob(Path(os.path.realpath(path)), Path(os.path.realpath(folder))):
        return None
    try:
        return read_bytes(path, LARGEST).decode()
    except (OSError, UnicodeDecodeError):
        return None


def with_section(card: str | None, section: str, front: str, label: object) -> str:
    """Return the card with `section` between its markers; a section that was there is replaced.

    Parameters:
        card: what is there; None, or nothing, makes a new card that begins with `front`.
        section: Markdown with `\\n` at its line ends and none at the end.
        front: metadata and title of a new card.
        label: names the card in errors.

    Raises OutputError if the markers are broken: one without the other, in wrong order, or more than one pair.
    """
    if not card:
        return f"{front}\n{BEGIN}\n\n{section}\n\n{END}\n"
    newline = "\r\n" if card.partition("\n")[0].endswith("\r") else "\n"
    body = f"\n\n{section}\n\n".replace(
        "\n", newline
    )  # empty lines, as some renderers take what follows a comment for it
    place = _place(card, label)
    if place is not None:
        return f"{card[: place[0]]}{body}{card[place[1] :]}"
    gap = newline * (2 - min(2, _line_ends(card, newline)))
    return f"{card}{gap}{BEGIN}{body}{END}{newline}"


def has_section(card: str | None) -> bool:
    """Return whether there are markers in the card."""
    return card is not None and _MARKER.search(card) is not None


def _place(card: str, label: object) -> tuple[int, int] | None:
    """Return where the section begins and ends, the markers not included; None where there are no markers."""
    markers = list(_MARKER.finditer(card))
    if not markers:
        return None
    names = [marker[1] for marker in markers]
    front = _FRONT.match(card)
    if names == ["begin", "end"] and (front is None or markers[0].start() >= front.end()):
        return markers[0].end(), markers[1].start()
    lines = [1 + card.count("\n", 0, marker.start()) for marker in markers[:6]]
    where = ", ".join(f"{name} in line {line}" for name, line in zip(names, lines, strict=False))
    what = "has its markers in the metadata" if names == ["begin", "end"] else "has no single pair of markers"
    fix = f"leave one {BEGIN} and one {END} below it, or neither"
    raise OutputError(f"{what} ({where}{', …' if len(markers) > 6 else ''})", file=label, fix=fix)


def _line_ends(card: str, newline: str) -> int:
    """Return how many line ends the card ends with."""
    return (len(card) - len(card.rstrip("\r\n"))) // len(newline)


def metadata(card: str | None) -> dict[str, str]:
    """Return the fields of a card's metadata that are one word or line; lists and nested fields are left out.

    >>> metadata("---\\nlicense: apache-2.0\\ntags: [lora]\\n---\\n")
    {'license': 'apache-2.0'}
    """
    front = _FRONT.match(card or "")
    if front is None:
        return {}
    lines = (line for line in front[1].split("\n") if len(line) < LONGEST_FIELD)
    fields = (found for line in lines if (found := _FIELD.fullmatch(line)))
    return {found[1]: printable(next(value for value in found.groups()[1:] if value is not None)) for found in fields}
