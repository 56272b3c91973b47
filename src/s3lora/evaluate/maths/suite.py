"""The maths suite: does the model come to the right number, and how likely is the worked answer?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s3lora.evaluate.answers.unknown import known_column, unknown_counts, unknown_note
from s3lora.evaluate.chat import ChatModel, Decoding, Generation
from s3lora.evaluate.data.draws import cluster_names
from s3lora.evaluate.items import clustered
from s3lora.evaluate.losses import reference_losses
from s3lora.evaluate.maths.numbers import final_number
from s3lora.evaluate.maths.problems import ProblemSet, WordProblem
from s3lora.evaluate.results import Data, Measure, SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore, generations
from s3lora.measure.scan import Progress

NAME = "maths"
#: Room for the working; most worked answers of GSM8K are shorter.
DECODING = Decoding(max_new_tokens=256)
#: Below this, a set of problems is called small in the report.
FEW = 100
LOSS = Measure("loss", "mean", "lower", "cross-entropy of the worked answer", "nats/token")


@dataclass(frozen=True, slots=True)
class MathsSuite:
    """Share of problems whose answer ends in the right number, and the loss of the worked answers where there are."""

    data: ProblemSet
    decoding: Decoding = DECODING
    losses: bool = True

    @property
    def info(self) -> SuiteInfo:
        """Return measures, data and judge, for the report."""
        data = self.data
        note = "; ".join(word for word, holds in (("generated", data.built_in), ("few", len(data) < FEW)) if holds)
        judge = "the number after ####, in a box, after `answer is`, else the last one, equal to the right one"
        measures = (
            Measure("exact_match", "rate", "higher", "answers that come to the right number", role="utility"),
            Measure("tokens", "mean", "neither", "tokens of an answer"),
            *((LOSS,) if self._worked else ()),
        )
        described = Data(data.name, len(data), data.sha256, data.built_in, note)
        notes = (f"{data.name}: {len(data)} problems are few: mind the intervals",) if len(data) < FEW else ()
        return SuiteInfo(NAME, measures, (described,), judge, (*data.notes, *notes))

    def run(self, model: ChatModel, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        """Let the model solve everything (what the store has is not asked again) and compare the numbers."""
        problems = self.data.problems
        prompts = [problem.prompt for problem in problems]
        answers = generations(model, prompts, self.decoding, store, progress)
        known = [not answer.unknown for answer in answers]
        numbers = [final_number(answer.text) for answer in answers]
        columns = {
            "exact_match": known_column(
                known, [float(number == problem.answer) for number, problem in zip(numbers, problems, strict=True)]
            ),
            "tokens": known_column(known, [float(answer.tokens) for answer in answers]),
        }
        if self._worked:
            loss = reference_losses(model, prompts, [problem.worked for problem in problems], store)
            columns |= {} if loss is None else {"loss": loss}
        counts = {
            "without_number": sum(number is None and there for number, there in zip(numbers, known, strict=True)),
            "unfinished": sum(not answer.finished and not answer.unknown for answer in answers),
            **unknown_counts([answer.unknown for answer in answers]),
        }
        records = tuple(map(_record, problems, answers, columns["exact_match"].values))
        names = cluster_names(self.data.items)
        return SuiteOutcome({name: clustered(column, names) for name, column in columns.items()}, counts, records)

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        """Return what a reader of this outcome must be told: answers without a number, or cut off."""
        n, counts = len(self.data), outcome.counts
        found = unknown_note(outcome, self.data.name, "", "exact_match", self.decoding.max_new_tokens)
        if none := counts.get("without_number", 0):
            found.append(f"{none} of {n} answers to {self.data.name} hold no number; they count as wrong")
        if cut := counts.get("unfinished", 0):
            found.append(
                f"{cut} of {n} answers to {self.data.name} were cut off at {self.decoding.max_new_tokens} tokens"
            )
        return tuple(found)

    @property
    def _worked(self) -> bool:
        return self.losses and all(problem.worked for problem in self.data.problems)


def _record(problem: WordProblem, answer: Generation, right: float | None) -> Mapping[str, object]:
    return {
        "id": problem.id,
        "prompt": problem.prompt.digest,
        "answer": answer.digest,
        "exact_match": right,
        "tokens": answer.tokens,
        "finished": answer.finished,
        "unknown": answer.unknown,
    }
