"""Text and names inside Markdown: nothing out of an untrusted file is taken for markup, HTML, a link or a marker."""

from __future__ import annotations

import re
from collections.abc import Sequence

from s3lora.errors import printable

LONGEST = 400
#: Means nothing between backticks, in no table and to no reader of shell commands.
_PLAIN = re.compile(r"[A-Za-z0-9_./:, +=@%-]*[A-Za-z0-9_./:,+=@%-]")
_PUNCTUATION = re.compile(r"([\\`*_\[\]#|~^])")
#: As references, since some readers look for mathematics and mentions before they look for backslashes.
_REFERENCES = {ord(c): f"&#{ord(c)};" for c in "$@"} | {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
_LINK = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp)(:)|\b(www)(\.)")
_ITEM = re.compile(r"^([-+=](?=[-+=\s]|$)|\d+[.)](?=\s|$))")


def text(value: object, limit: int = LONGEST) -> str:
    """Return `value` on one line, to be read as it stands.

    >>> text("a_b <i> | `c`")
    'a\\\\_b &lt;i&gt; \\\\| \\\\`c\\\\`'
    """
    made = _PUNCTUATION.sub(r"\\\1", printable(value, limit).translate(_REFERENCES).replace("&#", "\0"))
    made = made.replace("\0", "&#")
    made = _LINK.sub(lambda found: f"{found[1] or found[3]}&#{ord(found[2] or found[4])};", made)
    return _ITEM.sub(lambda found: f"{found[1][:-1]}\\{found[1][-1]}", made)


def code(value: object, limit: int = LONGEST) -> str:
    """Return `value` as a span of code; one that could end the span is written with references."""
    clean = printable(value, limit)
    if _PLAIN.fullmatch(clean):
        return f"`{clean}`"
    return "<code>" + "".join(c if c.isalnum() or ord(c) > 127 else f"&#{ord(c)};" for c in clean) + "</code>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return the lines of a table of cells that are Markdown already; columns in `right` are numbers."""
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
