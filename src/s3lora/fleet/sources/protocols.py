"""URLs: their protocol, the file system behind it, and which failures another try may mend."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from s3lora.errors import AdapterFileError, S3LoRAError, UsageError, printable
from s3lora.needs import MissingPackageError, need

T = TypeVar("T")

#: Seconds to wait before the second and the third try.
BACK_OFF = (0.5, 2.0)
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
#: Protocol → what to install, where it is not what the protocol is called.
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "az": "adlfs", "abfs": "adlfs"}
_PACKAGES |= {"http": "aiohttp", "https": "aiohttp"}
_STATUS = (408, 425, 429, 500, 502, 503, 504)
_ERRNO = frozenset(
    getattr(errno, name)
    for name in (
        *("EBUSY", "EREMOTEIO", "EIO", "EAGAIN", "EPIPE", "ETIMEDOUT", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED"),
        *("ENETUNREACH", "ENETDOWN", "EHOSTUNREACH", "EHOSTDOWN"),
    )
    if hasattr(errno, name)
)
#: Errors of the network in packages that are not imported for their names: aiohttp, httpx, botocore, fsspec.
_NAMES = frozenset(
    (
        *("ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError", "TransportError", "FSTimeoutError"),
        *("HTTPClientError", "ResponseStreamingError", "IncompleteReadError", "ConnectionError", "TimeoutError"),
    )
)


class UnreachableError(S3LoRAError):
    """The other side did not answer, or not well: another try, later, may go better."""


class ChangedError(UnreachableError):
    """The file was replaced while it was read: another try reads the new one."""


def protocol_of(uri: str) -> str | None:
    """Return the protocol of a URL in lower case, None for a path.

    >>> protocol_of("S3://bucket/key"), protocol_of("runs/final"), protocol_of("C:/runs")
    ('s3', None, None)
    """
    found = _PROTOCOL.match(uri)
    return found[1].lower() if found else None


def local_path(uri: str) -> str | None:
    """Return the path that `uri` means on this machine, None if it lies elsewhere."""
    protocol = protocol_of(uri)
    if protocol is None:
        return uri
    return uri.partition("://")[2] if protocol in ("file", "local") else None


def file_system(uri: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path within it.

    Raises MissingPackageError, which says what to install, UsageError for a protocol that nobody knows or that needs
    more than a URL, and what `told` returns for a server that cannot be reached.
    """
    fsspec = need("fsspec", "fleet")
    protocol = protocol_of(uri) or "file"
    try:
        kind = fsspec.get_filesystem_class(protocol)
        if protocol in ("http", "https"):
            need("aiohttp", "fleet")
        return kind(**kind._get_kwargs_from_urls(uri)), kind._strip_protocol(uri)
    except ImportError as error:
        raise _missing(protocol, error) from None
    except (OSError, S3LoRAError) as error:
        raise told(error, uri) from None
    except Exception as error:  # of constructors that no URL can satisfy
        fix = "give a path, or a URL such as s3://, gs://, https:// or hf://"
        raise UsageError(f"{printable(protocol, 40)}:// cannot be read: {printable(error)}", fix=fix) from None


def _missing(protocol: str, error: ImportError) -> MissingPackageError:
    package = _PACKAGES.get(protocol)
    if package is None:  # no name is guessed: anybody may have registered it
        return MissingPackageError(f"{printable(protocol, 40)}:// needs more packages: {printable(error)}")
    what = f"{protocol}:// needs the package {package}, which is not installed"
    return MissingPackageError(what, fix=f"run: pip install {package}")


def retried(action: Callable[[], T], uri: str) -> T:
    """Return what `action` returns; try three times if what fails is the network.

    Raises S3LoRAError for every failure that is the other side's: UnreachableError where another try may go better,
    AdapterFileError where it will not (nothing there, no permission). FileNotFoundError passes through.
    """
    waits = iter(BACK_OFF)
    while True:
        try:
            return action()
        except S3LoRAError:
            raise
        except Exception as error:
            wait = next(waits, None) if may_pass(error) else None
            if wait is None:
                raise told(error, uri) from None
        time.sleep(wait)


def told(error: Exception, uri: str) -> Exception:
    """Return the error to raise for a failure while `uri` was read."""
    if isinstance(error, S3LoRAError):
        return error
    status = next((found for one in _causes(error) if (found := _status(one)) is not None), None)
    # not the server's own words, which tell the time or the number of the request
    text = f"HTTP status {status}" if status is not None else str(error).strip() or type(error).__name__
    reason = printable(text, 200)
    if may_pass(error):
        return UnreachableError(f"cannot be reached ({reason})", file=uri, fix="try again")
    if isinstance(error, FileNotFoundError):
        return error
    fix = "check the credentials and permissions" if _denied(error) else None
    return AdapterFileError(f"cannot be read ({reason})", file=uri, fix=fix)


def may_pass(error: BaseException) -> bool:
    """Return whether the failure is one of the network or of an overloaded server."""
    for one in _causes(error):
        status = _status(one)
        if status is not None:
            return status in _STATUS
        if isinstance(one, TimeoutError | ConnectionError | EOFError):
            return True
        if isinstance(one, OSError) and one.errno in _ERRNO:
            return True
        if any(kind.__name__ in _NAMES for kind in type(one).__mro__):
            return True
    return False


def _denied(error: BaseException) -> bool:
    names = ("NoCredentialsError", "PartialCredentialsError")
    return isinstance(error, PermissionError) or _status(error) in (401, 403) or type(error).__name__ in names


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error of aiohttp or httpx."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    for _ in range(8):
        if one is None:
            return
        yield one
        one = one.__cause__
