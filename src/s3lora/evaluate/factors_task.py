"""What a sweep measures besides prunings: the adapter with new factors, by a method and at a strength."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from s3lora.adapter.model import Adapter
from s3lora.evaluate.attach import Attached
from s3lora.evaluate.local import LocalModel
from s3lora.rewrite.factors import NewFactors


@dataclass(frozen=True)
class FactorsTask:
    """The new factors of a `method` at a `strength` in (0, 1].

    `control` marks a method that carries no information. `frobenius_energy` is the share of Σ‖ΔW‖² that is gone,
    below 0 where the update has grown. `notes` are what a user should know.
    """

    method: str
    strength: float
    control: bool
    factors: NewFactors
    frobenius_energy: float
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name in sentences."""
        return f"{self.method} at strength {self.strength:g}"


class FactorsTasks(Protocol):
    """Makes so many tasks as its length says; `s3lora.repair.sweeping.repair_tasks` has those of a repair."""

    def __len__(self) -> int:
        """Return how many tasks there will be."""
        ...

    def __call__(
        self, adapter: Adapter, model: LocalModel, attached: Attached, tell: Callable[[str], None]
    ) -> Iterator[FactorsTask]:
        """Check at once what can be checked, and return the tasks, each made when it is asked for.

        Parameters:
            adapter: stays open until the last task is measured.
            model: the model, which may be switched to any state meanwhile.
            attached: the adapter in it.
            tell: told what is being done.
        """
        ...
