"""A server on loopback that speaks the chat API and fails as it is told."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import pytest

from s3lora.evaluate.address import EndpointError
from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.endpoint import EndpointModel
from tests.watched import PATIENCE

pytest.importorskip("httpx")

GREEDY = Decoding(max_new_tokens=7)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    #: Seconds on a clock of no particular zero.
    at: float


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: Headers and body go out one by one: together they would wait for each other.
    disable_nagle_algorithm = True
    server: _Http

    def do_POST(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        headers = {name.lower(): value for name, value in self.headers.items()}
        owner = self.server.owner
        with owner.lock:
            owner.requests.append(Request(self.command, self.path, headers, body, time.monotonic()))
            scripted = owner.script.pop(0) if self.command == "POST" and owner.script else answers()
            behave = owner.listing if self.command == "GET" else scripted
            owner.busy += 1
            owner.busiest = max(owner.busiest, owner.busy)
        try:
            behave(self, body)
        finally:
            with owner.lock:
                owner.busy -= 1

    def reply(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": content_type, "content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


Behaviour = Callable[[Handler, dict[str, Any]], None]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    owner: FaultyServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what is tested."""


@dataclass
class FaultyServer:
    """Use it as a context manager. Each POST takes the next behaviour of the script, then every one is answered."""

    script: list[Behaviour] = field(default_factory=list)
    models: Sequence[dict[str, Any]] = ({"id": "a-model", "object": "model"},)
    requests: list[Request] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        #: Set when the test is over: whatever hangs goes home.
        self.over = threading.Event()
        #: Counts the requests that have begun to hang.
        self.hanging = threading.Semaphore(0)
        self._http = _Http(("127.0.0.1", 0), Handler)
        self._http.owner = self

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def posts(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]

    def listing(self, handler: Handler, _: dict[str, Any]) -> None:
        handler.reply(200, json.dumps({"object": "list", "data": list(self.models)}).encode())

    def __enter__(self) -> FaultyServer:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def completion(
    content: object = "", *, reason: str = "stop", tokens: int | None = 3, **message: object
) -> dict[str, Any]:
    """Return a reply as servers send it."""
    reply: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
        ],
    }
    if tokens is not None:
        reply["usage"] = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}
    return reply


def answers(content: object = None, after: float = 0.0, **how: Any) -> Behaviour:
    """Answer with `content`, or `re: ` and the question."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.server.owner.over.wait(after)
        text = f"re: {body['messages'][-1]['content']}" if content is None else content
        handler.reply(200, json.dumps(completion(text, **how)).encode())

    return behave


def says(status: int, value: object = None, content_type: str = "application/json", **headers: str) -> Behaviour:
    """Answer with a status and JSON, or bytes as they are."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.reply(
            status, value if isinstance(value, bytes) else json.dumps(value).encode(), content_type, **headers
        )

    return behave


def hangs(handler: Handler, body: dict[str, Any]) -> None:
    """Say nothing until the test is over."""
    handler.server.owner.hanging.release()
    handler.server.owner.over.wait()


def trickles(head: bytes) -> Behaviour:
    """Send `head`, then a byte now and then: no single read ever takes long."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.wfile.write(head)
        for sent in itertools.count(1):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            if sent == 3:
                handler.server.owner.hanging.release()
            if handler.server.owner.over.wait(0.01):
                return

    return behave


def floods(handler: Handler, body: dict[str, Any]) -> None:
    """Send a body without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while not handler.server.owner.over.is_set():
        handler.wfile.write(b'"' + b"x" * 65536)


def breaks(handler: Handler, body: dict[str, Any]) -> None:
    """Reset the connection in the middle of the body."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"choi')
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def hangs_up(handler: Handler, body: dict[str, Any]) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def model_of(faulty: FaultyServer, **options: Any) -> EndpointModel:
    """Return the model behind the server."""
    return EndpointModel(faulty.root, "a-model", **{"timeout": PATIENCE, "retries": 3, **options})


def ask(model: EndpointModel, *questions: str, decoding: Decoding = GREEDY) -> list[Generation]:
    """Return the answers, in order."""
    answered = dict(model.generate([Prompt.ask(question) for question in questions], decoding))
    return [answered[i] for i in range(len(questions))]


def error_of(model: EndpointModel, decoding: Decoding = GREEDY) -> str:
    """Return the one sentence that asking ends in."""
    with pytest.raises(EndpointError) as caught:
        ask(model, "one?", decoding=decoding)
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 500
    assert sentence.startswith(f"{model.url} a-model: ")
    return sentence
