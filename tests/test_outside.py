"""Words of others as they are shown: no secret of a URL gets through, and no command to a CI."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import s3lora
from s3lora.errors import AdapterFileError, S3LoRAError
from s3lora.outside import STRUCK, printable, without_commands, without_secrets

#: What a CI takes for a command to it: anywhere in a line, or where it begins.
COMMANDS = re.compile(r"##(?:vso|teamcity)?\[|(?m:^\s*(?:::|##\[|section_(?:start|end):))", re.IGNORECASE)
SECRETS = st.text("abcXYZ0189!$*+,;-_.~%:@", min_size=6, max_size=20).map(lambda text: f"Qq{text}")
FIELDS = st.sampled_from(
    (
        *("token", "access_token", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature"),
        *(
            "sig",
            "Signature",
            "AWSAccessKeyId",
            "api_key",
            "apikey",
            "client_secret",
            "PASSWORD",
            "hf-token",
            "%74oken",
        ),
    )
)


@given(st.sampled_from(["https", "http", "ftp", "s3", "sftp", "webdav"]), SECRETS, SECRETS, st.booleans())
def test_a_user_with_a_password_is_struck_out(scheme: str, user: str, password: str, quoted: bool):
    secret = quote(password, safe="") if quoted else password
    name = quote(user, safe="")
    told = f"no such file: {scheme}://{name}:{secret}@example.org:8443/a/b.safetensors; look again"
    for shown in (without_secrets(told), printable(told, 400)):
        assert shown == f"no such file: {scheme}://{STRUCK}@example.org:8443/a/b.safetensors; look again"


@given(FIELDS, SECRETS, st.sampled_from(["?", "?a=1&", "#", "?a=1;"]), st.sampled_from(["", "&part=2"]))
def test_a_secret_of_a_query_is_struck_out(field: str, secret: str, before: str, after: str):
    value = quote(secret, safe="")
    url = f"https://example.org/a.bin{before}{field}="
    assert without_secrets(f"{url}{value}{after}") == f"{url}{STRUCK}{after}"
    assert without_secrets(f"{url}{STRUCK}{after}") == f"{url}{STRUCK}{after}", "twice is once"


@given(st.text(max_size=40), SECRETS, st.text(max_size=40))
def test_whatever_stands_around_a_url(before: str, secret: str, after: str):
    value = quote(secret, safe="")
    assume(value not in before + after)
    assert value not in printable(f"{before} https://{value}@example.org/x?token={value} {after}", 1000)


@pytest.mark.parametrize(
    "url",
    [
        "hf://owner/name@refs/pr/1/path",
        "https://example.org:8443/a@b/c",
        "http://[::1]:8080/a@b",
        "https://example.org/get?key=adapters/one.safetensors&id=7&page=2",
        "abfs://container@account.dfs.core.windows.net/a",
        "sftp://me@example.org/a",
        "s3://bucket/a=1/b@2",
        "C:/runs/me:x@y",
        "model.layers.0.self_attn.q_proj",
    ],
)
def test_what_is_no_secret_stays(url: str):
    assert without_secrets(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ghp_0123456789@example.org/a", "https://…@example.org/a"),
        ("https://me:pa/ss@example.org/a", "https://…@example.org/a"),
        ("https://me:p@ss@example.org/a", "https://…@example.org/a"),
        ("https:/me:secret@example.org/a", "https:/…@example.org/a"),
        ("https://example.org/a?key=AIzaSyA1234567890abcdef", "https://example.org/a?key=…"),
    ],
)
def test_forms_that_people_paste(url: str, shown: str):
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    "text", ["a" * 2_000_000 + " :/", "aa:/=" + "?" * 2_000_000, "aa:/" + "?a" * 1_000_000, "a-" * 1_000_000 + ":/"]
)
def test_long_words_take_no_time_that_grows_with_their_square(text: str) -> None:
    assert len(printable(text)) == 160
    assert "aa" in without_secrets("aa" + text)


@pytest.mark.parametrize("before", ["", "-", "x-", "1", ".", "+", "_", "(", "ä"])
def test_secrets_are_struck_whatever_stands_before_the_scheme(before: str) -> None:
    assert "geheim" not in without_secrets(f"{before}https://me:geheim@example.org/a?token=geheim&b=1")


def test_an_error_about_a_path_that_no_file_can_have_is_a_sentence():
    with pytest.raises(S3LoRAError) as caught:
        s3lora.scan("a\0b")
    assert str(caught.value).isprintable()
    assert caught.value.located().isprintable()


def test_an_error_names_no_secret():
    error = AdapterFileError("no such file", file=Path("https://me:secret@example.org/a"))
    error.adapter = "https://me:secret@example.org/a"
    assert "secret" not in str(error) + error.located()
    assert urlsplit("https://example.org/a").path in str(error)


PIECES = st.sampled_from(
    (
        *(
            "::",
            "##",
            "[",
            "##[",
            "##vso[",
            "##VSO[",
            "##teamcity[",
            "section_start:",
            "section_end:",
            "error",
            " ",
            "\n",
        ),
        *("\t", "\x1b[1m", "\x1b[0K", "x", "#", ":", "\r", "\u2028", "\x0b", "\\"),
    )
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example(":\x1b[1m::")
@example(":\x1b[1m:error::")
@example("#\x1b[1m#vso[")
def test_no_line_is_a_command(text: str):
    shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", without_commands(text))
    assert COMMANDS.search(shown) is None
    assert not [line for line in shown.splitlines() if COMMANDS.match(line.strip())]


@given(st.text())
def test_what_is_no_command_stays(text: str):
    assume(not any(mark in text for mark in ("::", "##", "section_")))
    assert without_commands(text) == text
