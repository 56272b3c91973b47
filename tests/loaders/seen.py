"""What was seen: one row a sample and loader, kept in `docs/results/loaders/LOADER-VERSION.json`.

With `S3LORA_RECORD=1` a test writes its row; otherwise what it sees must be what was recorded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tests.loaders.environments import Environment
from tests.pages import DOCS

FOLDER = DOCS / "results" / "loaders"
#: What came of it; "none" where the sample makes no sense for the loader.
Result = Literal["same", "other", "fails", "none"]
Arrays = Mapping[str, np.ndarray[Any, Any]]
#: Sections of a file.
SAMPLES, CHECKS, SWAPS = "samples", "checks", "swaps"


@dataclass(frozen=True)
class Row:
    """One comparison.

    `compared` says what: logits, tensors, outputs. `largest_relative_difference` is rounded up to a power of ten, so
    that another machine gives the same; None where nothing could be compared. `verdict` is that of `s3lora check`, in
    rows of what it says.
    """

    sample: str
    compared: str
    result: Result
    largest_relative_difference: float | None = None
    reason: str = ""
    verdict: str | None = None


def relative(found: Arrays, wanted: Arrays) -> float:
    """Return the largest difference of any array, relative to the largest number that it should hold."""
    if found.keys() != wanted.keys():
        return math.inf
    worst = 0.0
    for name, right in wanted.items():
        value = np.asarray(found[name], dtype=np.float64)
        if value.shape != right.shape or not np.isfinite(value).all():
            return math.inf
        size = float(np.abs(right).max(initial=0.0))
        off = float(np.abs(value - right).max(initial=0.0))
        worst = max(worst, off / size if size else (math.inf if off else 0.0))
    return worst


def compared(sample: str, what: str, found: Arrays, wanted: Arrays, tolerance: float, reason: str = "") -> Row:
    """Return the row of a comparison; `reason` tells why it is another, and is left out where it is not."""
    off = relative(found, wanted)
    same = off <= tolerance
    return Row(sample, what, "same" if same else "other", rounded(off), "" if same else reason)


def rounded(off: float) -> float | None:
    """Return the power of ten that is no smaller; 0 stays 0, and None stands for what is no number.

    >>> rounded(3.2e-7), rounded(0.0), rounded(0.4)
    (1e-06, 0.0, 1.0)
    """
    if not off:
        return 0.0
    return None if not math.isfinite(off) else float(f"1e{math.ceil(math.log10(off))}")


def file_of(environment: Environment) -> Path:
    """Return where the rows of a loader are kept."""
    return FOLDER / f"{environment.loader}-{environment.version}.json"


def settle(environment: Environment, section: str, row: Row) -> None:
    """Record a row, or hold it against the one that was recorded."""
    path = file_of(environment)
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = {one["sample"]: one for one in held.get(section, [])}
    found = asdict(row)
    if found["verdict"] is None:
        del found["verdict"]
    if os.environ.get("S3LORA_RECORD") == "1":
        rows[row.sample] = found
        held |= {"loader": environment.loader, "version": environment.version, "beside": dict(environment.beside)}
        held[section] = [rows[name] for name in sorted(rows)]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(held, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
        return
    if not path.is_file() or row.sample not in rows:
        raise AssertionError(f"no row of {row.sample} was recorded for {path.stem}: run with S3LORA_RECORD=1")
    recorded = rows[row.sample]
    told = (recorded["result"], recorded.get("verdict"))
    assert (row.result, row.verdict) == told, f"{row.sample} of {path.stem}: {found}, recorded was {recorded}"
