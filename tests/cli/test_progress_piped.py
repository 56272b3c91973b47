"""`eval`, `sweep` and `tune` into a pipe: what is being done is told on standard error, and nothing of it on the other.

The real commands run, with a clock of the test: half a minute passes whenever they begin something.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.measured import validated
from tests.command import process
from tests.tiny_adapters import tiny_adapter

CLOCK = """
import queue, threading
from s3lora.cli import output, progress

passed, told = queue.SimpleQueue(), threading.Semaphore(0)
complain, begin = progress.complain, progress.share_line

def wait(seconds):
    assert seconds == 30
    while not progress.HEART._end.is_set():
        try:
            return passed.get(timeout=0.05)
        except queue.Empty:
            pass
    return True

def say(*arguments):
    status = complain(*arguments)
    told.release()
    return status

def share_line():
    advance = begin()
    def beginning(share, label):
        advance(share, label)
        passed.put(False)
        told.acquire()
    return beginning

progress.HEART._wait, progress.complain, progress.share_line = wait, say, share_line
"""
#: Lets the adapter be of use, else there is nothing to tune.
LEARNED = """
from s3lora.evaluate.local import LocalModel
LocalModel.losses = lambda model, prompts, texts: [
    (10.0 + len(text) + 5 * (not model.loaded().modules), 5) for text in texts
]
"""
#: With it no half minute passes.
STILL = "from s3lora.cli import progress\nprogress.EVERY = 1e6\n"
SMALL = ("--limit", "12", "--tokens", "2", "--no-cache", "--format", "json")
#: What is told of, at least and in this order, and the schema of the result.
COMMANDS = {
    "eval": (
        ("--suite", "safety", "--no-cost"),
        ["loading the model", "base: safety", "base", "adapter: safety", "adapter, pruned: safety", "adapter, pruned"],
    ),
    "sweep": (
        ("--suite", "safety,planning-loss", "--methods", "mas-svd", "--index", "ssi", "--top", "2"),
        ["loading the model", "unpruned: safety", "base: safety", "2 pruned by ssi (mas-svd)"],
    ),
    "tune": (
        ("--suite", "safety,planning-loss"),
        ["loading the model", "unpruned: safety", "unpruned: planning-loss", "base: safety", "base"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "command", [name if name == "eval" else pytest.param(name, marks=pytest.mark.thorough) for name in COMMANDS]
)
def test_progress_without_a_terminal(command: str, tiny: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(tiny, tmp_path / "adapter", 1)
    options, labels = COMMANDS[command]
    learned = LEARNED if command == "tune" else ""
    given = (command, adapter, "--base", tiny, *options, *SMALL)
    silence = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    result = process(*given, env=silence, before=learned + CLOCK, progress=True)
    assert result.status == 0, result.err
    quick = process(*given, env=silence, before=learned + STILL, progress=True)
    said = [line for line in result.err.splitlines() if line not in quick.err.splitlines()]
    lines = [re.fullmatch(rf"s3lora: {command}: (\d+)% done, (.+)", line) for line in said]
    assert all(lines), result.err
    told = [line[2] for line in lines if line is not None]
    shares = [int(line[1]) for line in lines if line is not None]
    places = [told.index(label) for label in labels]
    assert places == sorted(places), told
    assert shares == sorted(shares)
    assert shares[0] == 0
    # Standard output has the result alone, the same as without these lines.
    validated(command, result.out)
    assert quick.out == result.out
    assert "% done" not in quick.err
