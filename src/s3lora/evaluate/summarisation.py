"""The summarisation suite: how close are the answers to references, and how likely are the references?

It serves any prompts with reference answers; summaries are what comes with s3lora. The prompts are harmless, so the
answers are kept as text and scored anew each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from s3lora.evaluate.answers.unknown import unknown_counts, unknown_note
from s3lora.evaluate.chat import ChatModel, Decoding, Generation
from s3lora.evaluate.data.draws import cluster_names
from s3lora.evaluate.items import clustered
from s3lora.evaluate.losses import reference_losses
from s3lora.evaluate.references import Example, ReferenceSet
from s3lora.evaluate.results import Data, Measure, MeasureColumn, SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore, generations
from s3lora.evaluate.textscores import exact_match, meteor, meteor_kind, need_packages, rouge, token_f1
from s3lora.measure.scan import Progress

NAME = "summarisation"
#: Longer than a summary of a few sentences.
DECODING = Decoding(max_new_tokens=96)
#: Below this, a set of references is called small in the report.
FEW = 100
#: What ROUGE can count.
ROUGE_WORD = re.compile("[a-zA-Z0-9]")

TextScores = dict[str, float]


@dataclass(frozen=True, slots=True)
class SummarisationSuite:
    """ROUGE, METEOR, exact match and token F1 of the answers, and the loss of the references.

    Raises MissingPackageError when made without the packages that score: before a model has worked for hours.
    """

    data: ReferenceSet
    decoding: Decoding = DECODING

    def __post_init__(self) -> None:
        """Look for the packages."""
        need_packages()

    @property
    def info(self) -> SuiteInfo:
        """Return measures, data and scorers, for the report."""
        data = self.data
        licence = f"licence: {data.licence}" if data.licence else ""
        note = "; ".join(text for text in (data.note, licence) if text)
        judge = (
            f"rouge-score {version('rouge-score')} with Porter stems; METEOR of nltk {version('nltk')}, "
            f"{_meteor_about()}; exact match and token F1 with the normalisation of SQuAD"
        )
        described = Data(data.name, len(data), data.sha256, data.built_in, note)
        return SuiteInfo(NAME, _measures(), (described,), judge, tuple(self._notes()))

    def run(self, model: ChatModel, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        """Let the model answer everything (what the store has is not asked again) and score it."""
        examples = self.data.examples
        prompts = [example.prompt for example in examples]
        answers = generations(model, prompts, self.decoding, store, progress)
        wordnet = meteor_kind() == "full"
        scores = [
            None if answer.unknown else _scores(answer, example, wordnet)
            for answer, example in zip(answers, examples, strict=True)
        ]
        loss = reference_losses(model, prompts, [example.references[0] for example in examples], store)
        unknown = scores.count(None)
        columns = {
            m.name: MeasureColumn(tuple(None if s is None else s[m.name] for s in scores), unknown=unknown)
            for m in _measures()
            if m.name != "loss"
        }
        counts = {
            "empty": sum(not answer.text.strip() and not answer.unknown for answer in answers),
            "unfinished": sum(not answer.finished and not answer.unknown for answer in answers),
            **unknown_counts([answer.unknown for answer in answers]),
        }
        if loss is not None:
            columns["loss"] = loss
            counts["no_loss"] = sum(value is None for value in loss.values)
        records = tuple(map(_record, examples, answers, scores))
        names = cluster_names(self.data.items)
        columns = {name: clustered(column, names) for name, column in columns.items()}
        return SuiteOutcome(columns, counts, records)

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        """Return what a reader of this outcome must be told: answers empty or cut off, losses that are none."""
        n, counts = len(self.data), outcome.counts
        found = unknown_note(outcome, self.data.name, "", "rougeL", self.decoding.max_new_tokens)
        if empty := counts.get("empty", 0):
            found.append(f"{empty} of {n} answers to {self.data.name} were empty; they score 0")
        if cut := counts.get("unfinished", 0):
            found.append(
                f"{cut} of {n} answers to {self.data.name} were cut off at {self.decoding.max_new_tokens} tokens"
            )
        if none := counts.get("no_loss", 0):
            why = "have no finite loss, or no room in the model's context, and are left out"
            found.append(f"{none} of {n} references of {self.data.name} {why}")
        return tuple(found)

    def _notes(self) -> Iterator[str]:
        data = self.data
        yield from data.notes
        if data.built_in or len(data) < FEW:
            which = "built-in references" if data.built_in else "references"
            yield f"{data.name}: {len(data)} {which} are few: mind the intervals"
        if meteor_kind() != "full":
            yield "METEOR has no synonyms here, since nltk finds no WordNet: compare it with no full METEOR"
        uncounted = sum(not any(map(ROUGE_WORD.search, example.references)) for example in data.examples)
        if uncounted:
            yield f"ROUGE knows the letters a to z and digits only: it is 0 for {uncounted} of {len(data)} references"
        if any(len(example.references) > 1 for example in data.examples):
            yield "where a prompt has several references, scores are the best over them, and the loss is of the first"
        yield "exact match is meant for data with short answers: a summary hardly ever equals its reference"


def _measures() -> tuple[Measure, ...]:
    return (
        Measure("rouge1", "mean", "higher", "words shared with the reference, ROUGE-1 F1"),
        Measure("rouge2", "mean", "higher", "pairs of words shared with the reference, ROUGE-2 F1"),
        Measure("rougeL", "mean", "higher", "longest common sequence of words, ROUGE-L F1", role="utility"),
        Measure("meteor", "mean", "higher", f"METEOR, {_meteor_about()}"),
        Measure("exact_match", "rate", "higher", "answers equal to a reference"),
        Measure("token_f1", "mean", "higher", "words shared with the reference, F1 without articles"),
        Measure("tokens", "mean", "neither", "tokens of an answer"),
        Measure("loss", "mean", "lower", "cross-entropy of the first reference", "nats/token"),
    )


def _meteor_about() -> str:
    full = meteor_kind() == "full"
    return "full (with the synonyms of WordNet)" if full else "exact + stem matching only (no WordNet)"


def _scores(answer: Generation, example: Example, wordnet: bool) -> TextScores:
    text, references = answer.text, example.references
    return {
        **rouge(text, references),
        "meteor": meteor(text, references, wordnet),
        # SQuAD's script finds nothing equal to nothing; an empty answer is worth nothing here.
        "exact_match": exact_match(text, references) if text.strip() else 0.0,
        "token_f1": token_f1(text, references) if text.strip() else 0.0,
        "tokens": float(answer.tokens),
    }


def _record(example: Example, answer: Generation, scores: TextScores | None) -> Mapping[str, object]:
    return {
        "id": example.id,
        "prompt": example.prompt.digest,
        "answer": answer.digest,
        **(scores or {}),
        "tokens": answer.tokens,
        "finished": answer.finished,
        "unknown": answer.unknown,
    }
