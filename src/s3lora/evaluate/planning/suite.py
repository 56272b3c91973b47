"""The planning suite: the model plans, its plans are carried out, and the answers are compared with the right ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from s3lora.evaluate.answers.unknown import known_column, unknown_note
from s3lora.evaluate.chat import ChatModel, Decoding
from s3lora.evaluate.data.draws import cluster_names
from s3lora.evaluate.items import clustered
from s3lora.evaluate.losses import reference_losses
from s3lora.evaluate.planning.lookup import Lookup
from s3lora.evaluate.planning.measures import counts, measures, record, score
from s3lora.evaluate.planning.plan import ToolPlan, read_plan
from s3lora.evaluate.planning.rewoo import PlanTrace, execute, llm_prompt, short, solver_prompt
from s3lora.evaluate.planning.tasks import TaskSet
from s3lora.evaluate.results import Data, Measure, MeasureColumn, SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore, generations
from s3lora.measure.scan import Progress

NAME = "planning"
#: Longer than every reference plan of the built-in tasks in the tokens of a small vocabulary.
DECODING = Decoding(max_new_tokens=192)
#: For answers of the LLM tool and of the solver.
SHORT = Decoding(max_new_tokens=32)
#: Below this, a set of tasks is called small in the report.
FEW = 100
#: Tasks with documents of their own whose index is kept.
INDEXED = 64


@dataclass(frozen=True, slots=True)
class PlanningSuite:
    """Share of well-formed plans, and of right answers from carrying them out.

    `helper` is the model behind the LLM tool and the solver, the one that is measured unless given: ReWOO tunes the
    planner only. With `losses` the loss of the reference plans is computed besides, which takes time of its own.
    """

    tasks: TaskSet
    decoding: Decoding = DECODING
    helper: ChatModel | None = None
    losses: bool = True

    @property
    def info(self) -> SuiteInfo:
        """Return measures, data and judge, for the report."""
        tasks = self.tasks
        note = "; ".join(word for word, holds in (("generated", tasks.built_in), ("few", len(tasks) < FEW)) if holds)
        data = Data(tasks.name, len(tasks), tasks.sha256, tasks.built_in, note)
        judge = "exact match and token F1 with the normalisation of SQuAD, but minus signs count"
        return SuiteInfo(NAME, self._measures(), (data,), judge, tuple(self._notes()))

    def run(self, model: ChatModel, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        """Let the model plan (what the store has is not asked again), carry the plans out and score the answers."""
        tasks, helper = self.tasks.tasks, self.helper or model
        prompts = [task.prompt for task in tasks]
        written = generations(model, prompts, self.decoding, store, self._part(progress, 0))
        plans = [read_plan(answer.text, self.tasks.tools) for answer in written]

        def ask(questions: Sequence[str]) -> list[str | None]:
            answers = generations(helper, [llm_prompt(question) for question in questions], SHORT, store)
            return [None if answer.unknown else answer.text for answer in answers]

        traces = execute(plans, self._lookup(), ask)
        answers = self._answers(plans, traces, helper, store, self._part(progress, len(tasks)))
        # Neither a plan nor a solver's answer that nobody knows is a wrong one.
        planned = [not answer.unknown for answer in written]
        solved = [known and answer is not None for known, answer in zip(planned, answers, strict=True)]
        scores = [
            score(answer, task) if known and answer is not None else (None, None)
            for known, answer, task in zip(planned, answers, tasks, strict=True)
        ]
        columns = {
            "well_formed": known_column(planned, [float(plan.well_formed) for plan in plans]),
            "exact_match": known_column(solved, [exact for exact, _ in scores]),
            "token_f1": known_column(solved, [f1 for _, f1 in scores]),
            "steps": known_column(planned, [float(len(plan.steps)) for plan in plans]),
            "tokens": known_column(planned, [float(answer.tokens) for answer in written]),
            "loss": self._loss(model, store),
        }
        names = cluster_names(self.tasks.items)
        known = {m.name: clustered(column, names) for m in self._measures() if (column := columns[m.name]) is not None}
        records = tuple(map(record, tasks, written, plans, traces, scores))
        unsolved = sum(now and not then for now, then in zip(planned, solved, strict=True))
        counted = counts(written, plans, traces) | ({"unknown_solved": unsolved} if unsolved else {})
        return SuiteOutcome(known, counted, records)

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        """Return what a reader of this outcome must be told: plans that were cut off, steps that gave nothing."""
        notes = unknown_note(outcome, self.tasks.name, "", "well_formed", self.decoding.max_new_tokens)
        if unsolved := outcome.counts.get("unknown_solved", 0):
            notes.append(f"{unsolved} of {len(self.tasks)} answers from plan and evidence are unknown, and left out")
        if cut := outcome.counts.get("unfinished", 0):
            notes.append(f"{cut} of {len(self.tasks)} plans were cut off at {self.decoding.max_new_tokens} tokens")
        if failed := outcome.counts.get("failed_steps", 0):
            notes.append(f"{failed} of {outcome.counts['steps']} steps of the plans gave no result")
        return tuple(notes)

    @property
    def _helper_name(self) -> str:
        return getattr(self.helper, "name", "another model") if self.helper else "the model itself"

    def _measures(self) -> tuple[Measure, ...]:
        by = "the last step" if self.tasks.answer_by == "last" else f"{self._helper_name} from plan and evidence"
        all_measures = measures(self.tasks.tasks, self.tasks.answer_by, by)
        return all_measures if self.losses else tuple(measure for measure in all_measures if measure.name != "loss")

    def _notes(self) -> Iterator[str]:
        tasks = self.tasks
        yield from tasks.notes
        if len(tasks) < FEW:
            yield f"{tasks.name}: {len(tasks)} tasks are few"
        if tasks.built_in:
            yield (
                f"{tasks.name}: questions from three templates about invented facts; a model that was trained on such "
                "questions may be no planner of others"
            )
        if not all(task.documents for task in tasks.tasks) and not tasks.documents:
            yield "without documents every step with Lookup fails: give a folder of documents"
        yield f"steps with LLM are answered by {self._helper_name}"
        yield "a plan with faults is carried out as far as it can be read; a step that fails gives no result"

    def _part(self, progress: Progress | None, before: int) -> Progress | None:
        """Return a progress of plans or answers, told as that of both."""
        total = len(self.tasks) * (2 if self.tasks.answer_by == "model" else 1)
        return None if progress is None else lambda done, _: progress(before + done, total)

    def _lookup(self) -> Callable[[int], Lookup]:
        shared = Lookup(self.tasks.documents)

        @lru_cache(maxsize=INDEXED)
        def lookup(i: int) -> Lookup:
            own = self.tasks.tasks[i].documents
            return Lookup(own) if own else shared

        return lookup

    def _answers(
        self,
        plans: Sequence[ToolPlan],
        traces: Sequence[PlanTrace],
        helper: ChatModel,
        store: AnswerStore | None,
        progress: Progress | None,
    ) -> list[str | None]:
        """Return the answer to each task, None where it, or a step that it rests on, is unknown."""
        if self.tasks.answer_by == "last":
            return [None if trace.unknown else trace.last for trace in traces]
        prompts = [
            solver_prompt(task.question, plan, trace)
            for task, plan, trace in zip(self.tasks.tasks, plans, traces, strict=True)
        ]
        solved = generations(helper, prompts, SHORT, store, progress)
        known = (not (answer.unknown or trace.unknown) for answer, trace in zip(solved, traces, strict=True))
        return [short(answer.text) if told else None for answer, told in zip(solved, known, strict=True)]

    def _loss(self, model: ChatModel, store: AnswerStore | None) -> MeasureColumn | None:
        """Return the loss of the reference plans, None for tasks without one or a model that cannot tell."""
        tasks = self.tasks.tasks
        there = [i for i, task in enumerate(tasks) if task.plan]
        if not there or not self.losses:
            return None
        losses = reference_losses(model, [tasks[i].prompt for i in there], [tasks[i].plan for i in there], store)
        if losses is None or len(there) == len(tasks):
            return losses
        values: list[float | None] = [None] * len(tasks)
        weights = [0.0] * len(tasks)
        for i, value, weight in zip(there, losses.values, losses.weights or (1.0,) * len(there), strict=True):
            values[i], weights[i] = value, weight
        return MeasureColumn(tuple(values), tuple(weights))
