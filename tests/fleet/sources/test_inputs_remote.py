"""From inputs to the URIs of adapters that lie elsewhere, on real servers that run on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from s3lora.errors import AdapterFileError, NothingToAuditError, S3LoRAError, UsageError
from s3lora.fleet.sources import listing
from s3lora.fleet.sources.discover import BASE_MODEL
from s3lora.fleet.sources.inputs import NO_ADAPTER, Found, expand
from s3lora.fleet.sources.protocols import UnreachableError
from s3lora.fleet.sources.remote import localised
from s3lora.needs import MissingPackageError
from tests.fleet.sources.hub_stand_in import Hub
from tests.fleet.sources.web import Site

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TREE = (
    *(f"runs/a/{step}{name}" for step in ("", "checkpoint-10/", "checkpoint-9/") for name in (CONFIG, WEIGHTS)),
    *("runs/a/checkpoint-9/optimizer.pt", "runs/a-b/adapters.safetensors", "runs/.cache/adapters.safetensors"),
    *("runs/base/config.json", "runs/base/model-00001-of-00002.safetensors", "loose/one.safetensors", "list.txt"),
)


def uris(*inputs: str) -> list[str]:
    found = list(expand(inputs))
    assert [one.error for one in found] == [None] * len(found)
    return [one.uri for one in found]


@pytest.fixture
def memory(quick: None) -> Iterator[Any]:
    """Return a file system in memory with the tree."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    for path in TREE:
        system.pipe(f"/fleet/{path}", b"memory://fleet/runs/a\n")
    yield system
    system.rm("/fleet", recursive=True)


def test_a_file_system_that_lists_folders(memory: Any) -> None:
    skipped: list[tuple[str, str]] = []
    found = expand(["memory://fleet/"], on_skip=lambda *told: skipped.append(told))
    a = [f"memory://fleet/runs/a{step}" for step in ("/checkpoint-9", "/checkpoint-10", "")]
    loose, ab = "memory://fleet/loose/one.safetensors", "memory://fleet/runs/a-b"
    assert [one.uri for one in found] == [loose, *a, ab]
    assert ("memory://fleet/runs/base", BASE_MODEL) in skipped
    assert uris("memory://fleet/runs/*/checkpoint-?") == a[:1]
    assert uris("memory://fleet/**/*.safetensors") == [loose, *a, ab]
    assert uris("memory://fleet/runs/a", "memory://fleet/runs") == [*a, ab]
    assert uris("memory://fleet/list.txt") == a[2:]
    assert uris(loose, "memory://fleet/not-there.safetensors") == [loose, "memory://fleet/not-there.safetensors"]
    (nothing,) = expand(["memory://elsewhere"])
    assert isinstance(nothing.error, AdapterFileError)


def test_an_object_store(bucket: Any) -> None:
    for path in TREE:
        bucket.pipe(f"fleet/{path}", b"s3://fleet/runs/a\n")
    a = [f"s3://fleet/runs/a{step}" for step in ("/checkpoint-10", "/checkpoint-9", "")]
    loose, ab = "s3://fleet/loose/one.safetensors", "s3://fleet/runs/a-b"
    assert uris("s3://fleet") == [loose, ab, *a], "in the order of the keys' bytes, where - comes before /"
    assert uris("s3://fleet/runs/a/", "s3://fleet/runs") == [*a, ab]
    assert uris("s3://fleet/runs/*/checkpoint-9") == a[1:2]
    assert uris("s3://fleet/list.txt") == a[2:]
    for uri, kind in (
        ("s3://fleet/no", NothingToAuditError),
        ("s3://nobody", AdapterFileError),
        ("s3://*", UsageError),
    ):
        (found,) = expand([uri])
        assert found.uri == uri
        assert isinstance(found.error, kind)


def test_more_keys_than_one_answer_has(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 3)
    names = [f"{i:02}" for i in range(10)]
    bucket.pipe({f"fleet/many/{name}/{CONFIG}": b"{}" for name in names})
    assert uris("s3://fleet/many") == [f"s3://fleet/many/{name}" for name in names]


def test_the_web_is_not_listed(site: Site) -> None:
    given = [f"{site.url}/a", f"{site.url}/b.safetensors?signature=1*"[:-1], f"{site.url}/list.txt"]
    site.files["/list.txt"] = f"{site.url}/c\n".encode()
    assert uris(*given) == [*given[:2], f"{site.url}/c"]
    found = list(expand([f"{site.url}/*/a", f"{site.url}/gone.txt"]))
    assert isinstance(found[0].error, UsageError)
    assert "no such file" in str(found[1].error).lower() or "cannot be read" in str(found[1].error)


def test_a_repository_of_the_hub(models: Hub) -> None:
    files = {path.removeprefix("runs/"): b"{}" for path in TREE if path.startswith("runs/")}
    models.publish("me/many", files, ["peft"])
    models.publish("me/one", {CONFIG: b"{}", WEIGHTS: b"", "README.md": b""}, ["peft"])
    assert uris("hf://me/one") == ["hf://me/one"]
    assert uris("hf://me/many@v1") == [
        *("hf://me/many@v1/a-b", "hf://me/many@v1/a/checkpoint-10", "hf://me/many@v1/a/checkpoint-9"),
        "hf://me/many@v1/a",
    ]
    assert uris("hf://me/many/a-b", "hf://me/many@refs/pr/1/a-b") == ["hf://me/many/a-b", "hf://me/many@refs/pr/1/a-b"]
    before = len(models.site.asked)
    assert uris("hf://me/gone/x.safetensors") == ["hf://me/gone/x.safetensors"]
    assert len(models.site.asked) == before, "what names a file is not looked for"
    models.gated.add("me/one")
    for uri, words in (("hf://me/gone", "404"), ("hf://me/one", "credentials"), ("hf://me/many@nope", "404")):
        (found,) = expand([uri])
        assert found.uri == uri
        assert isinstance(found.error, AdapterFileError)
        assert words in str(found.error)


def test_owners_and_searches(models: Hub) -> None:
    adapter = {CONFIG: b"{}", WEIGHTS: b""}
    for i in range(5):
        models.publish(f"me/lora-{i}", adapter, ["peft", "lora"] if i % 2 else ["peft"])
    models.publish("me/sd", {"x.safetensors": b""}, ["lora", "diffusers"])
    models.publish("me/whole", {"config.json": b"", "model.safetensors": b""}, ["transformers"])
    models.publish("me/merged", {"config.json": b"", "model.safetensors": b""}, ["peft"])
    models.publish("you/lora-9", adapter, ["peft"])
    skipped: list[tuple[str, str]] = []
    mine = [f"hf://me/lora-{i}" for i in range(5)]
    found = [one.uri for one in expand(["hf://me"], on_skip=lambda *told: skipped.append(told))]
    assert found == [*mine, "hf://me/sd/x.safetensors"], "each once, whatever tags it has"
    assert skipped == [("hf://me/merged", BASE_MODEL), ("hf://me/merged", NO_ADAPTER)]
    assert uris("hf://?search=lora&limit=3") == mine[:3]
    assert uris("hf://?search=lora&author=you") == ["hf://you/lora-9"]
    assert uris("hf://?search=lora&filter=peft,lora") == [mine[1], mine[3]]
    before = len(models.site.asked)
    assert next(expand(["hf://?search=lora"])) == Found(mine[0])
    assert len(models.site.asked) == before + 1, "a page when it is needed"
    models.tells_files = False
    assert uris("hf://you") == ["hf://you/lora-9"]


def test_searches_that_have_no_meaning(models: Hub) -> None:
    given = ["hf://?limit=3", "hf://?search=x&limit=-1", "hf://?sort=x&search=y", "hf://datasets/a/b", "hf://nobody"]
    found = list(expand(given))
    assert [one.uri for one in found] == given
    assert [type(one.error) for one in found] == [UsageError] * 4 + [NothingToAuditError]


def test_a_hub_that_fails(models: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    models.publish("me/one", {CONFIG: b"{}"}, ["peft"])
    models.site.faults["/api/models/me/one"] = [503, 503]
    assert uris("hf://me/one") == ["hf://me/one"]
    models.site.faults["/api/models/me/one"] = [503] * 3
    (found,) = expand(["hf://me/one"])
    assert isinstance(found.error, UnreachableError)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (found,) = expand(["hf://me/one"])
    assert isinstance(found.error, UnreachableError)


ODD = (
    *("http://[bad", "http://", "https://", "http:///x", "s3://", "s3:///x", "memory://", "hf://", "hf:///", "hf://?"),
    *("hf://a//b", "hf://../..", "file://", "file:///nope", "zip://x", "simplecache::s3://x", "reference://x"),
    *("github://x", "ftp://127.0.0.1:9/x", "data:,x", "dir://x", "local://x", "jlab://x", "a://b", "cached://x"),
    *("s3://b\n/x", "http://127.0.0.1:9/\n\r x", "HTTP://127.0.0.1:9/x", "\udcff://x", "s3://b/\udcff.safetensors"),
    *("http://127.0.0.1:9/\udcff", "sftp://127.0.0.1:9/x", "x" * 5000, "s3://" + "x" * 5000, "hf://a/b@\x1b[2J"),
)


@pytest.mark.parametrize("uri", ODD)
def test_odd_addresses_end_in_one_sentence(bucket: Any, models: Hub, uri: str) -> None:
    (found,) = expand([uri])
    try:
        with localised(uri):
            pytest.fail("there is nothing to give")
    except S3LoRAError as error:
        for one in filter(None, (error, found.error)):
            assert str(one).isprintable()
            assert 'File "' not in str(one)


def test_a_store_that_is_not_there(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (found,) = expand(["s3://fleet/x"])
    assert isinstance(found.error, UnreachableError)
    with pytest.raises(UnreachableError), localised("s3://fleet/x"):
        pytest.fail("there is nothing to give")
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("uri", "package"), [("gs://a/b", "gcsfs"), ("hf://a/b", "huggingface_hub"), ("s3://a/b", "s3fs")]
)
def test_a_package_that_is_not_installed(uri: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, uri.partition(":")[0], raising=False)
    (found,) = expand([uri])
    assert isinstance(found.error, MissingPackageError)
    assert package in str(found.error)
    assert "pip install" in str(found.error)
