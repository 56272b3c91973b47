"""Asynchronous work behind an ordinary iterator."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


async def all_or_none(work: Sequence[Awaitable[None]]) -> None:
    """Run everything at once; where one fails, end the others before raising."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stream(produce: Callable[[Callable[[T], None]], Awaitable[None]]) -> Iterator[T]:
    """Yield what `produce` emits, and raise what it raises; closing the iterator cancels it.

    It runs in an event loop of its own thread, so that it works where the caller has a loop (notebooks), goes on while
    the caller is busy, and is cancelled, not waited for, when the caller is interrupted.
    """
    results: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        try:
            await produce(lambda item: results.put((item,)))
            results.put(None)
        except BaseException as error:
            results.put(error)

    task = loop.create_task(main())

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(task)
            loop.run_until_complete(loop.shutdown_asyncgens())

    thread = threading.Thread(target=run, name="s3lora-endpoint", daemon=True)
    thread.start()
    try:
        while (result := results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result[0]
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join(5)
