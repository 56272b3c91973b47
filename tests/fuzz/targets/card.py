"""Model cards: the section in a README that others wrote, and its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s3lora.report.card_file import BEGIN, CARD, END, has_section, metadata, read_card, with_section
from tests.fuzz.contract import BrokenContract, command, untouched
from tests.fuzz.draw import Draw
from tests.fuzz.measuring import put
from tests.fuzz.target import Target

SECTION = "## Spectral audit\n\nmade up"


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    whole = draw.chance(16)
    path = folder / CARD
    path.write_bytes(draw.rest())
    with untouched(folder):
        card = read_card(path)
        fields = metadata(card)
    if not all(value.isprintable() for value in fields.values()):
        raise BrokenContract("reads a field that no terminal should see")
    made = with_section(card, SECTION, "---\n---\n", CARD)
    if with_section(made, SECTION, "", CARD) != made:
        raise BrokenContract("the same section put in again changes the card")
    if made.count(BEGIN) != 1 and not has_section(card):
        raise BrokenContract("has no single section")
    if card and not has_section(card) and not made.startswith(card):
        raise BrokenContract("changes what was there")
    if whole:
        put(folder)
        command("card", folder)
        if command("card", folder, "--check")[0] != 0:
            raise BrokenContract("a card that was just written is not up to date")


def _seeds() -> Sequence[bytes]:
    front = b'---\nlicense: "apache-2.0"\ntags: [lora]\nbase_model: a/b # c\n---\n'
    marked = f"\n{BEGIN}\nold\n{END}\n".encode()
    texts = (b"", b"# Card\n", front, front + b"# Card\r\n" + marked, b"\xef\xbb\xbf" + front.replace(b"\n", b"\r\n"))
    return [mode + text for mode in (b"\0", b"\x0f") for text in texts]


_WORDS = (BEGIN.encode(), END.encode(), b"---\n", b"<!--", b"-->", b"\r\n", b"license: ", b"base_model: ")
TARGETS = (Target("card", "model card with its metadata", _fuzz, _seeds, _WORDS, quick=200),)
