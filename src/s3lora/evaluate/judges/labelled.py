"""Answers that people have labelled: refused, answered, or refused in part."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from s3lora.errors import printable
from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.data.choice import listed
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.rows import DataSource, read_rows

AnswerLabel = Literal["refusal", "answer", "partial"]
#: Columns in order of preference.
ANSWER_FIELDS = ("answer", "response", "completion", "generation", "output", "opening")
LABEL_FIELDS = ("label", "people", "human", "annotation", "final_label")
PROMPT_FIELDS = ("prompt", "goal", "question", "behavior", "forbidden_prompt", "test_case")
#: What published labels are called, in small letters, with spaces and hyphens as underscores.
VALUES: dict[AnswerLabel, tuple[str, ...]] = {
    "refusal": ("refusal", "refused", "full_refusal", "2_full_refusal"),
    "answer": ("answer", "answered", "compliance", "complied", "full_compliance", "1_full_compliance", "harmful"),
    "partial": ("partial", "partial_refusal", "3_partial_refusal"),
}
MAX_ANSWERS = 100_000
MAX_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """An answer with what people call it; `model` wrote it, `prompt` is what it answers, each empty where unknown."""

    text: str
    label: AnswerLabel
    model: str = ""
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Labelled answers in the order of their source."""

    name: str
    answers: tuple[LabelledAnswer, ...]

    @property
    def sha256(self) -> str:
        """Return a digest of the answers and their labels."""
        return digest_of([[one.model, one.prompt, one.text, one.label] for one in self.answers])


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNames:
    """How a file calls its columns and labels, beside what is known: each value of `values` is one label."""

    answer: str | None = None
    label: str | None = None
    values: Mapping[str, AnswerLabel] = field(default_factory=dict)

    def label_of(self, value: object) -> AnswerLabel | None:
        """Return what a cell says; None where it says none of the known words."""
        text = str(value).strip()
        if text in self.values:
            return self.values[text]
        plain = text.casefold().replace(" ", "_").replace("-", "_")
        return next((label for label, words in VALUES.items() if plain in words), None)


def read_labelled(path: str | Path, names: LabelNames | None = None) -> LabelledSet:
    """Read a table (CSV, TSV, JSON, JSON lines, parquet, each also in gzip) with an answer and a label in each row.

    Raises DataFileError, which names the file and the line, for a row without one of both or with another label.
    """
    names = names or LabelNames()
    rows = read_rows(DataSource(path))
    answers: list[LabelledAnswer] = []
    for line, row in rows:
        if len(answers) == MAX_ANSWERS:
            raise DataFileError(f"holds more than {MAX_ANSWERS:,} answers", file=rows.where, fix="cut it")
        answers.append(_answer(line, row, names, rows.where))
    if not answers:
        raise DataFileError("holds no answers", file=rows.where)
    return LabelledSet(rows.name, tuple(answers))


def _answer(line: str, row: object, names: LabelNames, where: object) -> LabelledAnswer:
    if not isinstance(row, Mapping):
        fix = "give a table with a column answer and a column label"
        raise DataFileError(f"{line} is no row of a table", file=where, fix=fix)
    text = row[_column(row, names.answer, ANSWER_FIELDS, "answer", where)]
    value = row[_column(row, names.label, LABEL_FIELDS, "label", where)]
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise DataFileError(
            f"{line} has an answer that is no text of at most {MAX_CHARACTERS:,} characters", file=where
        )
    label = names.label_of(value)
    if label is None:
        fix = "say what it means: --refused VALUE, --answered VALUE or --partial VALUE"
        raise DataFileError(f"{line} has the label {printable(value, 40)}, which is not known", file=where, fix=fix)
    prompt = next((row[name] for name in PROMPT_FIELDS if isinstance(row.get(name), str)), "")
    return LabelledAnswer(text, label, printable(row.get("model") or "", 80), prompt)


def _column(row: Mapping[str, Any], given: str | None, known: Collection[str], what: str, where: object) -> str:
    names = known if given is None else (given.strip().lower(),)
    found = next((name for name in names if name in row), None)
    if found is None:
        missing = f"has no column {printable(given)}" if given else f"has no column that holds the {what}"
        raise DataFileError(f"{missing}; it has {listed(row)}", file=where, fix=f"name it: --{what}-field NAME")
    return found
