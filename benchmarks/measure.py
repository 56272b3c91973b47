"""Running commands and taking their CPU time, wall time and peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds of CPU (user + system, all threads), seconds of wall clock, and peak resident memory in MB."""

    cpu: float
    wall: float
    peak_mb: float


def run(command: Sequence[str]) -> Cost:
    """Run a Python command to its end; a failure raises."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} exited with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def paired(commands: dict[str, Sequence[str]], repeats: int, *, warm: bool = True) -> dict[str, list[Cost]]:
    """Run the commands in turn, `repeats` times, so that a busy moment falls on all.

    A first round is thrown away, unless `warm` is false.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for repeat in range(repeats + warm):
        for name, command in commands.items():
            cost = run(command)
            if repeat >= warm:
                costs[name].append(cost)
    return costs


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def ratio(costs: Sequence[Cost], base: Sequence[Cost], field: str) -> float:
    """Return the median of the paired ratios."""
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(costs, base, strict=True))


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call, after one that is thrown away unless it is the only one."""
    times = []
    for _ in range(repeats + (repeats > 1)):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)
