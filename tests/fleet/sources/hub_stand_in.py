"""A stand-in for the Hub on this machine: the list of models, what is in one, and its files with ranges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fleet.sources.web import Answer, Site, serving

COMMIT = "c" * 40


@dataclass
class Hub:
    """Models by name: the files of each, and its tags. A model in `gated` needs a token."""

    site: Site
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    page: int = 2
    tells_files: bool = True

    def publish(self, name: str, files: dict[str, bytes], tags: list[str]) -> None:
        """Add a model."""
        self.models[name], self.tags[name] = files, tags
        for path, data in files.items():
            self.site.files[f"/{name}/resolve/{COMMIT}/{path}"] = data

    def answer(self, target: str, authorization: str) -> Answer | None:
        """Return what the Hub's API says."""
        url = urlsplit(target)
        path, query = unquote(url.path), parse_qs(url.query)
        if path == "/api/models":
            return self._list(url.path, query)
        name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        if name in self.gated and not authorization:
            return _json({"error": "gated"}, 401)
        if name not in self.models or revision not in ("", "main", "v1", "refs/pr/1", COMMIT):
            return _json({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        return _json({"id": name, "sha": COMMIT, "siblings": [_file(p, d) for p, d in self.models[name].items()]})

    def _list(self, path: str, query: dict[str, list[str]]) -> Answer:
        found = [
            name
            for name in sorted(self.models)
            if set(query.get("filter", [])) <= set(self.tags[name])
            and name.startswith(f"{query['author'][0]}/" if "author" in query else "")
            and query.get("search", [""])[0].lower() in name.lower()
        ]
        start = int(query.get("cursor", ["0"])[0])
        page = [self._model(name) for name in found[start : start + self.page]]
        headers = {}
        if start + self.page < len(found):
            rest = "&".join(f"{k}={v}" for k, values in query.items() if k != "cursor" for v in values)
            headers["Link"] = f'<{self.site.url}{path}?{rest}&cursor={start + self.page}>; rel="next"'
        return _json(page, 200, headers)

    def _model(self, name: str) -> dict[str, object]:
        files = {"siblings": [{"rfilename": path} for path in self.models[name]]} if self.tells_files else {}
        return {"id": name, "tags": self.tags[name], **files}


def _file(path: str, data: bytes) -> dict[str, object]:
    blob = {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
    if not path.endswith(".safetensors"):
        return blob
    return {**blob, "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()


@contextmanager
def hub() -> Iterator[Hub]:
    """Run the stand-in for as long as the block lasts; HF_ENDPOINT is to be set to its URL."""
    with serving() as site:
        stand_in = Hub(site)
        site.routes = stand_in.answer
        yield stand_in
