"""An adapter in batches of modules of one shape, each measured as soon as its tensors are in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from s3lora.adapter.digest import Source
from s3lora.adapter.factors import Shape
from s3lora.adapter.inventory.values import TensorValues
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.stream import Stream

#: A batch has so many parameters, or modules: what Python takes for a call, about 1 ms, is paid for all of them.
TOGETHER, MODULES = 1 << 21, 512
#: Parameters that wait for others of their shape, at most: adapters may have modules of many shapes.
WAITING = 1 << 23
#: Below this many parameters a second thread costs more than it gains: the interpreter's lock changes hands too often.
SMALL = 64_000_000
MAX_WORKERS = 8

Result = TypeVar("Result")
ModuleBatch = list[LoraModule]


def in_batches(
    adapter: Adapter,
    measure: Callable[[ModuleBatch], list[Result]],
    count: Callable[[int], None] | None = None,
    *,
    hashed: bool = True,
) -> tuple[list[Result], Source, dict[str, TensorValues]]:
    """Return what `measure` finds of each module, in the order of the model.

    And the source with its digests, and what is in every tensor of its files, by name.

    Parameters:
        adapter: an opened adapter.
        measure: takes modules of one shape and rank, and returns one result for each.
        count: called with the number of modules done, from the calling thread.
        hashed: whether the source shall have the digests of the weights.

    Raises what `measure` raises, of the first batch that fails in the order of the file, and AdapterFileError where a
    file cannot be read.
    """
    found: dict[str, Result] = {}
    # One BLAS thread a call and one batch a worker: two spinning BLAS threads on busy cores cost a factor of ten.
    workers = _workers(adapter)
    with _blas().limit(limits=1, user_api="blas"), Stream(adapter, hashed=hashed, aside=workers > 1) as stream:
        for batch, results in _mapped(_batches(stream), measure, workers):
            for module, result in zip(batch, results, strict=True):
                found[module.path] = result
                stream.done(module)
                if count is not None:
                    count(len(found))
        return [found[module.path] for module in adapter.modules], stream.source(), stream.values


@cache
def _blas() -> ThreadpoolController:
    """Find the libraries of this process once, NumPy's among them: that takes as long as a small adapter."""
    return ThreadpoolController()


def _batches(stream: Stream) -> Iterator[ModuleBatch]:
    waiting: dict[tuple[Shape, ...], ModuleBatch] = {}
    total = 0
    for module in stream:
        pieces = module.pieces
        batch = waiting.setdefault(pieces, [])
        batch.append(module)
        total += _numbers(pieces)
        if len(batch) < MODULES and len(batch) * _numbers(pieces) < TOGETHER and total < WAITING:
            continue
        if total >= WAITING:
            pieces = max(waiting, key=lambda one: len(waiting[one]) * _numbers(one))
        batch = waiting.pop(pieces)
        total -= len(batch) * _numbers(pieces)
        yield batch
    yield from waiting.values()


def _numbers(pieces: tuple[Shape, ...]) -> int:
    """Return how many numbers the factors of a module have, as matrices."""
    return sum(rank * (m + n) for m, n, rank in pieces)


def _mapped(
    batches: Iterator[ModuleBatch], measure: Callable[[ModuleBatch], list[Result]], workers: int
) -> Iterator[tuple[ModuleBatch, list[Result]]]:
    """Yield each batch with its results, in order; with several workers, some batches ahead."""
    if workers == 1:
        for batch in batches:
            yield batch, measure(batch)
        return
    pool = ThreadPoolExecutor(workers)
    ahead: deque[tuple[ModuleBatch, Future[list[Result]]]] = deque()
    try:
        for batch in batches:
            ahead.append((batch, pool.submit(measure, batch)))
            if len(ahead) > 2 * workers:
                done, future = ahead.popleft()
                yield done, future.result()
        for done, future in ahead:
            yield done, future.result()
    except BaseException as error:
        # One robust fit may need hours, which an interruption must not wait for; see `__main__`.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()


def _workers(adapter: Adapter) -> int:
    if sum(_numbers(module.pieces) for module in adapter.modules) < SMALL:
        return 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, MAX_WORKERS))
