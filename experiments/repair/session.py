"""One adapter while it is measured: open in its base, with its data, and with what rows have learned of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.reference.data import Run
from experiments.repair.costs import counted
from experiments.repair.measured import Ends
from experiments.repair.rows import Shelf
from experiments.repair.setting import Places, Settings, check, digest_of_adapter, head_of, opened
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.data import RepairPart
from s3lora.repair.measuring import PartBench
from s3lora.repair.work import RepairWork


@dataclass(frozen=True)
class Session:
    """The adapter at work, what results begin with, and what rows have learned."""

    work: RepairWork
    head: dict[str, Any]
    shelf: Shelf

    def part(self, part: RepairPart) -> tuple[PartBench, Ends]:
        """Return what measures a part, and what base and adapter do there."""
        bench = self.work.part(part, 1, 1.0)
        return bench, Ends(bench.base(), bench.adapter())


@contextmanager
def session(places: Places, settings: Settings, run: Run, *, unaligned: bool = False) -> Iterator[Session]:
    """Open an adapter; raise OtherAdapterError where there are results of another one by its name."""
    folder = places.work / "comparison"
    with (
        AnswerStore(folder / f"{run.name}.sqlite") as store,
        opened(places, settings, run, store, unaligned=unaligned) as work,
    ):
        head = head_of(work, run)
        check(head, places, run)
        subject = work.subject(True)
        shelf = Shelf(run.name, subject, lambda row, learn: counted(places.costs, f"{run.name} {row}", learn))
        yield Session(work, head, shelf)


def is_done(path: Path, places: Places, run: Run) -> bool:
    """Return whether a result is there; raise OtherAdapterError where it is of another adapter."""
    if not path.is_file():
        return False
    head = json.loads(path.read_text(encoding="utf-8"))
    own = digest_of_adapter(places.adapter(run))
    check({**head, "digests": {**head["digests"], "adapter": own}}, places, run)
    return True


def tell(run: Run, row: str, points: Sequence[dict[str, Any]]) -> None:
    """Say what was found, for whoever watches."""
    said = "; ".join(f"{one['strength']:.3g}: ASR {one['asr']['value']:.2f}" for one in points)
    print(f"{run.name} {row}: {said}", flush=True)
