"""What a suite is: prompts with a way to score the answers."""

from __future__ import annotations

from typing import Protocol

from s3lora.evaluate.chat import ChatModel
from s3lora.evaluate.results import SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore
from s3lora.measure.scan import Progress


class Suite(Protocol):
    """Prompts or tasks, and the measures on the answers; the same for every variant."""

    @property
    def info(self) -> SuiteInfo:
        """Return measures, data and judge, for the report."""
        ...

    def run(self, model: ChatModel, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        """Let the model answer everything (what the store has is not asked again) and score it."""
        ...

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        """Return what a reader of this outcome must be told."""
        ...
