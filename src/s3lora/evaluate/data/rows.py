"""One way into every input of an evaluation: the rows of a file or data set that are meant, and what each asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from s3lora.evaluate.chat import Message, Prompt
from s3lora.evaluate.data.choice import EVERY_ROW, Fields, RowChoice, chosen_rows, listed
from s3lora.evaluate.data.content import PARQUET, DataFileError, read_content, text_of
from s3lora.evaluate.data.delimited import DataRow, delimited_rows, delimiter_of, is_table, looks_like_table
from s3lora.evaluate.data.hub import data_set_parts, data_set_rows
from s3lora.evaluate.data.items import AskedPrompt, FieldError, asked, checked_text, label
from s3lora.evaluate.data.json_rows import json_rows
from s3lora.evaluate.data.kinds import KindFilter, PromptKind
from s3lora.evaluate.data.parquet import parquet_rows
from s3lora.evaluate.data.shape import DataShape
from s3lora.evaluate.data.shapes import kind_column, known_columns, shape_of
from s3lora.wording import worded

#: What a JSON text starts with, and not a prompt such as "[INST] …".
JSON_START = re.compile(r'\s*(?:\{\s*["}]|\[\s*[\[{"\]])')
JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
TABLE_ENDINGS = (".csv", ".tsv", ".tab")


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where data comes from, and what is wanted of it.

    Parameters:
        given: a file, or the name of a data set: `owner/name`, `owner/name:configuration:split`.
        choice: which rows are meant, and which column holds the prompt.
        kind: of a table that holds harmful and harmless prompts, which are wanted; None for all.
        most: bytes that are read, and that come of them where they are unpacked.
        splits: of a data set whose split is not named, the one that is preferred.
    """

    given: str | Path
    choice: RowChoice = EVERY_ROW
    kind: PromptKind | None = None
    most: int = 64 * 2**20
    splits: tuple[str, ...] = ("train",)


@dataclass(slots=True)
class SourceRows:
    """The rows of a source with where each stands; columns are in lower case. `notes` are complete after the last."""

    source: DataSource
    name: str
    where: object
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[DataRow]:
        """Yield (where it stands, a text or fields); raise DataFileError for what cannot be read or is not there."""
        choice = self.source.choice
        kinds = KindFilter(self.source.kind, choice, self.where, self.notes)
        yield from kinds.rows(chosen_rows(_rows(self.source), choice, self.where), kind_column)
        if choice.conditions:
            self.notes.append("only rows with " + " and ".join(map(str, choice.conditions)))


@dataclass(frozen=True, slots=True)
class RowItem:
    """What a row asks, where it stands, and its fields (none for a line of plain text)."""

    line: str
    asked: AskedPrompt
    fields: Fields
    shape: DataShape | None = None

    @property
    def prompt(self) -> Prompt:
        """Return the chat to which a model is to reply."""
        return Prompt(self.asked.messages)

    @property
    def category(self) -> str:
        """Return the category, empty where there is none."""
        return label(self.fields, self.shape.category) if self.shape else ""


def read_rows(source: DataSource) -> SourceRows:
    """Return the rows of a file or data set; nothing is read before the first is asked for."""
    path, name = Path(source.given), str(source.given)
    return SourceRows(source, name, name) if data_set_parts(name, path) else SourceRows(source, path.name, path)


def read_item(line: str, row: object, choice: RowChoice) -> RowItem:
    """Return what a row asks; raise FieldError where it asks nothing that can be read."""
    if isinstance(row, str):
        return RowItem(line, AskedPrompt((Message("user", checked_text("prompt", row)),)), {})
    if not isinstance(row, Mapping):
        raise FieldError("a value that is neither a text nor an object")
    shape = shape_of(row)
    names = (choice.prompt_field,) if choice.prompt_field else shape.prompt
    there = [name for name in names if name in row]
    name = next((name for name in there if row[name] not in (None, "")), None)
    if name is None:
        what = f"no prompt in its column {there[0]}" if there else f"no prompt; its columns are {listed(row)}"
        raise FieldError(what, worded("name the column that holds the prompts: {prompt_field_is}NAME"))
    found = asked(row[name])
    if shape.ask is not None and not choice.prompt_field:
        found = replace(found, messages=(*found.messages[:-1], _last(shape, row, found.text)))
    return RowItem(line, found, row, shape)


def _last(shape: DataShape, row: Fields, text: str) -> Message:
    assert shape.ask is not None
    return Message("user", checked_text("prompt", shape.ask(row, text)))


def identifier(item: RowItem, prompt_field: str | None) -> str:
    """Return what a row shares with others of the same behaviour or question, empty where its source names none."""
    if item.shape is None:
        return ""
    asked_of = prompt_field or next((name for name in item.shape.prompt if item.fields.get(name)), None)
    return label(item.fields, [name for name in item.shape.id if name != asked_of])


def _rows(source: DataSource) -> Iterator[DataRow]:
    """Tell the form, and yield all rows as they are."""
    path, name = Path(source.given), str(source.given)
    parts = data_set_parts(name, path)
    if parts:
        return data_set_rows(*parts, source.splits)
    data = read_content(path, source.most)
    if data.startswith(PARQUET):
        return parquet_rows(data, path, source.most)
    text, ending = text_of(data, path), _ending(path)
    known = known_columns() | ({source.choice.prompt_field} if source.choice.prompt_field else set())
    if JSON_START.match(text) or (ending in JSON_ENDINGS and text.strip()):
        return json_rows(text, path, known)
    columns = looks_like_table(text)
    asked_for = columns is not None and bool(source.choice.prompt_field or source.choice.conditions)
    if ending in TABLE_ENDINGS or asked_for or is_table(text, known):
        return delimited_rows(text, path, delimiter_of(text, known))
    if columns is not None:
        raise DataFileError(
            f"looks like a table whose columns are {listed(columns)}, and none of them is known to hold prompts",
            file=path,
            fix=worded(
                "name it by {prompt_field_is}NAME; if every line is a prompt, begin the file with the line `# prompts`"
            ),
        )
    lines = ((f"line {n}", line.strip()) for n, line in enumerate(text.split("\n"), 1))
    return ((line, row) for line, row in lines if row and not row.startswith("#"))


def _ending(path: Path) -> str:
    """Return how a name ends, without `.gz`."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
