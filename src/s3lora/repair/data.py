"""What a repair learns from, tunes on and is tested on: three parts of three kinds of prompts, disjoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from s3lora.evaluate.chat import Prompt, digest_of
from s3lora.evaluate.data.draws import DataItem
from s3lora.evaluate.prompts import PromptSet
from s3lora.evaluate.results import Data


@dataclass(frozen=True, slots=True)
class TaskPrompts:
    """Prompts of what the adapter was trained for.

    `references` are answers to them, one each, and `ids` the identifiers of their source, one each; both are empty
    where there are none. Prompts with one identifier are cases of one question.
    """

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
    def sha256(self) -> str:
        """Return a digest of the prompts and references."""
        texts = self.references or [""] * len(self)
        return digest_of([[prompt.as_dicts(), text] for prompt, text in zip(self.prompts, texts, strict=True)])

    @property
    def data(self) -> Data:
        """Return name, number and digest."""
        return Data(self.name, len(self), self.sha256, self.built_in)

    @property
    def items(self) -> list[DataItem]:
        """Return what draws and parts go by."""
        ids = self.ids or [""] * len(self)
        return [DataItem(prompt.digest, own) for prompt, own in zip(self.prompts, ids, strict=True)]

    def subset(self, positions: Iterable[int]) -> TaskPrompts:
        """Return the prompts at these positions, in the order of the source."""
        return self.at(sorted(set(positions)))

    def ordered(self) -> TaskPrompts:
        """Return the same prompts in the order of their digests, which does not depend on the order of the source."""
        texts = self.references or [""] * len(self)
        keys = [(*item, text) for item, text in zip(self.items, texts, strict=True)]
        return self.at(sorted(range(len(self)), key=keys.__getitem__))

    def unanswered(self) -> TaskPrompts:
        """Return the prompts without references: the adapter's own answers then stand for what it learned."""
        return replace(self, references=())

    def at(self, order: Iterable[int]) -> TaskPrompts:
        """Return the prompts at these positions, in this order."""
        chosen = list(order)
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in chosen),
            references=tuple(self.references[i] for i in chosen) if self.references else (),
            ids=tuple(self.ids[i] for i in chosen) if self.ids else (),
        )


@dataclass(frozen=True, slots=True)
class RepairPart:
    """One part of the data."""

    harmful: PromptSet
    harmless: PromptSet
    task: TaskPrompts

    @property
    def data(self) -> tuple[Data, Data, Data]:
        """Return name, number and digest of each kind."""
        harmful, harmless = (
            Data(one.name, len(one), one.sha256, one.built_in) for one in (self.harmful, self.harmless)
        )
        return harmful, harmless, self.task.data


@dataclass(frozen=True, slots=True, repr=False)
class RepairData:
    """The three parts, which share no prompt and no identifier; and what the acceptance card may ask besides.

    `fresh` are harmful prompts of another source, `second` prompts of another task. `notes` say what a user should know
    of how the parts were made.
    """

    learning: RepairPart
    tuning: RepairPart
    test: RepairPart
    fresh: PromptSet | None = None
    second: TaskPrompts | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return how many harmful prompts each part has."""
        parts = zip(("learn", "tune", "test"), (self.learning, self.tuning, self.test), strict=True)
        return (
            f"<RepairData: {', '.join(f'{name} {len(part.harmful.prompts)}' for name, part in parts)} harmful prompts>"
        )

    def unanswered(self) -> RepairData:
        """Return the same parts, whose tasks have no references."""
        parts = (self.learning, self.tuning, self.test)
        learning, tuning, test = (replace(part, task=part.task.unanswered()) for part in parts)
        return replace(self, learning=learning, tuning=tuning, test=test)
