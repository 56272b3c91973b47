"""An engine that runs in this process, and what a dataset holds, for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3lora.fleet.engines.engine import Lost
from s3lora.fleet.results.dataset import read_table
from s3lora.fleet.results.outcome import MeasuredBatch
from s3lora.fleet.work import Batch, Work, measure


class Inline:
    """Measures a batch when it is asked for results."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.batches: list[Batch] = []
        self.closed = False

    def room(self) -> bool:
        return not self.batches

    def submit(self, batch: Batch) -> None:
        self.batches.append(batch)

    def wait(self, seconds: float) -> Sequence[tuple[Batch, MeasuredBatch | Lost]]:
        done = [(batch, measure(batch, self.work)) for batch in self.batches]
        self.batches.clear()
        return done

    def close(self) -> None:
        self.closed = True


def rows(folder: Path, table: Any) -> list[dict[str, Any]]:
    """Return the rows of a table, in order of uri and path."""
    found: list[dict[str, Any]] = read_table(folder, table).to_pylist()
    return sorted(found, key=lambda row: (row["uri"], row.get("path") or ""))


def check_consistent(folder: Path) -> tuple[set[str], set[str]]:
    """Fail unless every uri has one row, with as many modules as it says; return the uris of results and of errors."""
    adapters, modules, errors = (read_table(folder, table).to_pylist() for table in ("adapters", "modules", "errors"))
    uses = Counter(row["uri"] for row in (*adapters, *errors))
    assert not [uri for uri, count in uses.items() if count > 1]
    paths = [(row["uri"], row["path"]) for row in modules]
    assert len(set(paths)) == len(paths)
    assert Counter(uri for uri, _ in paths) == {row["uri"]: row["modules"] for row in adapters}
    return {row["uri"] for row in adapters}, {row["uri"] for row in errors}
