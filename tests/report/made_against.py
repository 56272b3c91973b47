"""Made-up standings in a reference, as `Reference.compare` gives them, without a reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from s3lora.measure.against import Against, Mark, Standing, hindrance, unusual
from s3lora.measure.cells import ADAPTER_LEVELS, MODULE_LEVELS
from s3lora.measure.scan import ModuleScan
from s3lora.report.documents import ScanDocument
from s3lora.spectrum.indices import INDICES
from s3lora.statistics import wilson


def mark(value: float, percentile: float, adapters: int, z: float | None) -> Mark:
    found = wilson(round(percentile / 100 * adapters), adapters)
    return Mark(value, percentile, 100 * found.low, 100 * found.high, z)


def standing(module: ModuleScan, number: int, adapters: int, level: int = 0) -> Standing:
    """Return some percentile and z for each index of a module; the first has no z."""
    marks = {
        name: mark(value, (37 * number) % 101, adapters, None if not number else (number % 13) - 6.25)
        for name, value in module.indices.items()
        if value is not None
    }
    return Standing(level, MODULE_LEVELS[level].meaning, adapters, marks)


def against(
    document: ScanDocument,
    *,
    adapters: int = 80,
    z: float = 4.2,
    percentile: float = 100.0,
    coarse: int = 0,
    name: str = "ours",
    level: int = 0,
    ranks: tuple[int, int] = (8, 8),
    **more: Any,
) -> Against:
    """Return where a scan stands in a reference of so many adapters; `coarse` modules fell back two levels.

    The adapter itself is of these ranks, the smallest and the largest, and its cell of this level.
    """
    measured = [module for module in document.modules if module.indices.get("ssi") is not None]
    marks: dict[str, Mark] = {}
    for index, spec in INDICES.items():
        values = [value for module in measured if (value := module.indices.get(index)) is not None]
        if values:
            high = spec.sharp == "high"
            marks[f"{index}_median"] = mark(float(np.median(values)), 50.0, adapters, 0.2)
            marks[f"{index}_sharpest"] = mark(
                max(values) if high else min(values),
                percentile if high else 100 - percentile,
                adapters,
                z if high else -z,
            )
    own = Standing(level, ADAPTER_LEVELS[level].meaning, adapters, marks) if measured else None
    whys = {key: hindrance(key.rpartition("_")[0], level, ranks) for key in marks}
    hindered = {key: why for key, why in whys.items() if why is not None}
    found = Against(
        reference=name,
        adapters=adapters,
        modules=adapters * len(document.modules),
        base_family="some-family",
        family_adapters=adapters,
        coarser=coarse,
        adapter=own,
        unusual={key: unusual(value, adapters, hindered.get(key)) for key, value in marks.items()},
        hindered=hindered,
        standings={
            module.path: standing(module, number, adapters, 2 if number < coarse else 0)
            for number, module in enumerate(measured)
        },
    )
    return replace(found, **more)
