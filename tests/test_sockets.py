"""No command that is not about the network opens a socket: its files never leave the machine, nor that it ran.

Every process, workers too, is watched by an audit hook, which sees what Python's own sockets do, and raises. Pipes
between processes (AF_UNIX) are no network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from s3lora.measure.scan import scan
from s3lora.report.documents import scan_document, to_json
from tests.command import SOURCE, environment
from tests.planning import prune_to
from tests.program import all_commands
from tests.support import make_adapter
from tests.watched import PATIENCE

WATCH = """
import os, socket, sys

def watch(event, arguments):
    if not event.startswith("socket."):
        return
    if event in ("socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        family = arguments[1] if event == "socket.__new__" else arguments[0].family
        if family == socket.AF_UNIX:
            return
    elif event == "socket.gethostname":
        return
    if sys._getframe(2).f_code.co_name == "_has_ipv6":  # urllib3, when it is imported, which Transformers does
        raise OSError(f"{event} is blocked")
    with open(os.environ["S3LORA_TEST_SOCKETS"], "a") as told:
        print(event, *map(repr, arguments), file=told)
    raise OSError(f"{event} is blocked")

sys.addaudithook(watch)
"""
#: Runs the commands of a list, one after the other, and prints their statuses.
RUN = """
import contextlib, json, os, sys
if __name__ == "__main__":  # workers import this
    from s3lora.cli.main import run
    statuses = []
    for words in json.loads(sys.argv[1]):
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            statuses.append(run(words))
    print(json.dumps(statuses))
    sys.stdout.flush()
    os._exit(0)
"""
PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qv"]
PRUNE = ("--top", "2", "--force-flat")
PLAIN = {
    "scan": ("scan", "a", "--format", "html", "--policy", "p.toml", "-o", "a.html"),
    "check": ("check", "a"),
    "convert": ("convert", "a", "--to", "peft", "-o", "converted"),
    "prune": ("prune", "a", "-o", "b", *PRUNE),
    "resize": ("resize", "a", "-o", "smaller", "--rank", "1"),
    "restore": ("restore", "pruned", "--from", "a", "-o", "back"),
    "compare": ("compare", "a", "pruned"),
    "compose": ("compose", "a", "pruned"),
    "report": ("report", "scan.json"),
    "card": ("card", "a"),
    "bom": ("bom", "a"),
    "demo": ("demo",),
    "judge-check": ("judge-check", "labelled.jsonl"),
}
FLEET = {
    "fleet scan": ("fleet", "scan", "a", "pruned", "--out", "fleet"),
    "fleet query": ("fleet", "query", "fleet", "SELECT count(*) FROM adapters"),
    "fleet reference build": ("fleet", "reference", "build", "fleet", "-o", "ref.parquet"),
    "fleet reference show": ("fleet", "reference", "show", "ref.parquet"),
    "fleet report": ("fleet", "report", "fleet", "--reports", "pages", "-o", "page.html"),
}
_MODEL = ("--base", "base", "--suite", "safety,planning-loss", "--limit", "2", "--tokens", "4", "--no-cache")
MEASURED = {
    "eval": ("eval", "small", *_MODEL),
    "sweep": ("sweep", "small", *_MODEL, "--methods", "mas-svd", "--index", "ssi", "--top", "0,1"),
    "tune": ("tune", "small", "--base", "base", "--limit", "12", "--tokens", "4", "--no-cache"),
}


#: A model of noise refuses nothing, so that a repair ends where that is known: the base was asked, and nothing learned.
_REPAIR = ("repair", "small", "--base", "base", "--parts", "10,10,10", "--no-cache", "-o", "repaired")
STOPPED = {"repair": _REPAIR}


def test_every_command_is_looked_at() -> None:
    assert {*PLAIN, *FLEET, *MEASURED, *STOPPED} == set(all_commands())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with two adapters, a policy and a labelled answer."""
    (tmp_path / "labelled.jsonl").write_text('{"answer": "No.", "label": "refusal"}')
    make_adapter(tmp_path / "a", dict.fromkeys(PATHS, (24, 16, 4)))
    prune_to(tmp_path / "a", tmp_path / "pruned", PATHS[:2])
    (tmp_path / "scan.json").write_text(to_json(scan_document(scan(tmp_path / "a"), None)))
    (tmp_path / "p.toml").write_text('fail-on = ["ssi > 0.999"]\n')
    return tmp_path


def test_the_watch_sees_a_socket(place: Path) -> None:
    told = watched(place, "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass")
    assert "socket.getaddrinfo" in told
    told = watched(place, "import socket\ntry: socket.socket()\nexcept OSError: pass")
    assert "socket.__new__" in told


def test_commands_of_one_adapter_open_none(place: Path) -> None:
    run(place, [*PLAIN.values()])


def test_commands_of_a_fleet_open_none(place: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    run(place, [*FLEET.values()])


@pytest.mark.thorough
def test_measuring_a_model_of_this_disk_opens_none(tiny: Path, place: Path) -> None:
    from tests.tiny_adapters import learned_adapter

    (place / "base").symlink_to(tiny)
    learned_adapter(tiny, place / "small")
    run(place, [*MEASURED.values()])
    run(place, [*STOPPED.values()], status=3)


def run(place: Path, commands: Sequence[Sequence[str]], status: int = 0) -> None:
    """Run these commands; fail if one ends with another status, or tried to open a socket."""
    script = place / "run.py"
    script.write_text(RUN)
    told = watched(place, None, script, json.dumps(commands), status=status)
    assert told == ""


def watched(place: Path, code: str | None, *arguments: object, status: int = 0) -> str:
    """Run Python under the watch, and return what it saw."""
    (place / "watch").mkdir(exist_ok=True)
    (place / "watch" / "sitecustomize.py").write_text(WATCH)
    told = place / "told"
    told.write_text("")
    env = environment({"S3LORA_TEST_SOCKETS": str(told)})
    env["PYTHONPATH"] = f"{place / 'watch'}:{SOURCE}"
    words = arguments if code is None else ("-c", code)
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    if code is None:
        statuses = json.loads(done.stdout.splitlines()[-1])
        assert set(statuses) == {status}, (statuses, done.stderr, told.read_text())
    return told.read_text()
