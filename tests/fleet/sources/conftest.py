"""Servers on this machine that several tests share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from s3lora.fleet.sources import protocols
from tests.fleet.sources.hub_stand_in import Hub, hub
from tests.fleet.sources.web import Site, serving


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing before another try."""
    monkeypatch.setattr(protocols, "BACK_OFF", (0.0, 0.0))


@pytest.fixture
def site(quick: None) -> Iterator[Site]:
    """Return a web server."""
    pytest.importorskip("aiohttp")
    with serving() as found:
        yield found


@pytest.fixture
def models(quick: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return a stand-in for the Hub, which HF_ENDPOINT names."""
    pytest.importorskip("huggingface_hub")
    with hub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.site.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Run an S3 server and return its URL."""
    pytest.importorskip("s3fs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
        server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, quick: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Return an s3fs file system with an empty bucket `fleet`."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("fleet")
    yield system
    system.rm("fleet", recursive=True)
