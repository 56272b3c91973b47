"""Names out of untrusted files, fitted into columns of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text

from s3lora.errors import printable

#: Longer than any name that the reader of weights accepts.
_LONGEST = 1024


def tail(name: str, width: int) -> str:
    """Return `name` without control characters, at most `width` columns wide; its beginning gives way.

    The end of a module path tells most: the layer and the projection.

    >>> tail("model.layers.3.self_attn.q_proj", 20)
    '….3.self_attn.q_proj'
    """
    clean = printable(name, _LONGEST)
    if cell_len(clean) <= width:
        return clean
    while clean and cell_len(clean) > width - 1:
        clean = clean[1:]
    return f"…{clean}" if width > 0 else ""


def head(text: str, width: int) -> str:
    """Return `text` without control characters, at most `width` columns wide; its end gives way.

    >>> head("nats a token", 8)
    'nats a …'
    """
    clean = printable(text, _LONGEST)
    if cell_len(clean) <= width:
        return clean
    while clean and cell_len(clean) > width - 1:
        clean = clean[:-1]
    return f"{clean}…" if width > 0 else ""


def middle(name: str, width: int, share: float = 0.3) -> str:
    """Return `name` without control characters, at most `width` columns wide; its middle gives way.

    `share` of what is left is its beginning, in [0, 1].

    >>> middle("model.layers.3.self_attn.q_proj", 20)
    'model…lf_attn.q_proj'
    """
    clean = printable(name, _LONGEST)
    if cell_len(clean) <= width:
        return clean
    begin = chop(clean, int((width - 1) * share))
    end = ""
    for letter in reversed(clean[len(begin) :]):
        if cell_len(begin) + 1 + cell_len(letter + end) > width:
            break
        end = letter + end
    return f"{begin}…{end}" if width > 0 else ""


def chop(text: str, width: int) -> str:
    """Return the beginning of a text, at most `width` columns wide."""
    while text and cell_len(text) > width:
        text = text[:-1]
    return text


def _beginning(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    least, most = min(texts), max(texts)
    return least[: next((i for i, letter in enumerate(least) if letter != most[i]), len(least))]


@lru_cache(maxsize=64)
def apart(names: tuple[str, ...], width: int) -> dict[str, str]:
    """Return each name at most `width` columns wide, so that different names stay different wherever that can be.

    >>> list(apart(("blocks.1.attention.key_value", "blocks.2.attention.key_value"), 16).values())
    ['blocks.1.a…value', 'blocks.2.a…value']
    """
    clean = {name: printable(name, _LONGEST) for name in names}
    for share in (0.3, 0.0, 0.5, 0.7, 1.0):
        found = {name: middle(name, width, share) for name in names}
        if len(set(found.values())) == len(set(clean.values())):
            return found
    # All differ in the middle: what all begin and end with gives way.
    first = _beginning(list(clean.values()))
    last = _beginning([name[len(first) :][::-1] for name in clean.values()])[::-1]
    own = {name: one[len(first) : len(one) - len(last)] for name, one in clean.items()}
    room = max(0, width - 2 - max(map(cell_len, own.values())))
    before = chop(first[::-1], room // 2)[::-1]
    after = chop(last, room - cell_len(before))
    return {name: f"…{before}{middle(one, width - 2)}{after}…" for name, one in own.items()}


@dataclass(frozen=True, slots=True)
class NameCell:
    """A name in a table, cut in the middle to whatever width its column gets; `among` are the others of the column."""

    text: str
    among: tuple[str, ...] = ()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the least and the most columns that make sense."""
        width = cell_len(printable(self.text, _LONGEST))
        return Measurement(min(width, 8), width).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the name, cut to the width given."""
        width = options.max_width
        told = apart(self.among, width)[self.text] if self.among else middle(self.text, width)
        yield Text(told, no_wrap=True)
