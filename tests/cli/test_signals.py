"""SIGTERM and SIGHUP end a command as Ctrl-C does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import make_adapter

SLOW_WRITE = """
import shutil, sys, time
import s3lora.adapter.write as write

real = write.write_safetensors
def slow(*arguments):
    result = real(*arguments)
    print("written", flush=True)
    time.sleep(float(sys.argv[3]))
    return result
write.write_safetensors = slow
remove = shutil.rmtree
def slowly(*arguments, **keywords):
    print("cleaning", flush=True)
    time.sleep(0.3)
    remove(*arguments, **keywords)
shutil.rmtree = slowly
from s3lora.cli.main import run
sys.exit(run(["prune", sys.argv[1], "-o", sys.argv[2], "--top", "1", "--force-flat"]))
"""


def writing(folder: Path, seconds: float, hangup: signal.Handlers) -> subprocess.Popen[str]:
    """Start to prune into `folder`, and return in the middle of it; the write goes on after `seconds`."""
    source = make_adapter(folder / "source", {f"layers.{i}.q_proj": (8, 8, 2) for i in range(3)})
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITE, str(source), str(folder / "out"), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),  # whatever these tests themselves run under
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    time.sleep(0.1)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_write_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    process = writing(tmp_path, 60, signal.SIG_DFL)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "s3lora: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_second_sighup_does_not_stop_the_cleaning(tmp_path: Path) -> None:
    process = writing(tmp_path, 60, signal.SIG_DFL)
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "s3lora: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_nohup_is_respected(tmp_path: Path) -> None:
    process = writing(tmp_path, 1, signal.SIG_IGN)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]
