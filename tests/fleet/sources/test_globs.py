"""Patterns of paths, against the standard library's own."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from s3lora.fleet.sources.globs import is_pattern, matches, may_hold, split_pattern

PART = st.sampled_from(["a", "ab", "b", ".a"])
PATTERN = st.lists(st.sampled_from(["a", "*", "a*", "?", "[ab]", "**", "[!a]"]), min_size=1, max_size=4)


@given(st.sets(st.lists(PART, min_size=1, max_size=3).map(tuple), max_size=8), PATTERN)
def test_as_the_standard_library(paths: set[tuple[str, ...]], pattern: list[str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        for parts in paths:
            Path(root, *parts).mkdir(parents=True, exist_ok=True)
        every = {
            os.path.relpath(os.path.join(folder, name), root) for folder, names, _ in os.walk(root) for name in names
        }
        expected = {name.rstrip("/") for name in glob.glob("/".join(pattern), root_dir=root, recursive=True)} - {""}
        if pattern[-1] != "**":
            assert {path for path in every if matches(tuple(path.split("/")), tuple(pattern))} == expected


@given(st.lists(PART, max_size=4).map(tuple), PATTERN.map(tuple))
def test_whatever_matches_lies_where_it_may(parts: tuple[str, ...], pattern: tuple[str, ...]) -> None:
    if matches(parts, pattern):
        assert all(may_hold(parts[:i], pattern) for i in range(1, len(parts) + 1))
        assert may_hold((*parts, "x", "y"), pattern), "what lies under a match belongs to it"


def test_many_stars_take_no_time() -> None:
    assert not matches(tuple("a" * 60), (*("**", "a") * 30, "b"))


def test_splitting() -> None:
    assert split_pattern("runs/*/final") == ("runs/", ("*", "final"))
    assert split_pattern("*") == ("", ("*",))
    assert split_pattern("s3://bucket/a-*/**") == ("s3://bucket/", ("a-*", "**"))
    assert is_pattern("a[1]")
    assert not is_pattern("a/b")
