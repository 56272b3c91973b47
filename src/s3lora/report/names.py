"""Names out of untrusted files, fitted into columns of a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class NameCell:
    """A name in a table, cut from the left to whatever width its column gets."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the least and the most columns that make sense."""
        width = cell_len(printable(self.text, _LONGEST))
        return Measurement(min(width, 12), width).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the name, cut to the width given."""
        yield Text(tail(self.text, options.max_width), no_wrap=True)
