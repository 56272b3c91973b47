"""Where a server is, and which key may be sent there."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from s3lora.errors import S3LoRAError

#: Set to nothing, the first one keeps the key of another service from being sent.
KEY_VARIABLES = ("S3LORA_API_KEY", "OPENAI_API_KEY")


class EndpointError(S3LoRAError):
    """A server that cannot be reached, must not be sent a key, or does not answer as it should."""


def base_url(url: str) -> str:
    """Return the address that `/chat/completions` is appended to; raise EndpointError where it can be none.

    A path without a version, such as `/v1` or `/v1beta`, gets `/v1`.
    """
    example = "use one such as http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise EndpointError("the endpoint is no address", fix=example) from None
    if "@" in parts.netloc:
        raise EndpointError("the endpoint's address holds a name or password", fix=f"set {KEY_VARIABLES[0]} instead")
    if not fits or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise EndpointError("the endpoint is no address", file=re.split("[?#]", url)[0], fix=example)
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    if not any(re.fullmatch(r"v\d\w*", step) for step in path.split("/")):
        path += "/v1"
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def key_for(url: str) -> str | None:
    """Return the key in the environment, None without one; raise EndpointError where it must not be sent there."""
    given = (os.environ[name] for name in KEY_VARIABLES if name in os.environ)
    key = next(given, "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        raise EndpointError(f"the key in {' or '.join(KEY_VARIABLES)} holds characters that cannot be sent")
    if urlsplit(url).scheme != "https" and not is_loopback(url):
        raise EndpointError(
            "the key is not sent to another machine in the clear",
            file=url,
            fix=f"use https, or set {KEY_VARIABLES[0]} to nothing where the server needs no key",
        )
    return key


def is_loopback(url: str) -> bool:
    """Return whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
