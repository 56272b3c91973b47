"""On a terminal: colours where they are wanted, and a progress line that leaves no trace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3lora.cli import output, progress
from tests.command import call, environment, unbreakable
from tests.support import make_adapter
from tests.watched import PATIENCE

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")

COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|4[0-8]|9[0-7])[0-9;]*m")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    modules = {f"model.layers.{i}.mlp.{name}": (16, 12, 4) for i in range(20) for name in ("up_proj", "down_proj")}
    return make_adapter(tmp_path / "adapter", modules)


def on_terminal(*arguments: object, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command whose output and error are a terminal, and return its status and what the terminal got."""
    main, secondary = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "s3lora", *map(str, arguments)],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env=environment({"TERM": "xterm-256color", "COLUMNS": "80", **(env or {})}),
    )
    os.close(secondary)
    received = b""
    try:
        while piece := os.read(main, 65536):
            received += piece
    except OSError:  # what Linux says when the other end is closed
        pass
    finally:
        os.close(main)
    return running.wait(timeout=PATIENCE), received.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours(adapter: Path) -> None:
    status, text = on_terminal("scan", adapter, env={"COLORTERM": "truecolor"})
    assert status == 0
    assert "\x1b[38;2;" in text
    assert "48;2;0;34;78" in text, "the lowest cell of the map, as a background"
    lines = ESCAPE.sub("", text).splitlines()
    # But for the path of the adapter in the commands that follow, which is never broken.
    ends = (" \\", str(adapter))
    assert all(len(line) <= 80 or (line.endswith(ends) and unbreakable(line)) for line in lines)
    assert "would prune 10 of 40 modules" in ESCAPE.sub("", text)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(env: dict[str, str], adapter: Path) -> None:
    status, text = on_terminal("scan", adapter, env=env)
    assert status == 0
    assert COLOUR.search(text) is None
    assert "░" in text, "shades take the place of colours"
    assert "×" in text


def test_a_wider_terminal_is_used_up_to_a_limit(adapter: Path) -> None:
    _, text = on_terminal("scan", adapter, env={"COLUMNS": "300"})
    assert 80 < max(map(len, ESCAPE.sub("", text).splitlines())) <= 200


@pytest.mark.parametrize("columns", ["20", "40", "1"])
def test_a_narrow_terminal_breaks_nothing(columns: str, adapter: Path) -> None:
    status, _ = on_terminal("scan", adapter, env={"COLUMNS": columns})
    assert status == 0


def test_errors_on_a_terminal(adapter: Path) -> None:
    status, text = on_terminal("scan", adapter / "nowhere")
    assert status == 2
    assert ESCAPE.sub("", text).lstrip("\r") == f"s3lora: {adapter / 'nowhere'}: no such file or folder\n"


def test_no_progress_without_a_terminal(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert progress.progress_line("adapter") is None
    assert call(capsys, "scan", adapter).err == ""


def test_progress_counts_and_disappears(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "live", lambda: True)
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    show = progress.progress_line("\x1b[31mname")
    assert show is not None
    for done in (1, 2, 3):
        show(done, 3)
    written = capsys.readouterr().err
    assert written.split(output.CLEAR) == [
        "",
        "scanning \ufffd[31mname: 1 of 3 modules",
        "scanning \ufffd[31mname: 2 of 3 modules",
        "",
    ]
    monkeypatch.setattr(output, "live", lambda: True)
    assert output.complain("failed", 2) == 2
    assert capsys.readouterr().err == f"{output.CLEAR}s3lora: failed\n", "not behind what is left of the progress line"


def test_quick_work_shows_no_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "live", lambda: True)
    show = progress.progress_line("adapter")
    assert show is not None
    show(1, 2)
    show(2, 2)
    assert capsys.readouterr().err == ""
