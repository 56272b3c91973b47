"""Prompts with reference answers: texts to summarise, questions with one right answer, and sets of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from s3lora.evaluate.chat import Prompt, digest_of
from s3lora.evaluate.data.choice import EVERY_ROW, RowChoice
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import DataRow
from s3lora.evaluate.data.draws import DataItem, draw
from s3lora.evaluate.data.items import FieldError, checked_text, whole_text
from s3lora.evaluate.data.json_rows import json_rows
from s3lora.evaluate.data.rows import DataSource, RowItem, identifier, read_item, read_rows
from s3lora.evaluate.data.shape import Answers
from s3lora.wording import worded

#: Bytes of a file; rows of a set; characters of a reference; references of a row.
MAX_BYTES = 128 * 2**20
MAX_EXAMPLES = 100_000
MAX_REFERENCE = 20_000
MAX_REFERENCES = 100

#: Where a data set's split is not named: what is measured should not be what others trained on.
SPLITS = ("test", "validation", "train")
FIELDS_FIX = "name the fields prompt and reference, or question and answer, or dialogue and summary"


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and its reference answers, at least one; the identifier is that of the source, or empty.

    `worked` is a whole answer where the source has one that says how it is found: GSM8K's steps, HumanEval's code.
    """

    id: str
    prompt: Prompt
    references: tuple[str, ...]
    worked: str = ""


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """Prompts with references in the order of their source."""

    name: str
    examples: tuple[Example, ...]
    built_in: bool = False
    note: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many prompts there are."""
        return len(self.examples)

    @property
    def sha256(self) -> str:
        """Return a digest of the prompts and references."""
        return digest_of([[example.prompt.as_dicts(), list(example.references)] for example in self.examples])

    @property
    def items(self) -> list[DataItem]:
        """Return what draws and halves go by."""
        return [DataItem(example.prompt.digest, example.id) for example in self.examples]

    def take(self, limit: int | None, seed: int = 0) -> ReferenceSet:
        """Return `limit` examples drawn with the seed, in the order of the source; all of them for None.

        One example of every identifier comes before a second one of any, and a larger draw with the same seed holds the
        smaller one. Raises UsageError for a limit below 1.
        """
        return self.subset(draw(self.items, limit, seed, "prompts"))

    def subset(self, positions: Iterable[int]) -> ReferenceSet:
        """Return the examples at these positions, in the order of the source."""
        return replace(self, examples=tuple(self.examples[i] for i in sorted(set(positions))))


def built_in_references() -> ReferenceSet:
    """Return the 14 short dialogues and 10 passages, each with a summary, that come with s3lora."""
    name = "data/evaluate/summaries.jsonl"
    text = (files("s3lora") / name).read_text(encoding="utf-8")
    examples = _examples(json_rows(text, name, ()), EVERY_ROW, name)
    return ReferenceSet("built-in summaries", examples, True, "written for s3lora; few, short and easy", "Apache-2.0")


def read_references(source: str | Path, choice: RowChoice = EVERY_ROW) -> ReferenceSet:
    """Read a file, or a data set by its name (`owner/name`, `owner/name:configuration:split`).

    Parameters:
        source: CSV, TSV, JSON, JSON lines or parquet, each also in gzip.
        choice: which rows are meant, and which column holds the prompt.

    Raises DataFileError, which names the file and the line, where something is absent, too large or malformed.
    """
    rows = read_rows(DataSource(source, choice, None, MAX_BYTES, SPLITS))
    examples = _examples(rows, choice, rows.where)
    return ReferenceSet(rows.name, examples, notes=tuple(f"{rows.name}: {note}" for note in rows.notes))


def _examples(rows: Iterable[DataRow], choice: RowChoice, where: object) -> tuple[Example, ...]:
    examples: list[Example] = []
    for line, row in rows:
        if len(examples) == MAX_EXAMPLES:
            fix = worded("cut it, or choose: {where}")
            raise DataFileError(f"holds more than {MAX_EXAMPLES:,} prompts", file=where, fix=fix)
        try:
            item = read_item(line, row, choice)
            references, worked = _references(item)
            examples.append(Example(identifier(item, choice.prompt_field), item.prompt, references, worked))
        except FieldError as error:
            raise DataFileError(f"{line} has {error}", file=where, fix=error.fix) from None
    if not examples:
        raise DataFileError("holds no prompts", file=where)
    return tuple(examples)


def _references(item: RowItem) -> tuple[tuple[str, ...], str]:
    """Return the right answers, and the worked one: those of the row's columns, else what ends its chat."""
    found = item.shape.answers(item.fields) if item.shape is not None and item.shape.answers else None
    if item.asked.answer:
        if found is not None:
            problem = "a prompt that does not end with a message of the user"
            raise FieldError(problem, "leave the answer to the reference")
        found = Answers((item.asked.answer,))
    if found is None or not found.references:
        raise FieldError("no reference", FIELDS_FIX)
    if len(found.references) > MAX_REFERENCES:
        raise FieldError(f"more than {MAX_REFERENCES} references")
    texts = [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in found.references]
    references = tuple(dict.fromkeys(checked_text("reference", one, MAX_REFERENCE) for one in texts))
    return references, whole_text("worked answer", found.worked, MAX_REFERENCE)
