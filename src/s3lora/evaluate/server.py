"""A server that speaks OpenAI's HTTP API: requests bounded in time and size, and retried where that can help."""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from s3lora.errors import printable
from s3lora.evaluate.address import KEY_VARIABLES, EndpointError, base_url, is_loopback, key_for
from s3lora.needs import need

T = TypeVar("T")

RETRIED = frozenset({429, 500, 502, 503, 504})
#: A request that is too slow is hardly faster the fifth time, and each try keeps the server busy.
SLOW_TRIES = 2
#: Seconds before the first retry (then doubled), at most before a later one, and at most where the server says so.
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WISH = 0.5, 30.0, 300.0
#: Seconds to open a connection.
CONNECT = 10.0
#: Bytes: an answer of ten thousand tokens takes some fifty thousand.
LARGEST_ANSWER, LARGEST_REFUSAL = 16 << 20, 64 << 10
#: Placeholders such as EMPTY are no secrets, and may be words of an answer.
SHORTEST_SECRET = 12


class RefusedError(EndpointError):
    """A request that the server will not answer however often it is asked; `status` and `said` are the server's."""

    def __init__(self, status: int, said: str, *, file: str, module: str, fix: str | None = None) -> None:
        """Compose the sentence."""
        told = f" ({said})" if said else ""
        super().__init__(f"the server answered {status}{told}", file=file, module=module, fix=fix)
        self.status, self.said = status, said


class _AgainError(Exception):
    """A failure that may pass; `pause` is the server's wish, in seconds."""

    def __init__(self, problem: str, pause: float = 0.0) -> None:
        super().__init__(problem)
        self.pause = pause


class Server:
    """One server and model. `timeout` is in seconds for one try from connecting to the last byte.

    The key comes from the environment alone, is sent to this host alone (redirects are not followed), and in the clear
    to this machine alone; it is struck out of everything the server says.
    """

    def __init__(self, url: str, name: str, *, timeout: float, retries: int) -> None:
        """Check URL and key; nothing is sent yet."""
        self._http = need("httpx")
        self.url = base_url(url)
        self.name = name
        self.timeout = timeout
        self.retries = retries
        self._key = key_for(self.url)

    def client(self, parallel: int) -> Any:
        """Return an HTTP client, to be used as an asynchronous context manager."""
        http = self._http
        headers = {"accept": "application/json", "accept-encoding": "identity", "content-type": "application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        options: dict[str, Any] = {}
        if self.url.startswith("http:") and is_loopback(self.url):
            # A proxy has no business between this machine and itself, where the key goes in the clear; certificates,
            # which take longer to read than a request, none either: this context trusts nobody.
            options = {"trust_env": False, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
        try:
            return http.AsyncClient(
                headers=headers,
                timeout=http.Timeout(None, connect=CONNECT),
                limits=http.Limits(max_connections=parallel),
                follow_redirects=False,
                **options,
            )
        except (ValueError, ImportError, OSError, http.InvalidURL) as error:
            fix = "check the variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            problem = f"proxy or certificates of the environment cannot be used ({self._reason(error)})"
            raise self.error(problem, fix) from None

    async def ask(
        self,
        client: Any,
        path: str,
        body: Mapping[str, Any] | None = None,
        read: Callable[[Any], T] = lambda answer: answer,
        retries: int | None = None,
    ) -> T:
        """Post `body` (or get, without one) and return what `read` makes of the JSON that comes back.

        `read` raises ValueError where the answer is malformed, which counts as a failure of the server. Raises
        RefusedError, and EndpointError after the last try.
        """
        content = None if body is None else json.dumps(body).encode()
        jitter = random.Random(content or path.encode())
        retries = self.retries if retries is None else min(retries, self.retries)
        slow = 0
        for tries in range(1, retries + 2):
            try:
                return read(_parsed(await asyncio.wait_for(self._once(client, path, content), self.timeout)))
            except asyncio.TimeoutError:
                slow += 1
                failure = _AgainError(f"the server did not answer within {self.timeout:g} s")
            except (ValueError, RecursionError) as error:
                failure = _AgainError(f"the server's answer is malformed ({self.clean(error)})")
            except _AgainError as error:
                failure = error
            if tries > retries or slow >= SLOW_TRIES:
                break
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1))
            await asyncio.sleep(max(failure.pause, longest * jitter.uniform(0.5, 1)))
        raise self.error(f"{failure}, after {tries} {'try' if tries == 1 else 'tries'}")

    async def _once(self, client: Any, path: str, content: bytes | None) -> bytes:
        http = self._http
        method = "GET" if content is None else "POST"
        try:
            async with client.stream(method, self.url + path, content=content) as response:
                limit = LARGEST_ANSWER if response.is_success else LARGEST_REFUSAL
                answer = await self._read(response, limit)
        except http.InvalidURL as error:
            raise self.error(f"this is no address ({self.clean(error)})") from None
        except (http.ConnectError, http.ConnectTimeout) as error:
            raise _AgainError(f"the server cannot be reached ({self._reason(error)})") from None
        except (http.HTTPError, http.StreamError) as error:
            raise _AgainError(f"the connection broke ({self._reason(error)})") from None
        if response.is_success:
            return answer
        raise self._failure(response, answer)

    async def _read(self, response: Any, limit: int) -> bytes:
        chunks, size = [], 0
        async for chunk in response.aiter_raw():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                if response.is_success:
                    raise self.error(f"the server's answer is larger than {limit >> 20} MiB")
                break
        return b"".join(chunks)

    def _failure(self, response: Any, answer: bytes) -> Exception:
        """Return what a reply that is no success means."""
        status, said = int(response.status_code), self.clean(_message(answer))
        if 300 <= status < 400:
            target = self.clean(response.headers.get("location", "nowhere"))
            return self.error(f"the server redirects to {target}", fix="give the final address")
        if status not in RETRIED:
            fix = None
            if status in (401, 403):
                fix = f"{'set' if self._key is None else 'check'} the key in {' or '.join(KEY_VARIABLES)}"
            return RefusedError(status, said, file=self.url, module=self.name, fix=fix)
        wish = _seconds(response.headers.get("retry-after", ""))
        if wish > LONGEST_WISH:
            return self.error(f"the server answered {status} and asks to wait {wish:.0f} s", fix="go on later")
        return _AgainError(f"the server answered {status}{f' ({said})' if said else ''}", wish)

    def _reason(self, error: Exception) -> str:
        """Return what an error of the HTTP library says; some say nothing but their name."""
        return self.clean(error) or type(error).__name__

    def error(self, problem: str, fix: str | None = None) -> EndpointError:
        """Return an error that names server and model."""
        return EndpointError(problem, file=self.url, module=self.name, fix=fix)

    def clean(self, text: object) -> str:
        """Return what a server said, short, on one line and without the key."""
        return printable(self.hide(str(text)).strip())

    def hide(self, text: str) -> str:
        """Return `text` without the key."""
        return text if self._key is None or len(self._key) < SHORTEST_SECRET else text.replace(self._key, "…")


def _parsed(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None


def _message(answer: bytes) -> str:
    """Return what a refusal says: OpenAI's `error.message`, FastAPI's `detail`, vLLM's `message`, or plain text."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        text = answer.decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text
    for field in ("error", "detail", "message", "msg"):
        while isinstance(told, list) and told:
            told = told[0]
        if isinstance(told, dict):
            told = told.get(field, told)
    return told if isinstance(told, str) else ""


def _seconds(retry_after: str) -> float:
    """Return the seconds that a Retry-After header asks for (RFC 9110, section 10.2.3), 0 where it makes no sense."""
    text = retry_after.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
