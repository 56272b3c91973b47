"""Suites without an answer: how likely the reference answers are, in nats a token, without generating anything."""

from __future__ import annotations

from dataclasses import dataclass

from s3lora.errors import UsageError
from s3lora.evaluate.chat import ChatModel, Prompt
from s3lora.evaluate.data.draws import DataItem, cluster_names
from s3lora.evaluate.items import clustered
from s3lora.evaluate.losses import reference_losses
from s3lora.evaluate.maths.problems import ProblemSet
from s3lora.evaluate.planning.tasks import TaskSet
from s3lora.evaluate.references import ReferenceSet
from s3lora.evaluate.results import Data, Measure, SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore
from s3lora.measure.scan import Progress

PLANNING, MATHS, CODE = "planning-loss", "maths-loss", "code-loss"


@dataclass(frozen=True, slots=True)
class LossSuite:
    """Cross-entropy of reference answers a token: smooth, paired, and a small part of the time of generating.

    `of` says in a few words what the references are, and `instead` what to do where a loss cannot be measured. `ids`
    name what each pair belongs to; `cut` has the places of references that were cut off.
    """

    name: str
    of: str
    data: Data
    pairs: tuple[tuple[Prompt, str], ...]
    instead: str
    notes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    cut: frozenset[int] = frozenset()

    @property
    def info(self) -> SuiteInfo:
        """Return the measure and the data, for the report."""
        measure = Measure(
            "loss", "mean", "lower", f"cross-entropy of the {self.of}", unit="nats a token", role="utility"
        )
        note = f"a loss tells how surprised the model is by the {self.of}, not whether it writes any"
        return SuiteInfo(
            self.name, (measure,), (self.data,), "no judge: the model's own likelihood", (*self.notes, note)
        )

    def run(self, model: ChatModel, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        """Compute the loss of every reference."""
        why = f"there are no {self.of}"
        if self.pairs:
            column = reference_losses(
                model, [prompt for prompt, _ in self.pairs], [text for _, text in self.pairs], store, self.cut
            )
            if column is not None:
                if progress is not None:
                    progress(1, 1)
                return SuiteOutcome({"loss": clustered(column, self._clusters())})
            why = "a server does not tell the loss of a given text"
        raise UsageError(f"{self.name} cannot be measured: {why}", fix=self.instead)

    def _clusters(self) -> list[str]:
        ids = self.ids or ("",) * len(self.pairs)
        return cluster_names([DataItem(prompt.digest, id) for (prompt, _), id in zip(self.pairs, ids, strict=True)])

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        """Tell of references without a loss."""
        column = outcome.columns["loss"]
        none = sum(value is None for value in column.values)
        what = f"{none} of {len(column.values)} {self.of} of {self.data.name} have no finite loss and are left out"
        return (what,) if none else ()


def plan_losses(tasks: TaskSet) -> LossSuite:
    """Return the suite of the reference plans."""
    data = Data(tasks.name, len(tasks), tasks.sha256, tasks.built_in)
    pairs = tuple((task.prompt, task.plan) for task in tasks.tasks if task.plan)
    ids = tuple(task.id for task in tasks.tasks if task.plan)
    return LossSuite(PLANNING, "reference plans", data, pairs, "use the suite planning instead", tasks.notes, ids)


def working_losses(problems: ProblemSet) -> LossSuite:
    """Return the suite of the worked answers to word problems, such as those of GSM8K."""
    data = Data(problems.name, len(problems), problems.sha256, problems.built_in)
    pairs = tuple((problem.prompt, problem.worked) for problem in problems.problems if problem.worked)
    ids = tuple(problem.id for problem in problems.problems if problem.worked)
    return LossSuite(MATHS, "worked answers", data, pairs, "use the suite maths instead", problems.notes, ids)


def code_losses(tasks: ReferenceSet) -> LossSuite:
    """Return the suite of solutions of programming tasks, such as those of HumanEval. No code is run."""
    data = Data(tasks.name, len(tasks), tasks.sha256)
    pairs = tuple((example.prompt, example.worked or example.references[0]) for example in tasks.examples)
    ids = tuple(example.id for example in tasks.examples)
    return LossSuite(
        CODE, "reference solutions", data, pairs, "measure it on a model in this process", tasks.notes, ids
    )
