"""What a repair learns from, tunes on and is tested on: three parts of three kinds of prompts, disjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.prompts import PromptSet
from s3lora.evaluate.results import Data


@dataclass(frozen=True, slots=True)
class TaskPrompts:
    """Prompts of what the adapter was trained for; `references` are answers to them, empty where there are none."""

    name: str
    prompts: tuple[Prompt, ...]
    references: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    built_in: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.prompts)

    @property
    def data(self) -> Data:
        """Return name, number and digest."""
        raise NotImplementedError

    def subset(self, positions: Sequence[int]) -> TaskPrompts:
        """Return the prompts at these positions."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RepairPart:
    """One part of the data."""

    harmful: PromptSet
    harmless: PromptSet
    task: TaskPrompts


@dataclass(frozen=True, slots=True)
class RepairData:
    """The three parts, which share no prompt and no identifier; and what the acceptance card may ask besides.

    `fresh` are harmful prompts of another source, `second` prompts of another task.
    """

    learning: RepairPart
    tuning: RepairPart
    test: RepairPart
    fresh: PromptSet | None = None
    second: TaskPrompts | None = None
    notes: tuple[str, ...] = ()
