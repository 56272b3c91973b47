"""The Ray engine, on a real cluster of several nodes of this machine, started and ended by Ray's own utility."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks.population import write_population
from s3lora.fleet.run import fleet_scan
from tests.command import SOURCE, Result, environment, process
from tests.fleet.inline import check_consistent, rows
from tests.fleet.test_kill import BASES
from tests.watched import PATIENCE, start, wait_until

pytest.importorskip("pyarrow")
pytest.importorskip("ray")

T = TypeVar("T")

COUNT = 160
ROOT = SOURCE.parent


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_population(tmp_path_factory.mktemp("population"), COUNT, BASES)


@pytest.fixture(scope="module")
def expected(population: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expected") / "out"
    fleet_scan([str(population)], out, batch=8)
    return out


def ray_environment() -> dict[str, str]:
    """Return an environment in which Ray's processes import s3lora and these tests, and send nothing anywhere."""
    found = environment({"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"})
    return {**found, "PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT)))}


def scan_with_ray(*arguments: object) -> Result:
    run = partial(process, "fleet", "scan", *arguments, "--engine", "ray", "--quiet", env=ray_environment())
    return started(run, lambda result: result.err)


def started(run: Callable[[], T], told: Callable[[T], str]) -> T:
    """Run again where the machine was too busy for Ray itself: a node must have started after 30 seconds."""
    for _ in range(9):
        result = run()
        if "timed out during startup" not in told(result):
            return result
    return run()


def test_the_same_tables_as_the_local_engine(population: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = scan_with_ray(population, "--out", out, "--batch", "8")
    assert (result.status, result.err) == (0, "")
    for file in sorted(expected.rglob("*.parquet")):
        assert (out / file.relative_to(expected)).read_bytes() == file.read_bytes()
    assert (out / "fleet.json").read_bytes() == (expected / "fleet.json").read_bytes()


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_lost_nodes_lose_nothing(seed: int, population: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.fleet.engines.lost_nodes", population, out, str(seed)]
    run = partial(subprocess.run, command, cwd=ROOT, env=ray_environment(), capture_output=True, timeout=PATIENCE)
    done = started(run, lambda done: done.stderr.decode())
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    # Ray tells of its nodes on the same stream.
    assert json.loads(done.stdout.splitlines()[-1]) == {"lost": 2, "adapters": COUNT}
    check_consistent(out)
    assert (out / "fleet.json").read_bytes() == (expected / "fleet.json").read_bytes()
    for table in ("adapters", "modules", "errors"):
        assert rows(out, table) == rows(expected, table)


@pytest.mark.slow
def test_a_killed_driver_is_gone_on_from(population: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["-m", "s3lora", "fleet", "scan", population, "--out", out, "--batch", "8", "--engine", "ray", "-q"]
    running = start(
        [sys.executable, *arguments], env=ray_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_until(lambda: list(out.glob("parts/0*")), running)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    done, errors = check_consistent(out)
    assert 0 < len(done) < COUNT
    assert not errors
    fleet_scan([str(population)], out, batch=8)
    for table in ("adapters", "modules", "errors"):
        assert rows(out, table) == rows(expected, table)


@pytest.mark.slow
def test_ctrl_c_ends_soon(population: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["-m", "s3lora", "fleet", "scan", population, "--out", out, "--batch", "1", "--engine", "ray", "-q"]
    running = start(
        [sys.executable, *arguments],
        env=ray_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_until(lambda: list(out.glob("parts/0*")), running)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, told
    assert b"Traceback" not in told
    done, _ = check_consistent(out)
    assert len(done) < COUNT, "it ended when all was done, and not soon"


def test_no_cluster_at_the_address(tmp_path: Path) -> None:
    write_population(tmp_path / "in", 1, BASES)
    result = scan_with_ray(tmp_path / "in", "--out", tmp_path / "out", "--address", "127.0.0.1:1")
    assert result.status == 2
    assert result.err.startswith("s3lora: Ray cannot be reached at 127.0.0.1:1: ")
    assert len(result.err.splitlines()) == 1
