"""Measure what a fleet costs: efficiency of the engines, their overhead, memory of a worker, and very many rows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import population
import shapes
from measure import Cost, median, paired, run, seconds
from s3lora import scan
from s3lora.fleet.engines.cluster import RayEngine
from s3lora.fleet.engines.local import LocalEngine
from s3lora.fleet.populations.reference import build_reference
from s3lora.fleet.populations.standing import Reference
from s3lora.fleet.results.dataset import Dataset
from s3lora.fleet.results.outcome import MeasuredBatch, Settings, Trace, to_parquet
from s3lora.fleet.results.queries import ask
from s3lora.fleet.results.schema import TABLES
from s3lora.fleet.run import MANY_PARTS, FleetProgress, fleet_scan
from s3lora.fleet.sources.remote import localised
from s3lora.fleet.work import Batch, Item, Work, measure
from simulate_fleet import simulate

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tests.fleet.sources.web import serving

ADAPTERS = 2000
#: Adapters and modules of the simulated dataset.
SIMULATED = (100_000, 200)
#: Adapters in a batch of a run over a million, and those whose traces are weighed.
DRIVER_BATCH, REMEMBERED = 245, 100_000
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


def nothing(batch: Batch, work: Work) -> MeasuredBatch:
    """Do no work: what is left is the engine's."""
    return MeasuredBatch({}, (), tuple(item.uri for item in batch.items))


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

    def __call__(self, progress: FleetProgress) -> None:
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
    sources["wide"] = shapes.write(folder / "wide", {"model.embed.x_proj": (150_000, 150_000, 256)}, "float32")
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

    def __call__(self, progress: FleetProgress) -> None:
        for pid in self.engines[-1].pids():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
                self.megabytes = max(self.megabytes, kilobytes / 1024)


def large(folder: Path, repeats: int) -> dict[str, Any]:
    """Take what one adapter of 50 MB costs: a core, bytes and requests over HTTP, bytes of the dataset, the driver."""
    source = shapes.model(folder, "50mb")
    batch = Batch(0, (Item(str(source)),))
    work = Work(Settings())
    result = measure(batch, work)
    with serving() as site:
        url = site.add(source, "adapter")
        with localised(url) as local:
            remote = {"requests": len(site.asked), "megabytes_fetched": local.bytes_read / 1e6}
    many = _repeated(result, DRIVER_BATCH)
    return {
        "megabytes": sum(file.stat().st_size for file in source.glob("*.safetensors")) / 1e6,
        "modules": result.traces[0].modules,
        "seconds": seconds(lambda: measure(batch, work), repeats),
        "signature_seconds": seconds(lambda: measure(batch, Work(Settings(signature=True))), 1),
        **remote,
        "dataset_kilobytes": sum(map(len, many.tables.values())) / DRIVER_BATCH / 1e3,
        "driver_seconds": _committing(folder, many, repeats) / DRIVER_BATCH,
        "driver_kilobytes": _remembering(folder),
        "batch": DRIVER_BATCH,
        "repeats": repeats,
    }


def _repeated(one: MeasuredBatch, count: int) -> MeasuredBatch:
    """Return the result of a batch of `count` adapters like one, with numbers of their own: equal ones compress."""
    random = np.random.default_rng(0)
    tables = {}
    for name, raw in one.tables.items():
        rows = pq.read_table(pa.BufferReader(raw))
        tables[name] = to_parquet(pa.concat_tables([_varied(rows, f"{i:07d}", random) for i in range(count)]))
    traces = tuple(dataclasses.replace(one.traces[0], uri=f"s3://bucket/adapters/{i:07d}") for i in range(count))
    return MeasuredBatch(tables, traces, ())


def _varied(rows: pa.Table, number: str, random: np.random.Generator) -> pa.Table:
    for at, field in enumerate(rows.schema):
        values = rows.column(at)
        if field.name == "uri":
            rows = rows.set_column(at, field, pa.array([f"s3://bucket/adapters/{number}"] * rows.num_rows, pa.string()))
        elif field.type == pa.float64() and field.name != "scaling" and not values.null_count:
            rows = rows.set_column(at, field, pa.array(values.to_numpy() * random.uniform(0.9, 1.1, rows.num_rows)))
    return rows


def _committing(folder: Path, result: MeasuredBatch, repeats: int) -> float:
    """Return the seconds in which the driver takes a batch out of its pickle and puts it in its place."""
    sent = pickle.dumps(result)
    with cleaned(folder / "committed") as out, Dataset(out, Settings()) as dataset:
        return seconds(lambda: dataset.commit(dataset.new_number(), pickle.loads(sent)), repeats)


def _remembering(folder: Path) -> float:
    """Return the kilobytes that the driver keeps of each adapter: what it has to do, and what is done."""
    before = _resident()
    with cleaned(folder / "remembered") as out, Dataset(out, Settings()) as dataset:
        items = [Item(f"s3://bucket/adapters/{i:07d}") for i in range(REMEMBERED)]
        digests = [f"{i:064x}" for i in range(REMEMBERED)]
        traces = (Trace(item.uri, f"tag:{d}", d, f"{d[1:]}0", 224) for item, d in zip(items, digests, strict=True))
        dataset.commit(0, MeasuredBatch(dict.fromkeys(TABLES, b""), tuple(traces), ()))
        return (_resident() - before) / REMEMBERED


def _resident() -> float:
    """Return the kilobytes that this process has in memory now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def simulated(folder: Path, repeats: int) -> dict[str, Any]:
    """Take the time of a look-up and of the page over 100,000 adapters of 200 modules, and the size of the page."""
    dataset = folder / "simulated"
    if not dataset.exists():
        simulate(dataset, *SIMULATED)
    reference = folder / "simulated.parquet"
    building = timed(lambda: build_reference(dataset, reference, "simulated"))
    adapter = shapes.model(folder, "8b")
    scanned = scan(adapter)
    page = folder / "population.html"
    command = ["-m", "s3lora", "fleet", "report", str(dataset), "-o", str(page)]
    return {
        "adapters": SIMULATED[0],
        "modules": SIMULATED[1],
        "dataset_megabytes": sum(file.stat().st_size for file in dataset.rglob("*.parquet")) / 1e6,
        "reference_seconds": building,
        "reference_megabytes": reference.stat().st_size / 1e6,
        "lookup_seconds": seconds(lambda: Reference(reference).compare(scanned), repeats),
        "page": median([run(command) for _ in range(3)])._asdict(),
        "page_megabytes": page.stat().st_size / 1e6,
    }


def parts(folder: Path, repeats: int) -> dict[str, Any]:
    """Take the time of a query over a dataset of as many parts as one of a million adapters has, each very small."""
    with cleaned(folder / "parts") as dataset:
        simulate(dataset, 4 * MANY_PARTS, 10, each=4)
        query = "SELECT count(*), avg(ssi) FROM modules"
        return {"parts": MANY_PARTS, "seconds": seconds(lambda: ask(dataset, query), repeats)}


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
