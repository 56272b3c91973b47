"""What is left when workers, the driver or the disk fail, at moments that nobody chose."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from benchmarks.population import Base, write_one, write_population
from s3lora.fleet.engines.local import LocalEngine
from s3lora.fleet.results.dataset import PARTS
from s3lora.fleet.results.outcome import MeasuredBatch
from s3lora.fleet.run import WORKER, fleet_scan
from s3lora.fleet.work import Batch, Work
from tests.command import environment
from tests.fleet.inline import check_consistent, rows
from tests.support import shared
from tests.watched import PATIENCE, start, wait_until

pytest.importorskip("pyarrow")

#: Small adapters, so that a batch takes a fraction of a second.
BASES = (
    Base("example/one-1B", 4, {"q_proj": (256, 256), "v_proj": (64, 256)}),
    Base("example/two-7B", 6, {"q_proj": (128, 128), "k_proj": (64, 128)}),
)
COUNT = 240
DRIVER = "import sys; from s3lora.cli.main import run; sys.exit(run(sys.argv[1:]))"
#: Stops after every part until it is sent a line, so that it never ends before a test has done what it is about.
STEPS = f"""
import sys
from s3lora.fleet.results.dataset import Dataset
commit = Dataset.commit
def stepping(*given):
    again = commit(*given)
    print("part", file=sys.__stdout__, flush=True)  # of results there are none
    sys.stdin.readline()
    return again
Dataset.commit = stepping
{DRIVER}
"""


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_population(tmp_path_factory.mktemp("population"), COUNT, BASES)


@pytest.fixture(scope="module")
def expected(population: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of the population that nothing disturbed."""
    out = tmp_path_factory.mktemp("expected") / "out"
    fleet_scan([str(population)], out)
    return out


def driver(inputs: Sequence[object], out: Path, *options: str, code: str = DRIVER) -> subprocess.Popen[bytes]:
    return start(
        [sys.executable, "-c", code, "fleet", "scan", *inputs, "--out", out, "--quiet", *options],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def step(running: subprocess.Popen[bytes], look: Callable[[], bool] = bool) -> bool:
    """Wait until a part is done, look at what is there, let the driver go on, and return what was seen."""
    assert running.stdout is not None
    assert running.stdin is not None
    assert running.stdout.readline() == b"part\n"
    seen = look()
    running.stdin.write(b"\n")
    running.stdin.flush()
    return seen


def same(out: Path, expected: Path) -> None:
    """Fail unless a dataset holds what the undisturbed one does, to the last digit."""
    check_consistent(out)
    for table in ("adapters", "modules", "errors"):
        assert rows(out, table) == rows(expected, table)
    assert json.loads((out / "fleet.json").read_text()) == json.loads((expected / "fleet.json").read_text())


def children(pid: int) -> Iterator[int]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                yield int(status.parent.name)
        except (OSError, IndexError, ValueError):
            continue


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_killed_workers_lose_nothing(population: Path, expected: Path, tmp_path: Path) -> None:
    running = driver([population], tmp_path / "out", "--batch", "8", code=STEPS)
    assert kill_workers(running, tmp_path / "out", 8, 3, random.Random(1)) == 0
    same(tmp_path / "out", expected)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_published_adapters_and_two_thousand_made_ones_end_complete(tmp_path: Path) -> None:
    write_population(tmp_path / "in", 2000, BASES)
    inputs = [shared() / "adapters", tmp_path / "in"]
    running = driver(inputs, tmp_path / "out", code=STEPS)
    assert kill_workers(running, tmp_path / "out", 32, 8, random.Random(3)) == 0
    done, errors = check_consistent(tmp_path / "out")
    assert len(done) == 2010
    assert {Path(uri).name for uri in errors} == {"bloom-fused-qkv-bin", "broken-lfs-pointer"}


def kill_workers(running: subprocess.Popen[bytes], out: Path, batch: int, groups: int, moment: random.Random) -> int:
    """Kill three workers soon after each other, so often; return the status in which the driver then ends.

    Between two groups what was lost is done: an adapter that is lost with its batch and three times alone is an error.
    """
    for _ in range(groups):
        for _ in range(3):
            for _ in range(moment.randint(1, 2)):
                step(running)
            time.sleep(moment.uniform(0, 0.1))
            os.kill(moment.choice(wait_until(lambda: living(running), running)), signal.SIGKILL)
        while not step(running, partial(settled, out, batch)):
            pass
    running.communicate(b"\n" * 10_000)
    return running.returncode


def settled(out: Path, batch: int) -> bool:
    """Return whether all batches that were begun are done, but for the last ones."""
    done, errors = check_consistent(out)
    numbers = {int(part.name) for part in parts(out)}
    return numbers == set(range(len(numbers))) and len(done) + len(errors) == batch * len(numbers)


def living(running: subprocess.Popen[bytes]) -> list[int]:
    """Return the workers; where there are none, let the driver go on if it waits: it begins new ones only then."""
    found = workers_of(running)
    if not found and select.select([running.stdout], [], [], 0)[0]:
        step(running)
    return found


def workers_of(running: subprocess.Popen[bytes]) -> list[int]:
    return [pid for pid in children(running.pid) if b"spawn_main" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_a_killed_driver_leaves_a_consistent_dataset_that_is_completed(
    seed: int, population: Path, expected: Path, tmp_path: Path
) -> None:
    moment = random.Random(seed)
    out = tmp_path / "out"
    seen: set[str] = set()
    for early in (False, True, False, False, False):
        # One worker and small batches, so that there is something left to do each time.
        running = driver([population], out, "--batch", "8", "--workers", "1", code=STEPS)
        if not early:
            while len(parts(out)) * 8 <= len(seen):
                step(running)
            for _ in range(moment.randint(0, 2)):
                step(running)
        time.sleep(moment.uniform(0, 0.6 if early else 0.1))  # while it starts, or with the next part
        running.kill()
        running.communicate()
        if parts(out):
            done, errors = check_consistent(out)
            assert not errors
            assert seen <= done, "what was done stays done"
            seen = done
    assert seen
    fleet_scan([str(population)], out, batch=8)
    same(out, expected)
    assert not (out / ".work").exists()


@pytest.mark.thorough
def test_a_killed_driver_never_shows_old_and_new_rows_together(tmp_path: Path) -> None:
    """Adapters that have changed take the place of their rows, part by part, and not before they are measured."""
    moment = random.Random(9)
    folder, out = tmp_path / "in", tmp_path / "out"
    write_population(folder, 64, BASES)
    fleet_scan([str(folder)], out, batch=8)
    before = contents(out)
    for number in range(64):
        write_one(folder / f"{number:05d}", number + 500, BASES)
    fleet_scan([str(folder)], tmp_path / "other", batch=8)
    after = contents(tmp_path / "other")
    mixed, now = 0, before
    while now != after:
        running = driver([folder], out, "--workers", "1", code=STEPS)
        while not step(running, lambda last=now: contents(out) != last):
            pass
        wait_until(partial(next_part, running, out))  # and sometimes while it is being written
        time.sleep(moment.uniform(0, 0.03))
        running.kill()
        running.communicate()
        check_consistent(out)
        now = contents(out)
        assert all(now[uri] in (before[uri], after[uri]) for uri in before)
        mixed += before != now != after
    assert mixed >= 2, "no runs were killed between two parts"
    fleet_scan([str(folder)], out)
    assert contents(out) == after


def next_part(running: subprocess.Popen[bytes], out: Path) -> bool:
    """Return whether the next part is being written, or is done."""
    return bool(list((out / ".work").glob(".0*")) or select.select([running.stdout], [], [], 0)[0])


def contents(out: Path) -> dict[str, str]:
    """Return the content of every adapter, with the numbers of its modules."""
    numbers: dict[str, list[float]] = {}
    for row in rows(out, "modules"):
        numbers.setdefault(row["uri"], []).append(row["magnitude"])
    return {row["uri"]: f"{row['content']} {numbers[row['uri']]}" for row in rows(out, "adapters")}


def parts(out: Path) -> list[Path]:
    return list((out / PARTS).glob("[0-9]*"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_the_workers_of_a_killed_driver_end(population: Path, tmp_path: Path) -> None:
    running = driver([population], tmp_path / "out", code=STEPS)
    workers = wait_until(lambda: workers_of(running), running)
    step(running)
    running.kill()
    running.communicate()
    wait_until(lambda: not any(b"spawn_main" in command_line(pid) for pid in workers))


def test_ctrl_c_ends_soon_and_says_how_to_go_on(population: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = driver([population], out, "--batch", "8", code=STEPS)
    step(running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: driver and workers alike
    _, told = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert b"the same command goes on from here" in told
    assert b"Traceback" not in told
    done, _ = check_consistent(out)
    assert 0 < len(done) < COUNT, "it ended when all was done, and not soon"
    summary = json.loads((out / "fleet.json").read_text())
    assert (summary["complete"], summary["counts"]["adapters"]) == (False, len(done))
    fleet_scan([str(population)], out)
    same(out, expected)


def fails_in_its_worker(batch: Batch, work: Work) -> MeasuredBatch:
    """Measure as workers do, but for one adapter, in which the program fails."""
    from s3lora.fleet.work import measure

    if any(item.uri.endswith("00007") for item in batch.items):
        raise ZeroDivisionError("of ours")
    return measure(batch, work)


def test_a_fault_of_the_program_costs_one_adapter(population: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fleet_scan([str(population)], out, engine=partial(LocalEngine, workers=2, function=fails_in_its_worker))
    done, errors = check_consistent(out)
    assert (errors, len(done)) == ({f"{population}/00007"}, COUNT - 1)
    (error,) = rows(out, "errors")
    assert (error["kind"], error["transient"]) == ("Internal", True)
    assert "internal error (ZeroDivisionError: of ours)" in error["reason"]
    fleet_scan([str(population)], out)
    same(out, expected)


def ends_its_worker(batch: Batch, work: Work) -> MeasuredBatch:
    """Measure as workers do, but for one adapter, which kills the process: what too little memory does."""
    from s3lora.fleet.work import measure

    if any(item.uri.endswith("00007") for item in batch.items):
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(batch, work)


def test_an_adapter_that_ends_its_worker_is_an_error_and_its_neighbours_are_not(
    population: Path, expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = fleet_scan([str(population)], out, engine=partial(LocalEngine, workers=2, function=ends_its_worker))
    done, errors = check_consistent(out)
    assert errors == {f"{population}/00007"}
    assert len(done) == COUNT - 1
    assert summary.counts.errors == {WORKER: 1}
    error = rows(out, "errors")[0]
    assert error["transient"]
    assert "SIGKILL, 3 times" in error["reason"]
    fleet_scan([str(population)], out)
    same(out, expected)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_ends_a_run_whose_dataset_is_whole(population: Path, expected: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    running = driver([population], out, "--batch", "8")
    _, told = running.communicate()
    assert running.returncode == 2
    assert b"No space left on device" in told
    assert len(told.splitlines()) == 1
    done, _ = check_consistent(out)
    assert 0 < len(done) < COUNT
    assert not (out / ".work").exists()
    assert not json.loads((out / "fleet.json").read_text())["complete"]
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    fleet_scan([str(population)], out, batch=8)
    same(out, expected)
