"""Hold the estimate of `s3lora.measure.cost` against the CPU seconds that work takes in one thread.

Part `cost` of `run.py`. It takes two minutes and 0.5 GB of disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import shapes
from s3lora.adapter.open import open_adapter
from s3lora.choose.rules import Null
from s3lora.choose.select import select
from s3lora.measure.comparison import compare
from s3lora.measure.composition import compose
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import SPEED, Estimate, Sized, compare_cost, compose_cost, null_cost, scan_cost
from s3lora.measure.scan import scan_all

Work = tuple[str, Estimate, Callable[[], object]]
PLAIN, KURTOSIS, RELEASED = Configuration(), Configuration(kurtosis=True), Configuration("released")


def square(folder: Path, name: str, count: int, size: int, rank: int, *, seed: int = 0) -> Path:
    """Write an adapter of `count` modules of size × size."""
    modules = {f"model.layers.{i}.self_attn.q_proj": (size, size, rank) for i in range(count)}
    return shapes.write(folder / name, modules, "float32", seed)


def works(folder: Path) -> Iterator[Work]:
    """Yield what is measured: its name, the estimate, and the work itself."""
    tiny = {f"model.layers.{i}.self_attn.q_proj": (1, 1, 1) for i in range(20_000)}
    many = {f"model.layers.{i}.self_attn.q_proj": (512 + i, 512, 8) for i in range(300)}
    yield _scanned("8B: 224 modules, rank 16", shapes.model(folder, "8b"))
    yield _scanned("36,864 modules of 64 × 48, rank 16", shapes.model(folder, "experts"))
    yield _scanned("20,000 modules of 1 × 1", shapes.write(folder / "tiny", tiny, "float32"))
    yield _scanned("300 shapes, rank 8", shapes.write(folder / "many", many, "float32"))
    yield _scanned("4 modules of 4096 × 4096, rank 512", square(folder, "r512", 4, 4096, 512))
    yield _scanned("1 module of 4096 × 4096, rank 2000", square(folder, "r2000", 1, 4096, 2000))
    yield _scanned("1 module of 4096 × 4096, rank 2000, by `spsvd`", folder / "r2000", Configuration("spsvd"))
    wide = {"model.layers.0.self_attn.q_proj": (64, 64, 20_000)}
    yield _scanned("1 module of 64 × 64, rank 20,000", shapes.write(folder / "fat", wide, "float32"))
    yield _scanned("8 modules of 2048 × 2048, rank 16, kurtosis", square(folder, "r16", 8, 2048, 16), KURTOSIS)
    yield _scanned("4 modules of 4096 × 4096, rank 512, kurtosis", folder / "r512", KURTOSIS)
    fitted = Configuration("spsvd", fit="l1", sample=256)
    yield _scanned("2 modules of 1024 × 1024, rank 8, `--fit l1`", square(folder, "fit", 2, 1024, 8), fitted)
    yield _scanned("1 module of 1024 × 1024, rank 8, by `released`", square(folder, "r8", 1, 1024, 8), RELEASED)
    yield _simulated("the null rule on 20 shapes, rank 8", folder / "many")
    yield _compared("30 adapters of 8 modules compared", [folder / "r16"] * 30)
    yield _composed("6 adapters of 8 modules added up", [folder / "r16"] * 6)


def _scanned(name: str, path: Path, configuration: Configuration = PLAIN) -> Work:
    with open_adapter(path) as adapter:
        estimate = scan_cost(adapter.modules, [configuration])
    return name, estimate, lambda: scan_all(path, [configuration])


def _simulated(name: str, path: Path) -> Work:
    scan = scan_all(path, [Configuration()])[0]
    few = type(scan)(configuration=scan.configuration, source=scan.source, warnings=(), modules=scan.modules[:20])
    return name, null_cost([(*one.shape, one.rank) for one in few], 200), lambda: select(few, Null())


def _compared(name: str, paths: list[Path]) -> Work:
    sizes = [{module: Sized(module, (shape,)) for module, shape in _sizes(path).items()} for path in paths]
    return name, compare_cost(sizes, Configuration()), lambda: compare(paths)


def _composed(name: str, paths: list[Path]) -> Work:
    sizes = [_sizes(path) for path in paths]
    parts = {path: [one[path] for one in sizes] for path in sizes[0]}
    return name, compose_cost(parts, Configuration()), lambda: compose(paths)


def _sizes(path: Path) -> dict[str, tuple[int, int, int]]:
    with open_adapter(path) as adapter:
        return {module.path: (module.m, module.n, module.rank) for module in adapter.modules}


def measure(folder: Path) -> list[dict[str, object]]:
    """Return name, estimate in operations and in seconds, and CPU seconds of each work."""
    rows: list[dict[str, object]] = []
    for name, estimate, work in works(folder):
        start = time.process_time()
        work()
        took = time.process_time() - start
        seconds = estimate.operations / SPEED
        rows.append({"work": name, "operations": estimate.operations, "estimate": seconds, "cpu": took})
    return rows
