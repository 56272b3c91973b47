"""The engine for a cluster: Ray Core tasks, one a batch. Ray Data is not used, as it drops rows that fail."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from s3lora.errors import S3LoRAError, printable
from s3lora.fleet.engines.engine import Lost, fault
from s3lora.fleet.results.outcome import MeasuredBatch
from s3lora.fleet.work import Batch, Work, measure
from s3lora.needs import need

#: How often Ray starts a batch again whose node or process it lost, before the driver splits it.
RETRIES = 3
#: Batches a core that wait beside the one that runs, so that none of them waits for the driver.
AHEAD = 1
#: Bytes that a worker may need: what was measured for the largest adapters, and the known contents besides.
MEMORY = 256 * 1024 * 1024
#: Seconds to wait for an answer of a cluster's address.
PATIENCE = 10.0


class ClusterError(S3LoRAError):
    """Ray could not be started, or its cluster could not be reached or was lost."""


class RayEngine:
    """Batches as tasks of one core each; the results come back through Ray's object store, so no disk is shared."""

    def __init__(self, work: Work, address: str | None = None, memory: int = MEMORY) -> None:
        """Connect to the cluster at `address`, or start Ray on this machine.

        `memory` are the bytes that Ray sets aside for a batch, besides one core. Raises ClusterError if there is no
        such cluster, and MissingPackageError without Ray.
        """
        self._ray = need("ray", "fleet")
        self._started = not self._ray.is_initialized()
        if self._started:
            self._connect(address)
        options: dict[str, Any] = {"num_cpus": 1, "max_retries": RETRIES, "memory": memory}
        self._measure = self._ray.remote(measure).options(**options)
        self._work = self._ray.put(work)
        self._running: dict[Any, Batch] = {}
        self._cores = 0

    def room(self) -> bool:
        """Return whether some core would have no batch waiting; nodes that have joined count at once."""
        if not self._running or len(self._running) >= self._most():
            with self._losing():
                self._cores = int(self._ray.cluster_resources().get("CPU", 0))
        return len(self._running) < self._most()

    def submit(self, batch: Batch) -> None:
        """Hand the batch to Ray."""
        with self._losing():
            self._running[self._measure.remote(batch, self._work)] = batch

    def wait(self, seconds: float) -> Sequence[tuple[Batch, MeasuredBatch | Lost]]:
        """Return the batches that have ended."""
        with self._losing():
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
            more, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            return [(self._running.pop(reference), self._result(reference)) for reference in {*done, *more}]

    def close(self) -> None:
        """Stop what runs, and Ray itself if this engine started it."""
        with contextlib.suppress(Exception):
            for reference in self._running:
                self._ray.cancel(reference, force=True)
        if self._started:
            self._ray.shutdown()

    def _most(self) -> int:
        return max(1, self._cores) * (1 + AHEAD)

    def _result(self, reference: Any) -> MeasuredBatch | Lost:
        errors = self._ray.exceptions
        try:
            result = self._ray.get(reference)
        except errors.RayTaskError as error:
            return fault(error.cause)
        except errors.RayError as error:
            return Lost(f"its Ray worker was lost ({printable(type(error).__name__)})")
        assert isinstance(result, MeasuredBatch)
        return result

    def _connect(self, address: str | None) -> None:
        try:
            if address is not None:
                _knock(address)
            with _quiet():
                self._ray.init(
                    address=address,
                    include_dashboard=False if address is None else None,
                    log_to_driver=False,
                    configure_logging=False,
                )
        except Exception as error:  # for a node that is slow to start, Ray raises nothing more special
            where = "this machine" if address is None else printable(address)
            fix = "start it with: ray start --head" if address is not None else None
            raise ClusterError(f"Ray cannot be reached at {where}: {printable(error)}", fix=fix) from None

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """Turn a cluster that has gone away into one sentence."""
        try:
            yield
        except (self._ray.exceptions.RaySystemError, ConnectionError) as error:
            fix = "start the cluster and run the same command again: what is done stays done"
            raise ClusterError(f"the Ray cluster was lost: {printable(error)}", fix=fix) from None


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT, where Ray itself would wait for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's advice about its own settings off standard error."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
