"""What a repair learns from: prompts with the answers that it is to keep or to give back. No labels are needed."""

from __future__ import annotations

from dataclasses import dataclass

from s3lora.evaluate.chat import Prompt


@dataclass(frozen=True, slots=True)
class TargetPair:
    """A prompt, and the answer to be learned or kept."""

    prompt: Prompt
    answer: str


@dataclass(frozen=True, slots=True)
class Targets:
    """The base's own refusals, its own answers to harmless prompts, and the adapter's own answers on its task.

    On the task, references of the user stand in place of the adapter's answers where there are some.
    """

    refusals: tuple[TargetPair, ...]
    harmless: tuple[TargetPair, ...]
    task: tuple[TargetPair, ...]
    notes: tuple[str, ...] = ()
