"""SIGTERM and SIGHUP end a command as Ctrl-C does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import make_adapter
from tests.watched import PATIENCE, start

#: Stops in the middle of a write, and again before it cleans up, until it is sent a line.
SLOW_WRITE = """
import shutil, sys
import s3lora.adapter.write as write

real = write.write_safetensors
def slow(*arguments):
    result = real(*arguments)
    print("written", flush=True)
    sys.stdin.readline()
    return result
write.write_safetensors = slow
remove = shutil.rmtree
def slowly(*arguments, **keywords):
    print("cleaning", flush=True)
    sys.stdin.readline()
    remove(*arguments, **keywords)
shutil.rmtree = slowly
from s3lora.cli.main import run
sys.exit(run(["prune", sys.argv[1], "-o", sys.argv[2], "--top", "1", "--force-flat"]))
"""


def writing(folder: Path, before: str = "") -> subprocess.Popen[str]:
    """Start to prune into `folder`, and return in the middle of the write; `before` is run first."""
    source = make_adapter(folder / "source", {f"layers.{i}.q_proj": (8, 8, 2) for i in range(3)})
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = start([sys.executable, "-c", before + SLOW_WRITE, source, folder / "out"], text=True, **pipes)
    assert process.stdout.readline() == "written\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Let the process go on, and return its status and what it said of errors."""
    _, errors = process.communicate("\n\n", timeout=PATIENCE)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_write_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    process = writing(tmp_path)
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning\n"
    assert ended(process) == (130, "s3lora: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_second_sighup_does_not_stop_the_cleaning(tmp_path: Path) -> None:
    process = writing(tmp_path)
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (130, "s3lora: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_nohup_is_respected(tmp_path: Path) -> None:
    process = writing(tmp_path, "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]
