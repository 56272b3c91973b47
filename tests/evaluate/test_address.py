"""Addresses of endpoints, the key, and what identifies a model behind one."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import UsageError
from s3lora.evaluate import endpoint, server
from s3lora.evaluate.address import EndpointError, base_url, key_for
from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.endpoint import EndpointModel
from s3lora.evaluate.store import AnswerStore, generations
from s3lora.needs import MissingPackageError
from tests.evaluate.faulty_server import (
    GREEDY,
    FaultyServer,
    answers,
    ask,
    error_of,
    hangs,
    model_of,
    says,
)

KEY = "sk-secret-0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_key_and_no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S3LORA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server, "FIRST_PAUSE", 0.002)


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


# The key


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"S3LORA_API_KEY": KEY, "OPENAI_API_KEY": "other"}, f"Bearer {KEY}"),
        ({"OPENAI_API_KEY": f" {KEY}\n"}, f"Bearer {KEY}"),
        ({"S3LORA_API_KEY": "", "OPENAI_API_KEY": KEY}, None),
    ],
)
def test_the_key_comes_from_the_environment(
    faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], sent: str | None
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    ask(model_of(faulty), "a?")
    assert faulty.posts[0].headers.get("authorization") == sent


def test_the_key_is_found_nowhere(
    faulty: FaultyServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    faulty.script = [answers(f"you sent {KEY}, did you not")]
    model = model_of(faulty)
    with AnswerStore(tmp_path / "s.sqlite") as store:
        [answer] = generations(model, [Prompt.ask("a?")], GREEDY, store)
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    faulty.script = [says(401, {"error": f"bad key {KEY}"})]
    assert KEY not in error_of(model)
    faulty.script = [says(200, {"error": KEY})] * 9
    assert KEY not in error_of(model)
    assert answer.text == "you sent …, did you not"
    assert KEY.encode() not in files
    assert b"you sent" in files
    assert KEY not in caplog.text + "".join(capfd.readouterr()) + repr(model)
    assert KEY not in json.dumps([model.identity, model.url, model.name, model.notes])
    assert any("chat/completions" in record.getMessage() for record in caplog.records)


def test_a_placeholder_for_a_key_is_left_in_the_answers(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3LORA_API_KEY", "EMPTY")
    faulty.script = [answers("The set is EMPTY.")]
    assert ask(model_of(faulty), "a?")[0].text == "The set is EMPTY."


@pytest.mark.parametrize("url", ["http://10.0.0.7:8000/v1", "http://localhost.evil.test", "http://[::2]:1/v1"])
def test_the_key_is_not_sent_in_the_clear_to_another_machine(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    EndpointModel(url, "m")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(EndpointError, match="not sent to another machine in the clear; use https, or set S3LORA") as e:
        EndpointModel(url, "m")
    assert KEY not in str(e.value)
    EndpointModel(url.replace("http:", "https:"), "m")
    monkeypatch.setenv("S3LORA_API_KEY", "")
    EndpointModel(url, "m")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://127.8.0.1", "http://[::1]:80", "http://localhost"])
def test_the_key_is_sent_to_this_machine(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert key_for(EndpointModel(url, "m").url) == KEY


@pytest.mark.parametrize("key", ["sk-1234567890\r\nx: y", "sk-\u2019123456789"])
def test_a_key_that_no_header_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(EndpointError, match=r"cannot be sent$") as caught:
        EndpointModel("https://example.test", "m")
    assert "12345" not in str(caught.value)


def test_no_proxy_stands_between_this_machine_and_itself(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.root)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        ask(model_of(faulty), "a?")
        assert proxy.requests == []


@pytest.mark.parametrize(
    "setting",
    [
        {"ALL_PROXY": "no-scheme://somewhere"},
        {"HTTPS_PROXY": "gopher://somewhere"},
        {"SSL_CERT_FILE": "/there/is/no/such/file"},
        {"SSL_CERT_FILE": __file__},
    ],
)
def test_an_environment_that_cannot_be_used_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    told = error_of(EndpointModel("https://example.test", "a-model", retries=0))
    assert "proxy or certificates of the environment cannot be used (" in told


def test_a_refused_key_says_where_it_comes_from(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty.script = [says(401, {"error": "who?"}), says(403)]
    assert error_of(model_of(faulty)).endswith("401 (who?); set the key in S3LORA_API_KEY or OPENAI_API_KEY")
    monkeypatch.setenv("S3LORA_API_KEY", KEY)
    assert error_of(model_of(faulty)).endswith("403; check the key in S3LORA_API_KEY or OPENAI_API_KEY")


def test_the_http_library_is_the_one_that_the_extra_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = distribution("s3lora").requires or []
    assert any(re.match("httpx[^;0-9]*[0-9.]+ *; *extra == .eval", one) for one in requirements)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingPackageError, match=r"the package httpx, which is not installed; run: pip install"):
        EndpointModel("http://localhost", "m")


# Addresses and identity


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1//", "http://localhost:8000/v1"),
        ("http://LOCALHOST:8000/v1/chat/completions", "http://localhost:8000/v1"),
        ("https://example.test/api/v3", "https://example.test/api/v3"),
        ("https://example.test/v1beta/openai/", "https://example.test/v1beta/openai"),
        ("https://example.test/Team", "https://example.test/Team/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_addresses_are_taken_with_and_without_a_version(url: str, expected: str) -> None:
    assert base_url(url) == expected
    assert base_url(expected) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http://[::1",
        "http://h:99999",
        "http://h:x",
        "/v1",
        "http://h/v1?key=hush",
        "http://user:hush@h/v1",
        "http://h /v1",
        "http://h/\x1b",
        "http://h/v1#hush",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match="the endpoint") as caught:
        EndpointModel(url, "m")
    assert str(caught.value).isprintable()
    assert "hush" not in str(caught.value)


@given(st.text(max_size=60) | st.text(max_size=40).map("http://".__add__))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        url = base_url(text)
    except EndpointError as error:
        problem = str(error)
    else:
        problem = ""
        assert base_url(url) == url
    assert problem.isprintable()


def test_a_host_name_that_cannot_be_is_told_in_a_sentence() -> None:
    assert "a-model: " in error_of(EndpointModel(f"http://{'x' * 70}..test", "a-model", retries=0))


def test_identity_is_address_name_and_what_the_server_tells(faulty: FaultyServer) -> None:
    def identity(name: str = "a-model", *told: dict[str, Any]) -> str:
        faulty.models = list(told)
        return EndpointModel(f"{faulty.root}/v1/", name).identity

    plain = identity()
    card = {"id": "a-model", "root": "/models/a", "created": 1, "meta": {"n_params": 5}}
    told = identity("a-model", {"id": "b"}, card)
    assert len({plain, told, identity("b"), identity("a-model", {**card, "root": "/models/b"})}) == 4
    assert identity("a-model", {"id": "b"}, {**card, "created": 2, "permission": [{"id": "random"}]}) == told
    assert identity("a-model", {**card, "meta": {"n_params": 6}}) != told
    # llama.cpp: one model, whatever name it is given.
    assert identity("any", card) != identity("any", {**card, "root": "/models/b"})
    assert identity("a-model", {**card, "meta": None, "root": {"x": 1}}) == identity("a-model", {"id": "a-model"})


def test_identity_asks_once(faulty: FaultyServer) -> None:
    model = model_of(faulty)
    assert model.identity == model.identity
    assert [r.path for r in faulty.requests] == ["/v1/models"]


def test_a_list_of_models_that_never_comes_is_done_without(
    faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.listing = hangs  # type: ignore[method-assign]
    monkeypatch.setattr(endpoint, "LISTING", 0.2)
    assert len(model_of(faulty).identity) == 64  # and does not hang as the list does


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for options in ({"parallel": 0}, {"retries": -1}, {"timeout": 0.0}, {"timeout": float("nan")}):
        with pytest.raises(UsageError, match="an endpoint needs"):
            EndpointModel("http://localhost", "m", **options)  # type: ignore[arg-type]
