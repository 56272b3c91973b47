"""The driver of a fleet scan: inputs → batches → an engine → parts of the dataset, with nothing lost on the way."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from s3lora.errors import AdapterFileError, NothingToAuditError, OutputError, printable
from s3lora.fleet.engines.engine import Engine, Lost
from s3lora.fleet.engines.local import LocalEngine
from s3lora.fleet.results.dataset import Dataset
from s3lora.fleet.results.inside import counted_inside
from s3lora.fleet.results.outcome import MeasuredBatch, Settings
from s3lora.fleet.results.rows import stored_uri
from s3lora.fleet.results.summary import NAMED, Summary, counted
from s3lora.fleet.sources.inputs import expand
from s3lora.fleet.sources.redirects import checked
from s3lora.fleet.work import LONGEST, Batch, Item, Work, failed
from s3lora.measure.cost import MAX_COST

#: Fewest adapters in a batch, so that what a task and a part cost is shared; and most, whose rows a worker can hold.
SMALLEST, LARGEST = 32, 512
#: Parts that a dataset of many adapters is divided into: more would slow every reader down.
MANY_PARTS = 4096
#: How often an adapter alone in its batch may lose its worker before that is its result.
TRIES = 3
#: Seconds between two looks at the progress.
TICK = 0.2
#: Kind of an error that concerns an input as it was given, not a file.
INPUT = "Input"
#: Kind of the error of an adapter that cost its worker.
WORKER = "Worker"
#: Kind of the error of an adapter in which the program itself failed.
INTERNAL = "Internal"


@dataclass(slots=True)
class FleetProgress:
    """How far a run is: inputs in all, those done, and of these with an error or as they were.

    `kept` counts errors that may pass of adapters whose earlier measurement stays.
    """

    total: int = 0
    done: int = 0
    errors: int = 0
    unchanged: int = 0
    kept: int = 0


class Watch(Protocol):
    """Looks at the progress, several times a second, from the thread that runs the scan."""

    def __call__(self, progress: FleetProgress) -> None:
        """Show it, or not."""


@dataclass(slots=True)
class _Plan:
    items: list[Item] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    stale: list[str] = field(default_factory=list)


def fleet_scan(
    inputs: Sequence[str],
    out: Path,
    settings: Settings | None = None,
    *,
    engine: Callable[[Work], Engine] = LocalEngine,
    resume: bool = True,
    batch: int | None = None,
    watch: Watch | None = None,
    follow: Sequence[str] = (),
    max_cost: float = MAX_COST,
) -> Summary:
    """Scan every adapter of the inputs into the dataset `out`, and return what it then holds.

    Parameters:
        inputs: folders, globs, lists, URLs or `hf://` names, as `expand` takes them.
        out: the dataset's folder; new, empty, or of an earlier run with the same settings.
        settings: what determines the numbers.
        engine: makes the engine that does the work.
        resume: leave alone what an earlier run finished and has not changed since; otherwise everything is measured
            again.
        batch: adapters in a batch; None chooses from 32 up, so that there are some thousand parts at most.
        watch: is shown the progress.
        follow: hosts that web servers may redirect to besides themselves: HOST, HOST:PORT or `*.HOST`.
        max_cost: operations that one adapter may take, as for `scan`; one beyond it is an error, and is tried again
            by the next run.

    Every input is afterwards one row of `adapters` or one row of `errors`. If the run ends early, however it ends, the
    dataset is consistent and the next run completes it.

    Raises NothingToAuditError if the inputs name no adapter at all, OutputError and UsageError as `Dataset`.
    """
    hosts = checked(follow)
    with Dataset(out, settings or Settings()) as dataset:
        plan = _plan(inputs, dataset, hosts, resume=resume)
        if not plan.items:
            dataset.abandon()
            raise NothingToAuditError(f"no adapter was found in {printable(', '.join(inputs))}")
        dataset.record(_summary(dataset, inputs, plan, complete=False))
        dataset.remove(plan.stale)
        work = Work(dataset.settings, dataset.known() if resume else b"", hosts, max_cost)
        try:
            run = _FleetRun(dataset, engine(work), FleetProgress(len(plan.items)), watch)
            run.through(_batches(plan.items, dataset, batch))
        except BaseException:
            with contextlib.suppress(OutputError, AdapterFileError):  # a full disk, say, is told by what ended the run
                dataset.settle()
                dataset.record(_summary(dataset, inputs, plan, complete=False))
            raise
        summary = _summary(dataset, inputs, plan, complete=True)
        dataset.record(summary)
        return summary


def _plan(inputs: Sequence[str], dataset: Dataset, hosts: Sequence[str], *, resume: bool) -> _Plan:
    """Expand the inputs, and find for each what is known of it."""
    plan = _Plan()
    failing: set[str] = set()
    named: set[str] = set()
    for found in expand(inputs, on_skip=lambda _, reason: plan.skipped.update((reason,)), follow=hosts):
        if found.error is not None:
            # A listing that broke off after it had named the input itself as an adapter is an error of its own.
            uri = f"{found.uri.rstrip('/')}/" if stored_uri(found.uri) in named else found.uri
            if stored_uri(uri) in named or stored_uri(found.uri) in failing:
                continue
            named.add(stored_uri(uri))
            plan.items.append(Item(uri, kind=INPUT, reason=printable(found.error, LONGEST)))
            failing.add(stored_uri(uri))
            continue
        named.add(stored_uri(found.uri))
        trace = dataset.traces.get(stored_uri(found.uri))
        again = not resume or trace is None or trace.transient or trace.kind == INPUT
        plan.items.append(Item(found.uri, None if again or trace is None else trace.fingerprint))
    given = {stored_uri(item.uri) for item in plan.items}
    plan.stale = [
        uri
        for uri in map(stored_uri, inputs)
        if uri not in given and uri not in failing and uri in dataset.traces and dataset.traces[uri].kind == INPUT
    ]
    return plan


def _batches(items: Sequence[Item], dataset: Dataset, size: int | None) -> Iterator[Batch]:
    """Yield the items in batches: those that have a row with the others of their part, so that it is replaced once."""
    length = size or min(LARGEST, max(SMALLEST, math.ceil(len(items) / MANY_PARTS)))
    old: dict[int, list[Item]] = {}
    new: list[Item] = []
    for item in items:
        part = dataset.parts.get(stored_uri(item.uri))
        (new if part is None else old.setdefault(part, [])).append(item)
    for part, group in sorted(old.items()):
        yield Batch(part, tuple(group))
    for start in range(0, len(new), length):
        yield Batch(dataset.new_number(), tuple(new[start : start + length]))


def _summary(dataset: Dataset, inputs: Sequence[str], plan: _Plan, *, complete: bool) -> Summary:
    return Summary(
        settings=dataset.settings,
        inputs=tuple(map(printable, inputs[:NAMED])),
        more_inputs=max(0, len(inputs) - NAMED),
        counts=counted(dataset.traces.values(), plan.skipped, counted_inside(dataset.folder) if complete else {}),
        complete=complete,
    )


class _FleetRun:
    """One run through an engine."""

    def __init__(self, dataset: Dataset, engine: Engine, progress: FleetProgress, watch: Watch | None) -> None:
        self.dataset = dataset
        self.engine = engine
        self.progress = progress
        self.watch = watch
        self.queue: deque[Batch] = deque()
        self.running = 0
        self.tries: Counter[str] = Counter()

    def through(self, batches: Iterable[Batch]) -> None:
        """Run all batches, and end every worker, whatever happens."""
        waiting = iter(batches)
        try:
            while True:
                self._fill(waiting)
                if not self.running:
                    return
                ended = self.engine.wait(TICK)
                self.running -= len(ended)
                self._fill(waiting)  # before the results are written: no worker waits for the disk
                for batch, result in ended:
                    self._end(batch, result)
                if self.watch is not None:
                    self.watch(self.progress)
        finally:
            self.engine.close()

    def _fill(self, waiting: Iterator[Batch]) -> None:
        while self.engine.room():
            batch = self.queue.popleft() if self.queue else next(waiting, None)
            if batch is None:
                return
            self.engine.submit(batch)
            self.running += 1

    def _end(self, batch: Batch, result: MeasuredBatch | Lost) -> None:
        if isinstance(result, Lost):
            self._lose(batch, result)
            return
        self.progress.kept += sum(map(self.dataset.keeps, result.traces))
        again = set(self.dataset.commit(batch.part, result))
        if again:
            items = tuple(Item(item.uri, fresh=True) for item in batch.items if stored_uri(item.uri) in again)
            self.queue.append(Batch(batch.part, items))
        self.progress.done += len(batch.items) - len(again)
        self.progress.unchanged += len(result.unchanged)
        self.progress.errors += sum(trace.kind is not None for trace in result.traces)
        self.progress.errors += sum(self.dataset.traces[uri].kind is not None for uri in result.unchanged)

    def _lose(self, batch: Batch, lost: Lost) -> None:
        """Try what the lost worker had again, each adapter alone; one that keeps losing its worker is an error."""
        if len(batch.items) > 1:
            self.queue.extend(Batch(batch.part, (item,)) for item in batch.items)
            return
        self.tries[batch.items[0].uri] += 1
        if self.tries[batch.items[0].uri] < TRIES:
            self.queue.append(batch)
            return
        more = "set S3LORA_DEBUG=1 and scan it alone" if lost.fault else "it may need more memory than there is"
        kind = INTERNAL if lost.fault else WORKER
        self._end(batch, failed(batch, kind, f"{lost.reason}, {TRIES} times; {more}"))
