"""What an engine is: somewhere to run batches, that says of each what came of it or that its worker was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from s3lora.errors import printable
from s3lora.fleet.results.outcome import MeasuredBatch
from s3lora.fleet.work import Batch


@dataclass(frozen=True, slots=True)
class Lost:
    """A batch without an answer, and why, in words: its worker ended, or the program failed in it (`fault`)."""

    reason: str
    fault: bool = False


def fault(error: BaseException) -> Lost:
    """Return what a failure of the program itself makes of a batch."""
    return Lost(printable(f"internal error ({type(error).__name__}: {error})", 300), fault=True)


class Engine(Protocol):
    """Runs batches in other processes, here or elsewhere.

    An engine tries nothing twice by itself unless it knows that a machine, and not the batch, was the reason: the
    driver decides, and splits a batch whose worker was lost to find the adapter that ends its worker.
    """

    def room(self) -> bool:
        """Return whether a batch that is given now would start soon."""

    def submit(self, batch: Batch) -> None:
        """Start a batch."""

    def wait(self, seconds: float) -> Sequence[tuple[Batch, MeasuredBatch | Lost]]:
        """Return what has ended, none after `seconds` without an end."""

    def close(self) -> None:
        """End every worker at once, whatever it is doing."""
