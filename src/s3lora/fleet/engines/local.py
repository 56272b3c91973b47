"""The local engine: one spawned process for each core, replaced when it dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from s3lora.errors import OutputError
from s3lora.fleet.engines.engine import Lost, fault
from s3lora.fleet.results.outcome import MeasuredBatch
from s3lora.fleet.work import Batch, Work, measure
from s3lora.wording import worded

#: Set for the workers before they import NumPy: BLAS threads that spin on busy cores cost a factor of ten.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
#: Set too: `python -c`, which a worker is until it is told where modules are, imports those of the working directory.
SAFE_PATH = "PYTHONSAFEPATH"
#: Seconds that a worker which was told to end is waited for.
PATIENCE = 2.0


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Worker processes that are each given one batch at a time, so that a death tells which batch it was."""

    def __init__(
        self, work: Work, workers: int | None = None, function: Callable[[Batch, Work], MeasuredBatch] = measure
    ) -> None:
        """Take the work; `workers` processes, by default one a core, are started as there are batches for them.

        Each calls `function` for a batch.
        """
        self.work = work
        self.function = function
        self._context = multiprocessing.get_context("spawn")
        self._most = workers or cores()
        self._slots: list[_Slot] = []

    def room(self) -> bool:
        """Return whether a worker has nothing to do, or may still be started."""
        return len(self._slots) < self._most or any(slot.batch is None for slot in self._slots)

    def submit(self, batch: Batch) -> None:
        """Give the batch to a worker that has nothing to do, a new one where that one has died."""
        at = next((at for at, slot in enumerate(self._slots) if slot.batch is None), len(self._slots))
        if at == len(self._slots):
            self._slots.append(self._start())
        for _ in range(2):
            try:
                self._slots[at].give(batch)
                return
            except OSError:  # it died while it had nothing to do
                self._replace(at)
        raise OutputError("no worker process can be started", fix=worded("give fewer {workers}"))

    def wait(self, seconds: float) -> Sequence[tuple[Batch, MeasuredBatch | Lost]]:
        """Return the batches that have ended, and replace the workers that have died."""
        busy = {slot.connection: at for at, slot in enumerate(self._slots) if slot.batch is not None}
        ended: list[tuple[Batch, MeasuredBatch | Lost]] = []
        for connection in wait(list(busy), seconds):
            at = busy[connection]  # type: ignore[index]
            slot = self._slots[at]
            batch = slot.batch
            assert batch is not None
            ended.append((batch, slot.take()))
            if slot.dead:
                self._replace(at)
        return ended

    def close(self) -> None:
        """Kill all workers."""
        for slot in self._slots:
            slot.kill()

    def pids(self) -> tuple[int, ...]:
        """Return the process numbers of the workers."""
        return tuple(slot.process.pid for slot in self._slots if slot.process.pid is not None)

    def _replace(self, at: int) -> None:
        self._slots[at].kill()
        self._slots[at] = self._start()

    def _start(self) -> _Slot:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self.work, self.function), daemon=True)
        with _environment({**dict.fromkeys(ONE_THREAD, "1"), SAFE_PATH: "1"}), _uninterrupted():
            process.start()
        theirs.close()  # so that the worker's end is the only one, and closes with it
        return _Slot(process, ours)


class _Slot:
    """A worker, its end of the line, and the batch that it has."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.batch: Batch | None = None
        self.dead = False

    def give(self, batch: Batch) -> None:
        self.connection.send(batch)
        self.batch = batch

    def take(self) -> MeasuredBatch | Lost:
        """Return the answer; a worker that has none to give has died."""
        self.batch = None
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.dead = True
            self.process.join(PATIENCE)
            return Lost(_ending(self.process.exitcode))
        assert isinstance(answer, MeasuredBatch | Lost)
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.join(PATIENCE)
        self.connection.close()


def _serve(connection: Connection, work: Work, function: Callable[[Batch, Work], MeasuredBatch]) -> None:
    """Answer batches until the driver goes away."""
    # Ctrl-C reaches every process of a terminal; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            batch = connection.recv()
            try:
                answer: MeasuredBatch | Lost = function(batch, work)
            except Exception as error:
                answer = fault(error)
            connection.send(answer)


def _end_with_parent() -> None:
    """End this process when the driver is gone, and not after a batch that nobody waits for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _ending(status: int | None) -> str:
    """Return in words how a process ended, from its exit code as `multiprocessing` has it."""
    if status is None or status >= 0:
        return f"its worker ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"its worker was ended by {signal.Signals(-status).name}"
    return f"its worker was ended by signal {-status}"


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back; a process that begins here does so for good, as it may come before `_serve` ignores it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(of_worker: Mapping[str, str]) -> Iterator[None]:
    """Set variables in the environment that a new process inherits."""
    before = {name: os.environ.get(name) for name in of_worker}
    os.environ.update(of_worker)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
