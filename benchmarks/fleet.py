"""Measure what a fleet costs: efficiency of the engines, their overhead, memory of a worker, and very many rows."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import population
import shapes
from measure import Cost, median, paired
from s3lora.fleet.cluster import RayEngine
from s3lora.fleet.local import LocalEngine
from s3lora.fleet.run import Progress, fleet_scan
from s3lora.fleet.work import Batch, Item, Measured, Settings, Work

ADAPTERS = 2000
LOOP = """
import sys
from pathlib import Path
import s3lora
for path in sorted(Path(sys.argv[1]).iterdir()):
    s3lora.scan(path)
"""


def local(folder: Path, repeats: int) -> dict[str, Any]:
    """Compare `fleet scan` on all cores with a loop of `scan` in one process, whole runs, start-up included."""
    adapters = adapters_of(folder)
    out = folder / "fleet-out"
    walls: dict[str, list[Cost]] = {"loop": [], "fleet": []}
    for _ in range(repeats):
        shutil.rmtree(out, ignore_errors=True)
        fleet = ["-m", "s3lora", "fleet", "scan", str(adapters), "--out", str(out), "--quiet"]
        for name, costs in paired({"loop": ["-c", LOOP, str(adapters)], "fleet": fleet}, 1, warm=False).items():
            walls[name] += costs
    cores = len(os.sched_getaffinity(0))
    ratios = [a.wall / (cores * b.wall) for a, b in zip(walls["loop"], walls["fleet"], strict=True)]
    return {
        "adapters": ADAPTERS,
        "megabytes": round(sum(file.stat().st_size for file in adapters.rglob("*.safetensors")) / 1e6),
        "cores": cores,
        "repeats": repeats,
        "loop": median(walls["loop"])._asdict(),
        "fleet": median(walls["fleet"])._asdict(),
        "efficiency": statistics.median(ratios),
        "overhead_ms": overhead(),
    }


def adapters_of(folder: Path) -> Path:
    """Return the folder of the made-up adapters, which are made once."""
    made = folder / "population"
    if not made.exists():
        population.write_population(made, ADAPTERS)
    return made


def nothing(batch: Batch, work: Work) -> Measured:
    """Do no work: what is left is the engine's."""
    return Measured({}, (), tuple(item.uri for item in batch.items))


def overhead() -> float:
    """Return the milliseconds a file that the local engine takes by itself, in batches of 32."""
    engine = LocalEngine(Work(Settings()), function=nothing)
    batches = [Batch(i, tuple(Item(f"adapters/{i}/{j}") for j in range(32))) for i in range(2000)]
    _through(engine, batches[:100])  # until the workers have started
    seconds = timed(lambda: _through(engine, batches))
    engine.close()
    return 1000 * seconds / (32 * len(batches))


def _through(engine: LocalEngine, batches: list[Batch]) -> None:
    waiting, done = iter(batches), 0
    while done < len(batches):
        while engine.room() and (batch := next(waiting, None)) is not None:
            engine.submit(batch)
        done += len(engine.wait(1.0))


class Rates:
    """Takes the throughput between a tenth and nine tenths of a run: without starting and without the last batches."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []
        self.total = 0

    def __call__(self, progress: Progress) -> None:
        self.total = progress.total
        self.marks.append((time.perf_counter(), progress.done))

    @property
    def steady(self) -> float:
        inner = [mark for mark in self.marks if 0.1 * self.total <= mark[1] <= 0.9 * self.total]
        return (inner[-1][1] - inner[0][1]) / (inner[-1][0] - inner[0][0])


def ray(folder: Path, repeats: int) -> dict[str, Any]:
    """Compare the steady throughput through Ray on this machine with that of the local engine."""
    adapters = adapters_of(folder)
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    for _ in range(repeats):
        for name, engine in (("local", LocalEngine), ("ray", RayEngine)):
            shutil.rmtree(folder / "fleet-out", ignore_errors=True)
            watch = Rates()
            fleet_scan([str(adapters)], folder / "fleet-out", engine=engine, watch=watch)
            rates[name].append(watch.steady)
    ratios = [b / a for a, b in zip(rates["local"], rates["ray"], strict=True)]
    return {
        "repeats": repeats,
        "local_per_second": statistics.median(rates["local"]),
        "ray_per_second": statistics.median(rates["ray"]),
        "ratio": statistics.median(ratios),
    }


def memory(folder: Path) -> dict[str, float]:
    """Return the peak resident MB of a worker that scans the population, the 8B shape and the 70B shape."""
    found = {}
    sources = {"population": adapters_of(folder), **{name: shapes.model(folder, name) for name in ("8b", "70b")}}
    for name, source in sources.items():
        shutil.rmtree(folder / "fleet-out", ignore_errors=True)
        engines: list[LocalEngine] = []
        peak = Peak(engines)
        fleet_scan([str(source)], folder / "fleet-out", engine=partial(_kept, engines), watch=peak)
        found[name] = peak.megabytes
    return found


def _kept(engines: list[LocalEngine], work: Work) -> LocalEngine:
    engines.append(LocalEngine(work, workers=1))
    return engines[-1]


class Peak:
    """Reads the peak memory of the workers, which the system keeps for each process."""

    def __init__(self, engines: list[LocalEngine]) -> None:
        self.engines = engines
        self.megabytes = 0.0

    def __call__(self, progress: Progress) -> None:
        for pid in self.engines[-1].pids():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
                self.megabytes = max(self.megabytes, kilobytes / 1024)


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextlib.contextmanager
def cleaned(folder: Path) -> Iterator[Path]:
    """Give a folder name that is removed afterwards."""
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
