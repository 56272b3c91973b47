"""Servers that send us on to others, send for ever, or ask for what they must not have."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import AdapterFileError, S3LoRAError, UsageError
from s3lora.fleet.sources import lists, stores
from s3lora.fleet.sources.inputs import expand
from s3lora.fleet.sources.redirects import MOST, checked, same_server, target
from s3lora.fleet.sources.remote import UnreachableError, localised
from tests.fleet.sources.hub_stand_in import COMMIT, Hub
from tests.fleet.sources.web import Site, serving
from tests.support import make_adapter

MODULES = {f"model.layers.{i}.self_attn.q_proj": (64, 48, 4) for i in range(3)}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def other() -> Iterator[Site]:
    """Return a second server, which is another one by its port."""
    with serving() as found:
        yield found


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "run", MODULES)


def moved(site: Site, other: Site, adapter: Path) -> str:
    """Let one server send everybody on to another for an adapter, and return the address at the first."""
    url = other.add(adapter, "run")
    site.moved = {f"/run/{name}": f"{url}/{name}" for name in (CONFIG, WEIGHTS)}
    return f"{site.url}/run"


def test_another_server_is_not_asked_unless_it_is_named(site: Site, other: Site, adapter: Path) -> None:
    url = moved(site, other, adapter)
    where = other.url.removeprefix("http://")
    with pytest.raises(AdapterFileError, match=rf"another server \({where}\).*allow follow= {where}"), localised(url):
        pytest.fail("there is nothing to give")
    assert other.asked == []
    for follow in (where, "127.0.0.1", "localhost", f"*.0.0.1:{other.url.rpartition(':')[2]}x"[:-1]):
        if follow in (where, f"*.0.0.1:{other.url.rpartition(':')[2]}"):
            with localised(url, follow=checked([follow])) as local:
                assert local.path is not None
                assert (local.path / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()
        else:
            with pytest.raises(AdapterFileError), localised(url, follow=checked([follow])):
                pytest.fail("that is another port, or another name")


def test_the_same_server_is_asked_again_but_not_for_ever(site: Site, adapter: Path) -> None:
    site.add(adapter, "run")
    site.moved = {f"/old/{name}": f"../run/{name}" for name in (CONFIG, WEIGHTS)}
    with localised(f"{site.url}/old") as local:
        assert local.path is not None
        assert (local.path / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()
    site.moved = {f"/old/{CONFIG}": CONFIG}
    site.asked.clear()
    with pytest.raises(AdapterFileError, match=f"redirected more than {MOST} times"), localised(f"{site.url}/old"):
        pytest.fail("there is nothing to give")
    assert len(site.asked) == MOST + 1


def test_who_asks_is_told_to_nobody_else(site: Site, other: Site, adapter: Path) -> None:
    url = moved(site, other, adapter).replace("http://", "http://me:geheim@")
    follow = checked([other.url.removeprefix("http://")])
    with localised(url, follow=follow) as local:
        assert local.path is not None
    login = "Basic " + base64.b64encode(b"me:geheim").decode()
    assert {told for _, told in site.told} == {login}
    assert {told for _, told in other.told} == {None}
    site.moved = {path: to.replace("http://", "http://you:there@") for path, to in site.moved.items()}
    with localised(url, follow=follow) as local:
        assert {told for _, told in other.told} == {None}, "the server chooses no user for us"
    site.moved.clear()
    site.faults[f"/run/{CONFIG}"] = [401] * 9
    with pytest.raises(AdapterFileError, match="credentials") as caught, localised(url):
        pytest.fail("there is nothing to give")
    assert "geheim" not in f"{caught.value} {caught.value.located()} {caught.value.file}"


def test_the_hub_may_send_on_to_its_own_hosts_only(models: Hub, other: Site, adapter: Path) -> None:
    files = {name: (adapter / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    models.publish("me/one", files, ["peft"])
    models.site.moved = {f"/me/one/resolve/{COMMIT}/{WEIGHTS}": f"{other.url}/blob"}
    other.files["/blob"] = files[WEIGHTS]
    with pytest.raises(AdapterFileError, match="another server"), localised("hf://me/one"):
        pytest.fail("there is nothing to give")
    with localised("hf://me/one", follow=checked([other.url.removeprefix("http://")])) as local:
        assert local.path is not None
    hub = stores.HUB_HOSTS
    assert target("https://huggingface.co/a", "https://cas-bridge.xethub.hf.co/b?sig=1", hub).startswith("https://cas-")
    for elsewhere in ("https://hf.co.example.org/b", "https://evilhf.co/b", "https://hf.co:444/b", "http://a.hf.co/b"):
        with pytest.raises(AdapterFileError):
            target("https://huggingface.co/a", elsewhere, hub)


def test_lists_are_redirected_by_the_same_rule(site: Site, other: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    other.files["/list.txt"] = b"one\ntwo\n"
    site.moved = {"/list.txt": f"{other.url}/list.txt"}
    (found,) = expand([f"{site.url}/list.txt"])
    assert "another server" in str(found.error)
    follow = checked([other.url.removeprefix("http://")])
    assert [one.uri for one in expand([f"{site.url}/list.txt"], follow=follow)] == ["one", "two"]
    other.forever = b"three\n" * 1000
    monkeypatch.setattr(lists, "LARGEST", 1_000_000)
    other.lengths = False
    errors = [one.error for one in expand([f"{site.url}/list.txt"], follow=follow) if one.error is not None]
    assert "is larger than 1,000,000 bytes" in str(errors[0])


STARTS = {
    "whole": None,
    "too long": b"\xff" * 8,
    "nonsense": b"\x08" + bytes(7) + b"nonsense",
    "empty": b"\x02" + bytes(7) + b"{}",
    "nothing": b"",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_body_without_an_end_is_read_as_far_as_its_header_claims(
    site: Site, adapter: Path, start: bytes | None
) -> None:
    whole = (adapter / WEIGHTS).read_bytes() if start is None else start + bytes(100)
    site.files[f"/run/{WEIGHTS}"] = whole
    site.ranges, site.lengths, site.forever = False, False, bytes(1 << 16)
    told = "bytes after its last tensor" if start is None else "header|tensor|metadata"
    with pytest.raises(AdapterFileError, match=told), localised(f"{site.url}/run/{WEIGHTS}"):
        pytest.fail("there is nothing to give")
    assert site.sent < len(whole) + 2 * stores.CHUNK, "one piece, and what was on the way"


def test_a_body_without_an_end_that_claims_nothing_is_read_up_to_the_limit(site: Site) -> None:
    site.files["/run/adapter_model.bin"] = bytes(100)
    site.ranges, site.lengths, site.forever = False, False, bytes(1 << 16)
    url = f"{site.url}/run/adapter_model.bin"
    with pytest.raises(AdapterFileError, match="limit is 1,000,000"), localised(url, limit=1_000_000):
        pytest.fail("a torch file does not tell its size at its beginning")


def test_a_body_longer_than_its_length_does_no_harm(site: Site, adapter: Path) -> None:
    url = site.add(adapter, "run")
    site.ranges, site.forever = False, bytes(1 << 10)
    with contextlib.suppress(S3LoRAError), localised(f"{url}/{WEIGHTS}") as local:
        assert local.path is not None
        assert local.path.read_bytes() == (adapter / WEIGHTS).read_bytes()


def test_a_server_that_drips_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/run/adapter_model.bin"] = b"x" * 100
    site.ranges, site.lengths, site.forever = False, False, b"x"
    monkeypatch.setattr(stores, "GRACE", 1e-9)
    monkeypatch.setattr(stores, "SLOWEST", 1e12)
    with pytest.raises(UnreachableError), localised(f"{site.url}/run/adapter_model.bin"):
        pytest.fail("there is nothing to give")


HOSTS = st.sampled_from(
    ["a.example.org", "b.example.org", "example.org", "127.0.0.1", "[::1]", "169.254.169.254", "ü.org"]
)


@given(st.sampled_from(["http", "https"]), HOSTS, st.sampled_from(["", ":80", ":443", ":8443"]), HOSTS, st.booleans())
def test_no_redirect_leaves_the_server(scheme: str, host: str, port: str, other: str, user: bool) -> None:
    url = "https://a.example.org/x"
    location = f"{scheme}://{'me:pw@' if user else ''}{host}{port}/y?z=1"
    if same_server(url, location):
        assert (scheme, host) == ("https", "a.example.org")
        assert target(url, location, ()) == f"https://{host}{port}/y?z=1"
    else:
        with pytest.raises(AdapterFileError) as caught:
            target(url, location, ())
        assert "pw" not in str(caught.value)
    if scheme == "http":
        with pytest.raises(AdapterFileError, match="from https to http"):
            target(url, location, checked([host + port]))
    else:
        assert "@" not in target(url, location, checked([host + (port or ":443")]))


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://a.example.org/", "//", "", "http://[", "https://a:b:c/", "javascript:x"]
)
def test_what_is_no_address_is_not_followed(location: str) -> None:
    if location in ("", "//"):
        assert target("https://a.example.org/x", location, ()) in ("https://a.example.org/x",)
        return
    with pytest.raises(AdapterFileError):
        target("https://a.example.org/x", location, ())


def test_hosts_are_checked() -> None:
    assert checked(["Example.ORG", "*.b.org:8443", "[::1]:80", "ü.org", "10.0.0.1"]) == (
        "example.org", "*.b.org:8443", "[::1]:80", "xn--tda.org", "10.0.0.1",
    )  # fmt: skip
    for given_ in ("", "https://a.org", "a/b", "me@a.org", "a.*.org", "*", "a:b", "a b/", "."):
        with pytest.raises(UsageError, match="is no host"):
            checked([given_])
