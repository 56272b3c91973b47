"""Every call by which a command changes the disk fails once, in each way: the target is old or new, and whole.

`calls.c` counts the calls of a command that create, write, flush, rename, exchange, link or remove something below a
folder. Then the command is run once for each of them, and that call kills it, or meets a full disk, an input/output
error, or a disk that has become read-only. The default is a sample drawn with a seed. All of it, which takes some
minutes:

    S3LORA_FAULTS=all python -m pytest tests/faults

which also records the counts in `recorded.json`, one scenario at a time, so that it can be stopped and picked by `-k`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s3lora.files import settle
from s3lora.partial import OLD, is_left
from tests.command import SOURCE, environment
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.server import FAULTS
from tests.fleet.inline import check_consistent, rows

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="stands between the program and the C library of Linux"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)"),
]

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"
EVERYTHING = os.environ.get("S3LORA_FAULTS") == "all"
#: Faults of the sample, in all.
SAMPLE = 66
Tree = dict[str, bytes | None]


@dataclass
class Commands:
    """Runs commands in the folder `root`, with faults or without."""

    root: Path
    process: subprocess.Popen[str]

    def run(self, scenario: Scenario, at: int = -1, fault: str = "") -> dict[str, Any]:
        request = {"words": scenario.words, "root": str(self.root), "at": at, "fault": fault}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({**request, "exchange": scenario.exchange}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    place = tmp_path_factory.mktemp("faults")
    library = place / "calls.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, HERE / "calls.c", "-ldl"], check=True)
    path = os.pathsep.join([str(SOURCE.parent), str(SOURCE)])
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.faults.server"],
        env={**environment(), "PYTHONPATH": path, "LD_PRELOAD": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Commands(place / "root", process)


@pytest.mark.parametrize("name", SCENARIOS)
def test_old_or_new_and_never_between(name: str, commands: Commands, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    root = commands.root
    root.mkdir()
    try:
        scenario.make(root)
        before = tree(root)
        root.rename(tmp_path / "made")
        copy(tmp_path / "made", root)
        done = commands.run(scenario)
        assert (done["status"], done["err"]) == (0, ""), done
        after = tree(root)
        assert after != before
        counts: Counter[str] = Counter()
        for at, fault in drawn(name, len(done["calls"])):
            copy(tmp_path / "made", root)
            answer = commands.run(scenario, at, fault)
            where = f"{fault} at call {at}, {done['calls'][at]}, of {' '.join(done['calls'])}: {answer}"
            check = check_dataset if scenario.command == "fleet scan" else check_target
            check(scenario, commands, answer, before, after, where)
            if fault == "kill":
                assert answer["status"] == -9, where
            else:
                assert answer["status"] in (0, 2), where
                said = answer["err"].splitlines()
                assert "Traceback" not in answer["err"], where
                assert "internal error" not in answer["err"], where
                assert len(said) == (answer["status"] == 2), where
                assert all(line.startswith("s3lora: ") for line in said), where
            counts[fault] += 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
    if EVERYTHING:
        record(name, scenario, Counter(done["calls"]), counts)


def drawn(name: str, calls: int) -> list[tuple[int, str]]:
    """Return which call meets which fault: all that there are, or the part of the sample that this scenario has."""
    assert calls > 3, "the calls are not seen"
    everything = [(at, fault) for at in range(calls) for fault in FAULTS]
    return everything if EVERYTHING else random.Random(name).sample(everything, SAMPLE // len(SCENARIOS))


def check_target(
    scenario: Scenario, commands: Commands, answer: dict[str, Any], before: Tree, after: Tree, where: str
) -> None:
    """Fail unless the target is old or new, all else is as it was, and nothing is left by the next run."""
    root = commands.root
    old, new = part(before, scenario.target), part(after, scenario.target)
    moved = [path for path in root.iterdir() if is_left(path.name) and path.name.endswith(OLD)]
    if moved:
        assert not scenario.exchange, where
        settle(root / scenario.target)  # as the next run does
    now = tree(root)
    found = part(now, scenario.target)
    assert found in (old, new), where
    if answer["status"] == 0:
        assert found == new, where
    beside = {path: content for path, content in now.items() if not left(path) and path not in found}
    empty = {str(folder) for folder in Path(scenario.target).parents}
    assert {path: content for path, content in beside.items() if path not in empty} == {
        path: content for path, content in before.items() if path not in old and path not in empty
    }, where
    if found == old or scenario.repeats:
        again = commands.run(scenario)
        assert (again["status"], again["err"]) == (0, ""), (where, again)
    else:
        settle(root / scenario.target)
    assert tree(root) == after, where


def check_dataset(
    scenario: Scenario, commands: Commands, answer: dict[str, Any], before: Tree, after: Tree, where: str
) -> None:
    """Fail unless every part of a dataset is an old or a new one, and the next run completes it."""
    root = commands.root
    now = tree(root)
    assert part(now, "in") == part(before, "in"), where
    if moved := [path for path in root.glob(f"out/.work/.*{OLD}") if is_left(path.name)]:
        assert not scenario.exchange, where
    parts = {
        path for tree_ in (before, after) for path in tree_ if path.startswith("out/parts/") and path.count("/") == 2
    }
    for one in parts:
        there = part(now, one)
        missing = not there and any(f".{Path(one).name}." in path.name for path in moved)
        assert missing or not there or there in (part(before, one), part(after, one)), where
        if not missing and part(before, one):
            assert there, where
    again = commands.run(scenario)
    assert (again["status"], again["err"]) == (0, ""), (where, again)
    assert {path for path in tree(root) if path.count("/") == 1} == {path for path in after if path.count("/") == 1}
    assert not [path for path in tree(root) if left(path)], where
    check_consistent(root / "out")
    reached = {table: rows(root / "out", table) for table in ("adapters", "modules", "errors")}
    shutil.rmtree(root)
    for path, content in after.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).mkdir() if content is None else (root / path).write_bytes(content)
    assert reached == {table: rows(root / "out", table) for table in reached}, where


def tree(root: Path) -> Tree:
    """Return everything below a folder: the content of files, and None for folders."""
    found = sorted(root.rglob("*"))
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in found}


def part(of: Tree, target: str) -> Tree:
    return {path: content for path, content in of.items() if path == target or path.startswith(f"{target}/")}


def left(path: str) -> bool:
    return any(map(is_left, path.split("/")))


def copy(source: Path, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(source, root)


def record(name: str, scenario: Scenario, calls: Counter[str], counts: Counter[str]) -> None:
    """Write what was done into `recorded.json`."""
    known = json.loads(RECORDED.read_text())["scenarios"] if RECORDED.exists() else {}
    known[name] = {"command": scenario.command, "calls": dict(sorted(calls.items())), "faults": dict(counts)}
    known = {one: known[one] for one in SCENARIOS if one in known}
    by_fault = {fault: sum(row["faults"][fault] for row in known.values()) for fault in FAULTS}
    by_command: Counter[str] = Counter()
    for row in known.values():
        by_command[row["command"]] += sum(row["faults"].values())
    document = {
        "faults": sum(by_fault.values()),
        "by_fault": by_fault,
        "by_command": dict(by_command),
        "scenarios": known,
    }
    RECORDED.write_text(json.dumps(document, indent=2) + "\n")


def test_the_record_is_of_what_is_run() -> None:
    document = json.loads(RECORDED.read_text())
    assert list(document["scenarios"]) == list(SCENARIOS)
    assert document["faults"] >= 500
    assert set(document["by_fault"]) == set(FAULTS)
