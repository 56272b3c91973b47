"""What is left when workers, the driver or the disk fail, at moments that nobody chose."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks.population import Base, write_one, write_population
from s3lora.fleet.engines.local import LocalEngine
from s3lora.fleet.results.dataset import PARTS
from s3lora.fleet.results.outcome import Measured
from s3lora.fleet.run import WORKER, fleet_scan
from s3lora.fleet.work import Batch, Work
from tests.command import environment
from tests.fleet.inline import check_consistent, rows
from tests.support import shared

pytest.importorskip("pyarrow")

#: Small adapters, so that a batch takes a fraction of a second.
BASES = (
    Base("example/one-1B", 4, {"q_proj": (256, 256), "v_proj": (64, 256)}),
    Base("example/two-7B", 6, {"q_proj": (128, 128), "k_proj": (64, 128)}),
)
COUNT = 240
DRIVER = "import sys; from s3lora.cli.main import run; sys.exit(run(sys.argv[1:]))"


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_population(tmp_path_factory.mktemp("population"), COUNT, BASES)


@pytest.fixture(scope="module")
def expected(population: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of the population that nothing disturbed."""
    out = tmp_path_factory.mktemp("expected") / "out"
    fleet_scan([str(population)], out)
    return out


def driver(population: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, "fleet", "scan", str(population), "--out", str(out), "--quiet", *options],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_killed_workers_lose_nothing(population: Path, expected: Path, tmp_path: Path) -> None:
    moment = random.Random(1)
    running = driver(population, tmp_path / "out")
    killed = 0
    while running.poll() is None:
        time.sleep(moment.uniform(0.05, 0.3))
        workers = [pid for pid in children(running.pid) if b"spawn_main" in command_line(pid)]
        if workers and killed < 12:
            os.kill(moment.choice(workers), signal.SIGKILL)
            killed += 1
    _, told = running.communicate()
    assert running.returncode == 0, told
    assert killed >= 3
    same(tmp_path / "out", expected)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_published_adapters_and_two_thousand_made_ones_end_complete(tmp_path: Path) -> None:
    write_population(tmp_path / "in", 2000, BASES)
    inputs = [str(shared() / "adapters"), str(tmp_path / "in")]
    command = [sys.executable, "-c", DRIVER, "fleet", "scan", *inputs, "--out", str(tmp_path / "out"), "--quiet"]
    running = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    moment = random.Random(3)
    killed = 0
    while running.poll() is None:
        time.sleep(moment.uniform(0.1, 1.0))
        workers = [pid for pid in children(running.pid) if b"spawn_main" in command_line(pid)]
        if workers:
            os.kill(moment.choice(workers), signal.SIGKILL)
            killed += 1
    _, told = running.communicate()
    assert running.returncode == 0, told
    assert killed >= 5
    done, errors = check_consistent(tmp_path / "out")
    assert len(done) == 2010
    assert {Path(uri).name for uri in errors} == {"bloom-fused-qkv-bin", "broken-lfs-pointer"}


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_a_killed_driver_leaves_a_consistent_dataset_that_is_completed(
    seed: int, population: Path, expected: Path, tmp_path: Path
) -> None:
    moment = random.Random(seed)
    out = tmp_path / "out"
    seen: set[str] = set()
    kills = 0
    while kills < 5:
        # One worker and small batches, so that the run is long against the time until it is killed.
        running = driver(population, out, "--batch", "8", "--workers", "1")
        time.sleep(moment.choice((0, 0, 1)) * moment.uniform(0, 0.6))  # sometimes while it starts
        until = time.monotonic() + moment.uniform(0, 0.1)
        while running.poll() is None and (time.monotonic() < until or len(parts(out)) * 8 <= len(seen)):
            time.sleep(0.002)  # until something new is done, and a little longer
        ended = running.poll() is not None
        running.kill()
        running.communicate()
        if ended:
            break
        kills += 1
        if parts(out):
            done, errors = check_consistent(out)
            assert not errors
            assert seen <= done, "what was done stays done"
            seen = done
    assert kills >= 3
    assert seen
    fleet_scan([str(population)], out, batch=8)
    same(out, expected)
    assert not (out / ".work").exists()


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
    kills = 0
    mixed = False
    for _ in range(20):
        running = driver(folder, out, "--workers", "1")
        while running.poll() is None and not list((out / ".work").glob(".0*")):
            time.sleep(0.001)  # until a part is being written
        time.sleep(moment.uniform(0, 0.03))
        kills += running.poll() is None
        running.kill()
        running.communicate()
        check_consistent(out)
        now = contents(out)
        assert all(now[uri] in (before[uri], after[uri]) for uri in before)
        mixed = mixed or before != now != after
        if now == after:
            break
    assert kills >= 2
    assert mixed, "no run was killed between two parts"
    fleet_scan([str(folder)], out)
    assert contents(out) == after


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
    running = driver(population, tmp_path / "out")
    workers: list[int] = []
    while not workers:
        assert running.poll() is None
        workers = [pid for pid in children(running.pid) if b"spawn_main" in command_line(pid)]
        time.sleep(0.02)
    time.sleep(0.2)
    assert running.poll() is None, "it was killed, and did not end"
    running.kill()
    running.communicate()
    until = time.monotonic() + 5
    while any(b"spawn_main" in command_line(pid) for pid in workers):
        assert time.monotonic() < until, "a worker outlives its driver"
        time.sleep(0.05)


def test_ctrl_c_ends_soon_and_says_how_to_go_on(population: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = driver(population, out)
    while not list(out.glob("parts/0*")):
        assert running.poll() is None
        time.sleep(0.02)
    start = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: driver and workers alike
    _, told = running.communicate()
    assert time.monotonic() - start < 5
    assert running.returncode == 130
    assert b"the same command goes on from here" in told
    assert b"Traceback" not in told
    done, _ = check_consistent(out)
    summary = json.loads((out / "fleet.json").read_text())
    assert (summary["complete"], summary["counts"]["adapters"]) == (False, len(done))
    fleet_scan([str(population)], out)
    same(out, expected)


def fails_in_its_worker(batch: Batch, work: Work) -> Measured:
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


def ends_its_worker(batch: Batch, work: Work) -> Measured:
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
    running = driver(population, out, "--batch", "8")
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
