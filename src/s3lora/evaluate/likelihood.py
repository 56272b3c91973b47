"""The planning-loss suite: how likely the reference plans are, without generating anything."""

from __future__ import annotations

from dataclasses import dataclass

from s3lora.errors import UsageError
from s3lora.evaluate.chat import ChatModel
from s3lora.evaluate.items import clustered
from s3lora.evaluate.losses import reference_losses
from s3lora.evaluate.planning.tasks import TaskSet
from s3lora.evaluate.results import Data, Measure, SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore
from s3lora.measure.scan import Progress

NAME = "planning-loss"


@dataclass(frozen=True, slots=True)
class PlanLossSuite:
    """Cross-entropy of the reference plans a token: smooth, paired, and a small part of the time of generating."""

    tasks: TaskSet

    @property
    def info(self) -> SuiteInfo:
        """Return the measure and the data, for the report."""
        measure = Measure(
            "loss", "mean", "lower", "cross-entropy of the reference plans", unit="nats a token", role="utility"
        )
        data = Data(self.tasks.name, len(self.tasks), self.tasks.sha256, self.tasks.built_in)
        note = "a loss tells how the model would have to be surprised by right plans, not whether it writes any"
        return SuiteInfo(NAME, (measure,), (data,), "no judge: the model's own likelihood", (note,))

    def run(self, model: ChatModel, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        """Compute the loss of every plan."""
        tasks = [task for task in self.tasks.tasks if task.plan]
        column = reference_losses(model, [task.prompt for task in tasks], [task.plan for task in tasks], store)
        if column is None or not tasks:
            why = (
                "the tasks have no reference plans" if not tasks else "a server does not tell the loss of a given text"
            )
            raise UsageError(f"{NAME} cannot be measured: {why}", fix="use the suite planning instead")
        if progress is not None:
            progress(1, 1)
        return SuiteOutcome({"loss": clustered(column, tasks)})

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        """Return nothing: there is no answer that could be odd."""
        return ()
