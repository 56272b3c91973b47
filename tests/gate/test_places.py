"""Where an adapter lies, told without saying where on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from s3lora.gate.places import Place, names_for, place_of, same


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "repo" / "adapters" / "a").mkdir(parents=True)
    (tmp_path / "else" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repo")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "file", "place"),
    [
        ("adapters/a", "w.safetensors", Place("adapters/a/w.safetensors")),
        ("adapters/a/", "w.safetensors", Place("adapters/a/w.safetensors")),
        ("./adapters/../adapters/a", "w.safetensors", Place("adapters/a/w.safetensors")),
        ("adapters/a/w.safetensors", None, Place("adapters/a/w.safetensors")),
        ("{root}/repo/adapters/a", "w", Place("adapters/a/w")),
        (".", "w", Place("w")),
        ("nowhere", None, Place("nowhere")),
        ("nowhere", "w", Place("nowhere")),
        ("", None, Place(".")),
        ("../else/b", "w", Place("else/b/w", outside=True)),
        ("../else/b/w", None, Place("else/b/w", outside=True)),
        ("{root}/else/b", "w", Place("else/b/w", outside=True)),
        ("../else/b", None, Place("else/b", outside=True)),
        ("..", None, Place("{name}/repo", outside=True)),
        ("..x", None, Place("..x")),
        ("a b%#?", None, Place("a%20b%25%23%3F")),
        ("q:x/é", None, Place("q%3Ax/%C3%A9")),
    ],
)
def test_places(path: str, file: str | None, place: Place, desk: Path) -> None:
    found = place_of(path.format(root=desk), file)
    if path == "..":
        assert (found.uri, found.outside) == ("/".join(desk.parts[-2:]), True)
    else:
        assert found == place


def test_adapters_outside_are_told_apart(desk: Path) -> None:
    """Those of one scan keep as many names as differ."""
    paths = ["../x/deep/a", "../y/deep/a", "../y/deep/b"]
    for path in paths:
        Path(path).mkdir(parents=True)
    assert names_for(paths) == 4
    assert [place_of(path, "w", 4).uri for path in paths] == ["x/deep/a/w", "y/deep/a/w", "y/deep/b/w"]
    assert names_for(paths[1:]) == names_for([]) == names_for([paths[0], paths[0]]) == 3
    Path("../y/deep/a/w").touch()
    assert names_for(["../y/deep/a/w", "../y/deep/a"]) == 3


def test_a_link_into_the_working_directory(desk: Path) -> None:
    (desk / "link").symlink_to(desk / "repo")
    assert place_of(str(desk / "link" / "adapters" / "a"), "w") == Place("adapters/a/w")


def test_names_that_are_no_text(desk: Path) -> None:
    name = os.fsdecode(b"\xff\n\x1b[31m")
    place = place_of(name)
    assert place.uri.isascii()
    assert place.uri.isprintable()
    assert unquote_to_bytes(place.uri) == b"\xff\n\x1b[31m"
    assert place.shown.isprintable()


def test_beside() -> None:
    assert Place("a/b/c").beside("d e") == Place("a/b/d%20e")
    assert Place("c", outside=True).beside("d") == Place("d", outside=True)


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("a/b/w", "a/b/w", True),
        ("b/w", "a/b/w", True),
        ("a/b/w", "b/w", True),
        ("w", "w", True),
        ("w", "a/w", False),
        ("run1/c/w", "run2/c/w", False),
        ("xb/w", "a/b/w", False),
        ("b/w", "a/b/v", False),
    ],
)
def test_one_file_seen_from_two_places(first: str, second: str, equal: bool) -> None:
    assert same(first, second) is equal
