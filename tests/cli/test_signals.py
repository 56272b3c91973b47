"""SIGTERM ends a command as Ctrl-C does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support import make_adapter

SLOW_WRITE = """
import sys, time
import s3lora.adapter.write as write

real = write.write_safetensors
def slow(*arguments):
    result = real(*arguments)
    print("written", flush=True)
    time.sleep(60)
    return result
write.write_safetensors = slow
from s3lora.cli.main import run
sys.exit(run(["prune", sys.argv[1], "-o", sys.argv[2], "--top", "1", "--force-flat"]))
"""


def test_sigterm_in_the_middle_of_a_write_leaves_nothing_behind(tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "source", {f"layers.{i}.q_proj": (8, 8, 2) for i in range(3)})
    command = [sys.executable, "-c", SLOW_WRITE, str(source), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "s3lora: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
