"""The page for users of other tools says what came out when they were run, and names options that exist."""

from __future__ import annotations

import json
import re

import click
import pytest

from docs import make_coming
from s3lora.cli.main import cli
from tests.kinds import KINDS

RESULTS = json.loads(make_coming.RESULTS.read_text(encoding="utf-8"))
PAGE = make_coming.PAGE.read_text(encoding="utf-8")


def test_the_tables_are_what_would_be_written() -> None:
    assert make_coming.page() == PAGE, "write it again: python -m docs.make_coming"


def test_ours_is_right_where_there_is_a_right_result() -> None:
    assert RESULTS["scans"]["s3lora"] == RESULTS["scans"]["right"]
    assert RESULTS["ranks"]["s3lora"] == RESULTS["ranks"]["right"]
    for name in ("plain", "rslora"):
        assert RESULTS["resizes"][name]["s3lora"] == RESULTS["resizes"][name]["smallest"]
        assert RESULTS["sums"][name]["s3lora"] == 0
    assert RESULTS["models"]["fit"]["s3lora"]["modules that fit"] == RESULTS["models"]["fit"]["s3lora"]["of"]
    assert [*RESULTS["kinds"]["adaptersentry"]] == [kind.title for kind in KINDS]


def named() -> list[tuple[str, list[str]]]:
    """Return our commands with the options that stand beside them, as the right column names them."""
    found = []
    for line in PAGE.splitlines():
        if not line.startswith("| `") or line.count("|") != 3:
            continue
        command = None
        for code in re.findall(r"`([^`]+)`", line.split("|")[2]):
            words = code.removeprefix("s3lora ").split()
            if words[0] in cli.list_commands(click.Context(cli)):
                command = " ".join(words[:2]) if words[0] == "fleet" else words[0]
            options = re.findall(r"(?<!\S)--[a-z-]+", code)
            if command is not None and (options or words[0] in command):
                found.append((command, options))
    return found


@pytest.mark.parametrize("command", sorted({command for command, _ in named()}))
def test_options_that_are_named_exist(command: str) -> None:
    wanted = {option for name, options in named() if name == command for option in options}
    found: click.Command = cli
    for word in command.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None, command
        found = inner
    assert wanted <= {name for parameter in found.params for name in parameter.opts}
