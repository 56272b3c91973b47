"""What learning took: seconds, and the memory of the process at its highest."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from experiments.reference.run import write

#: On Linux, what sets the highest memory of a process back to its present one, and where that is told.
RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

Made = TypeVar("Made")


def counted(folder: Path, name: str, work: Callable[[], Made]) -> Made:
    """Do something, and keep what it took, unless that is known: what is done again is read from a store."""
    path = folder / f"{name}.json"
    if path.is_file():
        return work()
    _reset()
    start = time.perf_counter()
    made = work()
    folder.mkdir(parents=True, exist_ok=True)
    write(path, {"seconds": round(time.perf_counter() - start, 1), "gigabytes": round(_highest(), 2)})
    return made


def all_costs(folder: Path) -> dict[str, Any]:
    """Return what everything took, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def _reset() -> None:
    try:
        RESET.write_text("5")
    except OSError:
        return  # the highest of the whole process is then told, which is no less


def _highest() -> float:
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
