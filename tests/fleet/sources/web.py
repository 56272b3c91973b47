"""A web server on this machine: ranges, entity tags, and every way of not behaving well that a test asks for."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Site:
    """What the server has and how it behaves; `sent` counts the bytes of bodies, `asked` the requests."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    ranges: bool = True
    head: bool = True
    tags: bool = True
    lengths: bool = True
    #: Statuses to answer before it behaves, by path.
    faults: dict[str, list[int]] = field(default_factory=dict)
    #: Cut so many answers after half of their body.
    cut: int = 0
    #: Called before each answer to a GET.
    before: Callable[[str], None] | None = None
    #: Answers to paths that are no files, for a stand-in of an API.
    routes: Callable[[str, str], Answer | None] | None = None
    #: Who does not send this token gets no file.
    token: str = ""
    #: Sends this much more than a range had, or less.
    excess: int = 0
    #: Path → where it is redirected to.
    moved: dict[str, str] = field(default_factory=dict)
    #: Sends these bytes after every file, again and again, until nobody listens.
    forever: bytes = b""
    #: What was told of who asks, by request: its path and the header Authorization.
    told: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def add(self, folder: Path, under: str) -> str:
        """Serve the files of a folder and return its URL."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[f"/{under}/{path.relative_to(folder).as_posix()}"] = path
        return f"{self.url}/{under}"


@contextmanager
def serving(**options: Any) -> Iterator[Site]:
    """Run a server for as long as the block lasts."""
    site = Site(**options)

    class Handler(_Handler):
        here = site

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    here: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        site, path = self.here, unquote(urlsplit(self.path).path)
        site.asked.append((self.command, self.path, self.headers.get("Range")))
        site.told.append((self.path, self.headers.get("Authorization")))
        if body and site.before is not None:
            site.before(path)
        if site.faults.get(path):
            self._plain(site.faults[path].pop(0))
        elif path in site.moved:
            self._send(302, {"Location": site.moved[path]}, b"", 0)
        elif not body and not site.head:
            self._plain(405)
        elif site.token and self.headers.get("Authorization") != f"Bearer {site.token}":
            self._plain(401)
        elif path in site.files:
            self._file(site.files[path], body=body)
        elif site.routes is not None and (answer := site.routes(self.path, self.headers.get("Authorization") or "")):
            status, headers, data = answer
            self._send(status, headers, data if body else b"", len(data))
        else:
            self._plain(404)

    def _plain(self, status: int) -> None:
        self._send(status, {}, b"", 0)

    def _file(self, what: bytes | Path, *, body: bool) -> None:
        size = len(what) if isinstance(what, bytes) else what.stat().st_size
        headers = {"ETag": f'"{_tag(what)}"'} if self.here.tags else {}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status, start, stop = 200, 0, size
        if asked and self.here.ranges:
            status, start, stop = 206, int(asked[1]), min(size, int(asked[2]) + 1)
            if start >= size:
                self._plain(416)
                return
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        if not body:
            self._send(status, headers, b"", stop - start)
        elif isinstance(what, bytes):
            part = what[start : stop + min(0, self.here.excess)] + bytes(max(0, self.here.excess))
            self._send(status, headers, part, len(part))
        else:
            with what.open("rb") as file:
                file.seek(start)
                self._send(status, headers, iter(lambda: file.read(1 << 16), b""), stop - start)

    def _send(self, status: int, headers: dict[str, str], body: bytes | Iterator[bytes], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.here.lengths or not length:
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        cut = bool(body) and length > 100 and self.here.cut > 0
        left = length // 2 if cut else length
        for piece in [body] if isinstance(body, bytes) else body:
            part = piece[:left]
            try:
                self.wfile.write(part)
            except OSError:  # who asked has heard enough
                self.close_connection = True
                return
            self.here.sent += len(part)
            left -= len(part)
            if not left:
                break
        while self.here.forever and length and body:
            try:
                self.wfile.write(self.here.forever)
            except OSError:
                self.close_connection = True
                return
            self.here.sent += len(self.here.forever)
        if cut:
            self.here.cut -= 1
            self.close_connection = True


def _tag(what: bytes | Path) -> str:
    return str(hash(what)) if isinstance(what, bytes) else str(what.stat().st_mtime_ns)
