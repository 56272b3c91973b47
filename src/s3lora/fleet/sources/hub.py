"""`hf://` addresses: a repository, all LoRA models of an owner, or what a search finds.

    hf://OWNER/NAME[@REVISION][/PATH]
    hf://OWNER
    hf://?search=TEXT[&author=OWNER][&filter=TAG][&limit=N]

The Hub is the one that the environment variable HF_ENDPOINT names, else huggingface.co.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, unquote

from s3lora.errors import UsageError, printable
from s3lora.fleet.sources.protocols import retried, told
from s3lora.needs import need

HUB = "https://huggingface.co"
#: Tags of LoRA models: PEFT's library, and what Diffusers and others write.
TAGS = ("peft", "lora")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_OWNER = re.compile(_PART)
_REPOSITORY = re.compile(
    rf"(?P<name>{_PART}/{_PART})(?:@(?P<revision>refs/(?:convert|pr)/[\w.-]+|[^/@]+))?(?:/(?P<path>.*))?", re.DOTALL
)
_FIELDS = ("search", "author", "filter", "limit")


@dataclass(frozen=True, slots=True)
class Repository:
    """A model, one state of it, and a path in it; `root` is its address without the path."""

    name: str
    revision: str | None
    path: str
    root: str


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model that a search found; `files` are the paths of its files, None where the Hub did not tell."""

    name: str
    files: tuple[str, ...] | None


def endpoint() -> str:
    """Return the address of the Hub."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def api() -> Any:
    """Return the Hub's client; raise MissingPackageError where it is not installed."""
    return need("huggingface_hub", "fleet").HfApi(endpoint=endpoint())


def repository(uri: str) -> Repository | None:
    """Return the repository that an address names, None if it names an owner or a search.

    Raises UsageError for an address that is none of them.
    """
    rest = uri.partition("://")[2]
    if rest.startswith("?") or _OWNER.fullmatch(rest.rstrip("/")):
        return None
    found = _REPOSITORY.fullmatch(rest.rstrip("/"))
    if found is None or rest.startswith(("datasets/", "spaces/", "buckets/")):
        raise UsageError(f"{printable(uri)} is no address of a model", fix="give hf://OWNER/NAME, optionally @REVISION")
    path = found["path"] or ""
    root = f"hf://{found['name']}" + (f"@{found['revision']}" if found["revision"] else "")
    return Repository(found["name"], unquote(found["revision"]) if found["revision"] else None, path, root)


def information(repo: Repository, uri: str) -> Any:
    """Return the Hub's `ModelInfo`: the commit, and name, size and digests of every file; one request."""
    client = api()
    return retried(lambda: client.model_info(repo.name, revision=repo.revision, files_metadata=True), uri)


def search(uri: str) -> Iterator[HubModel]:
    """Yield the models of an owner or of a search, each once, as the Hub's pages come in.

    Raises UsageError for a search that has no meaning, UnreachableError and AdapterFileError where the Hub fails.
    """
    query, limit = _query(uri)
    client = api()
    tags = query.pop("filter", None)
    found = _union(client, query, [tags] if tags else list(TAGS), limit)
    try:
        yield from islice(found, limit)
    except Exception as error:
        raise told(error, uri) from None


def _union(client: Any, query: dict[str, Any], tags: list[Any], limit: int | None) -> Iterator[HubModel]:
    seen: set[str] = set()
    for tag in tags:
        for model in client.list_models(**query, filter=tag, limit=limit, expand=["siblings"]):
            if model.id not in seen:
                seen.add(model.id)
                files = None if model.siblings is None else tuple(file.rfilename for file in model.siblings)
                yield HubModel(model.id, files)


def _query(uri: str) -> tuple[dict[str, Any], int | None]:
    rest = uri.partition("://")[2].rstrip("/")
    if not rest.startswith("?"):
        return {"author": rest}, None
    fields = parse_qs(rest[1:], keep_blank_values=True)
    if unknown := [name for name in fields if name not in _FIELDS]:
        known = ", ".join(_FIELDS)
        raise UsageError(f"{printable(uri)}: a search has no {printable(unknown[0], 40)}", fix=f"it has {known}")
    if not any(fields.get(name, [""])[0] for name in ("search", "author", "filter")):
        raise UsageError(f"{printable(uri)} searches for everything", fix="give search=, author= or filter=")
    query: dict[str, Any] = {name: fields[name][0] for name in ("search", "author") if name in fields}
    if "filter" in fields:
        query["filter"] = [tag for value in fields["filter"] for tag in value.split(",") if tag]
    limit = fields.get("limit", [None])[0]
    if limit is None:
        return query, None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", limit):
        raise UsageError(f"{printable(uri)}: limit is no positive number", fix="give e.g. limit=1000")
    return query, int(limit)
