"""How the time of a scan grows with the number of modules, with m + n, and with the rank: a decade each."""

from __future__ import annotations

import math

import numpy as np
from threadpoolctl import threadpool_limits

from measure import seconds
from s3lora.adapter.model import Factor, LoraModule, Scaling
from s3lora.adapter.tensor import ArrayTensor
from s3lora.measure.configuration import Configuration
from s3lora.measure.scan import scan_module

MODULES = (16, 32, 64, 128, 160)
SIZES = (2048, 4096, 8192, 16384, 20480)
RANKS = (8, 16, 32, 64, 80)
REPEATS = 15


def _module(number: int, size: int, rank: int) -> LoraModule:
    random = np.random.default_rng(number)
    a = ArrayTensor("a", random.standard_normal((rank, size)).astype(np.float32))
    b = ArrayTensor("b", random.standard_normal((size, rank)).astype(np.float32))
    return LoraModule(f"layers.{number}", Factor(a, a.values.shape), Factor(b, b.values.shape), Scaling(2.0, "memory"))


def _time(modules: list[LoraModule]) -> float:
    return seconds(lambda: [scan_module(module, Configuration(), "growth") for module in modules], REPEATS)


def _slope(xs: tuple[int, ...], ys: list[float]) -> float:
    """Return the exponent of the power law that fits best, by least squares on logarithms."""
    return float(np.polyfit([math.log(x) for x in xs], [math.log(y) for y in ys], 1)[0])


def measure() -> dict[str, object]:
    """Return seconds for each size, with the fitted exponents."""
    with threadpool_limits(limits=1, user_api="blas"):
        by_modules = [_time([_module(i, 1024, 8) for i in range(count)]) for count in MODULES]
        by_size = [_time([_module(0, size, 16)]) for size in SIZES]
        by_rank = [_time([_module(0, 4096, rank)]) for rank in RANKS]
    return {
        "modules": {"x": MODULES, "seconds": by_modules, "exponent": _slope(MODULES, by_modules)},
        "m + n": {"x": [2 * size for size in SIZES], "seconds": by_size, "exponent": _slope(SIZES, by_size)},
        "rank": {"x": RANKS, "seconds": by_rank, "exponent": _slope(RANKS, by_rank)},
    }
