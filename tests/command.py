"""Running the command line: inside this process, which is fast, or in one of its own, which is the real thing."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3lora.cli.main import run
from tests.watched import PATIENCE, default_signals

#: What a command says after half a minute: on a busy machine that comes, on another it does not.
PROGRESS = re.compile(r"^s3lora: [\w ]+: \d+% done, .*\n", re.MULTILINE)
SOURCE = Path(__file__).resolve().parents[1] / "src"


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Run a command in this process. What is no S3LoRAError comes out as it is, and not as `internal error`."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S3LORA_DEBUG", "1")
        status = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Result(status, captured.out, PROGRESS.sub("", captured.err))


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a process that imports s3lora from the source tree."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(SOURCE), "PYTHONWARNINGS": "default", **(more or {})}


def process(
    *arguments: object,
    env: Mapping[str, str] | None = None,
    before: str = "",
    after: str = "",
    progress: bool = False,
) -> Result:
    """Run a command in a process of its own; `before` and `after` are Python statements around it.

    What it says of its progress is left out unless asked for.
    """
    program: Sequence[str] = ["-m", "s3lora"]
    if before or after:
        # An exit status is what main() leaves behind, whatever `after` does.
        program = ["-c", f"import os, sys\n{before}\n{after}\nfrom s3lora.__main__ import main\nmain()"]
    with default_signals():
        done = subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            capture_output=True,
            env=environment(env),
            timeout=PATIENCE,
            check=False,
        )
    err = done.stderr.decode()
    return Result(done.returncode, done.stdout.decode(), err if progress else PROGRESS.sub("", err))


def unbreakable(line: str) -> bool:
    """Return whether a line of a printed command is one word, or an option with its value: no shell joins halves."""
    words = shlex.split(line.removesuffix("\\"))
    return len(words) == 1 or (len(words) == 2 and words[0].startswith("-"))
