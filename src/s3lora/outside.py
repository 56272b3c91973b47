"""Words that others wrote, made fit to be shown: without control characters, secrets of URLs and commands to a CI."""

from __future__ import annotations

import re
from urllib.parse import unquote

#: What stands in the place of a secret.
STRUCK = "…"
#: Also `https:/host`, which a path makes of a URL; a single letter is a drive of Windows.
_URL = re.compile(r"(?<![A-Za-z0-9+.-])([A-Za-z0-9+.-]{2,}:/{1,2})([^\s]*)")
#: Passwords may hold a slash, which no URL allows; a port has digits only, and an IPv6 address begins with a bracket.
_USER = re.compile(r"(?!\[)(?:[^/?#@:]*:(?![0-9]*(?:[/?#]|$)).*@|[^/?#]*@)")
_FIELD = re.compile(r"(?<=[?&;#])([^=?&;#]+)=([^&;#]*)")
_SECRET = re.compile(
    r"token|secret|passw|credential|signature|authorization|(?:api|access|account|private|shared)[-_]?key|jwt"
    r"|^(?:sig|sas|auth|pass|pwd)$",
    re.IGNORECASE,
)
#: What `key=` is followed by where it is no name of an object.
_KEY = re.compile(r"[A-Za-z0-9_+=-]{16,}")
#: Commands that Azure Pipelines, TeamCity and GitHub's first runners find anywhere in a line.
_ANYWHERE = re.compile(r"#(?=#(?:vso|teamcity)?\[)", re.IGNORECASE)
#: A colour and the like, which may be taken out before a line is looked at.
_COLOUR = r"\x1b\[[0-9;]*[A-Za-z]"


def _through(text: str) -> str:
    """Return a pattern for a text that may have colours between its characters."""
    return f"(?:{_COLOUR})*".join(map(re.escape, text))


_COLOURED = re.compile("|".join(map(_through, ("##[", "##vso[", "##teamcity["))), re.IGNORECASE)
#: Those that GitHub and GitLab find where a line begins, colours and the like not counted.
_FIRST = re.compile(
    rf"^((?:\s|{_COLOUR})*)(?={'|'.join(map(_through, ('::', '##', 'section_start:', 'section_end:')))})"
)


def printable(text: object, limit: int = 160) -> str:
    """Return `text` on one line, without control characters, at most `limit` characters long.

    Names come from untrusted files: a terminal must never see their escape sequences, and no CI the commands in them.
    Secrets in URLs are struck out.
    """
    clean = without_secrets(str(text))
    if not clean.isprintable():
        clean = "".join(c if c.isprintable() else "\ufffd" for c in clean)
    if "##" in clean:
        clean = _ANYWHERE.sub(r"#\\", clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def without_secrets(text: str) -> str:
    """Return `text` without what a URL in it says to be let in: users with passwords, tokens, keys and signatures.

    >>> without_secrets("https://me:secret@example.org/a.bin?part=2&token=abc")
    'https://…@example.org/a.bin?part=2&token=…'
    """
    return _URL.sub(_url, text) if ":/" in text else text


def _url(found: re.Match[str]) -> str:
    start, rest = found.groups()
    user = _USER.match(rest)
    # Alone, the user may be a token for a web server; elsewhere it is a name, or a container of Azure's.
    if user is not None and (":" in user[0] or start.lower().startswith(("http", "ftp"))):
        rest = f"{STRUCK}@{rest[user.end() :]}"
    return start + (_FIELD.sub(_field, rest) if "=" in rest else rest)


def _field(found: re.Match[str]) -> str:
    name = unquote(found[1]).strip().lower()
    secret = _SECRET.search(name) or (name == "key" and _KEY.fullmatch(found[2]))
    return f"{found[1]}={STRUCK}" if secret and found[2] else found[0]


def without_commands(text: str) -> str:
    """Return `text` with a backslash before whatever a CI would take for a command to it where a line begins.

    >>> without_commands("  ::error::x")
    '  \\\\::error::x'
    """
    if not any(mark in text for mark in ("::", "##", "section_", "\x1b")):
        return text
    return "".join(
        _FIRST.sub(r"\1\\", _COLOURED.sub(lambda found: f"#\\{found[0][1:]}", line))
        for line in text.splitlines(keepends=True)
    )
