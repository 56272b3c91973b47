"""Where a server may send us on to: its own host and port, and the hosts that the user names.

A server that somebody else runs could otherwise have this machine ask others for it, those of a private network too.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, urljoin, urlsplit

from s3lora.errors import AdapterFileError, UsageError, printable
from s3lora.wording import worded

STATUSES = frozenset((301, 302, 303, 307, 308))
#: Most redirects before an answer.
MOST = 5
_PORTS = {"http": 80, "https": 443}


def checked(hosts: Sequence[str]) -> tuple[str, ...]:
    """Return what `--follow` names in one form: HOST, HOST:PORT, or `*.HOST` for all hosts below one.

    Raises UsageError for what is no host.

    >>> checked(["CDN.example.org", "*.example.org:8443"])
    ('cdn.example.org', '*.example.org:8443')
    """
    found = []
    for given in hosts:
        try:
            parts = urlsplit(f"//{given.removeprefix('*.')}")
            name, port = _name(parts), parts.port
        except ValueError:
            name, port = "", None
        if not name or parts.path or parts.query or "@" in given or "*" in name:
            raise UsageError(f"{printable(given)} is no host", fix="give HOST, HOST:PORT or *.HOST")
        found.append(("*." if given.startswith("*.") else "") + name + ("" if port is None else f":{port}"))
    return tuple(found)


def target(url: str, location: str, follow: Sequence[str]) -> str:
    """Return the address that `url` is redirected to, without a user; raise AdapterFileError where it must not be.

    Parameters:
        url: what was asked for.
        location: the server's answer.
        follow: hosts as `checked` returns them.
    """
    try:
        before, after = urlsplit(url), urlsplit(urljoin(url, location))
        name, port = _name(after), after.port or _PORTS[after.scheme]
    except (ValueError, KeyError):
        raise AdapterFileError(f"is redirected to {printable(location)}, which is no web address", file=url) from None
    where = _shown(name, port, after.scheme)
    if before.scheme == "https" and after.scheme == "http":
        raise AdapterFileError(f"is redirected from https to http ({where}), which is not followed", file=url)
    if not (same_server(url, after.geturl()) or any(_is(one, name, port, after.scheme) for one in follow)):
        raise AdapterFileError(
            f"is redirected to another server ({where}), which is not followed",
            file=url,
            fix=worded("allow {follow} {server}", server=where),
        )
    return after._replace(netloc=after.netloc.rpartition("@")[2]).geturl()


def same_server(url: str, other: str) -> bool:
    """Return whether two addresses are of one host and port; https of the same host is as good as http."""
    one, two = urlsplit(url), urlsplit(other)
    ports = [parts.port or _PORTS.get(parts.scheme) for parts in (one, two)]
    upgraded = (one.scheme, two.scheme, *ports) == ("http", "https", 80, 443)
    return _name(one) == _name(two) and (upgraded or (one.scheme == two.scheme and ports[0] == ports[1]))


def _is(allowed: str, name: str, port: int, scheme: str) -> bool:
    host, colon, number = allowed.rpartition(":") if not allowed.endswith("]") else (allowed, "", "")
    host, wanted = (host, int(number)) if colon else (allowed, _PORTS[scheme])
    fits = name.endswith(host[1:]) if host.startswith("*.") else name == host
    return fits and port == wanted


def _name(parts: SplitResult) -> str:
    """Return the host in lower case and ASCII, an IPv6 address in brackets."""
    host = (parts.hostname or "").rstrip(".")
    return f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")


def _shown(name: str, port: int, scheme: str) -> str:
    return printable(name if port == _PORTS[scheme] else f"{name}:{port}", 255)
