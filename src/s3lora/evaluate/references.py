"""Prompts with reference answers, from files, from data sets of others, and from the set that comes with s3lora.

A row has a prompt (a text, or a list of chat messages) and a reference or a list of references; or a text and its
summary in columns as published: dialogue and summary (DialogSum, SAMSum), document and summary (XSum), article and
highlights (CNN/DailyMail). Several summaries may be numbered: summary1, summary2. Files are JSON lines or JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from s3lora.errors import S3LoRAError, printable
from s3lora.evaluate.chat import Message, Prompt, digest_of
from s3lora.evaluate.prompts import read_text
from s3lora.evaluate.rows import DataRow, FieldError, data_set_parts, data_set_rows, draw, json_rows, numbered

#: Bytes of a file; rows of a set; characters of a prompt and of a reference; messages and references of a row.
MAX_BYTES = 128 * 2**20
MAX_EXAMPLES = 100_000
MAX_PROMPT = 100_000
MAX_REFERENCE = 20_000
MAX_MESSAGES = 1_000
MAX_REFERENCES = 100
MAX_ID = 200

#: (text, summary, what is asked for).
COLUMNS = (
    ("dialogue", "summary", "Summarise this dialogue in one or two sentences."),
    ("document", "summary", "Summarise this text in one sentence."),
    ("article", "highlights", "Summarise this article in three or four sentences."),
)
ID_FIELDS = ("id", "fname", "_id")
#: Where a data set's split is not named: what is measured should not be what others trained on.
SPLITS = ("test", "validation", "train")
FIELDS_FIX = "name the fields prompt and reference, or " + ", ".join(f"{t} and {s}" for t, s, _ in COLUMNS)


class ReferenceFileError(S3LoRAError):
    """A file or data set that cannot be read as prompts with references."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and its reference answers, at least one; the identifier is that of the source, or empty."""

    id: str
    prompt: Prompt
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """Prompts with references in the order of their source."""

    name: str
    examples: tuple[Example, ...]
    built_in: bool = False
    note: str = ""
    licence: str = ""

    def __len__(self) -> int:
        """Return how many prompts there are."""
        return len(self.examples)

    @property
    def sha256(self) -> str:
        """Return a digest of the prompts and references."""
        return digest_of([[example.prompt.as_dicts(), list(example.references)] for example in self.examples])

    def take(self, limit: int | None, seed: int = 0) -> ReferenceSet:
        """Return `limit` examples drawn with the seed, in the order of the source; all of them for None.

        A larger draw with the same seed holds the smaller one. Raises UsageError for a limit below 1.
        """
        return self.subset(draw(len(self), limit, seed, "prompts"))

    def subset(self, positions: Iterable[int]) -> ReferenceSet:
        """Return the examples at these positions, in the order of the source."""
        return replace(self, examples=tuple(self.examples[i] for i in sorted(set(positions))))


def built_in_references() -> ReferenceSet:
    """Return the 14 short dialogues and 10 passages, each with a summary, that come with s3lora."""
    name = "data/evaluate/summaries.jsonl"
    text = (files("s3lora") / name).read_text(encoding="utf-8")
    examples = _examples(json_rows(text, name, ReferenceFileError, _unpack), name)
    return ReferenceSet("built-in summaries", examples, True, "written for s3lora; few, short and easy", "Apache-2.0")


def read_references(source: str | Path) -> ReferenceSet:
    """Read a file, or a data set by its name (`owner/name`, `owner/name:configuration:split`).

    Raises an S3LoRAError that names the file and the line where something is absent, too large or malformed.
    """
    path, name = Path(source), str(source)
    parts = data_set_parts(name, path)
    if parts:
        return ReferenceSet(name, _examples(data_set_rows(*parts, ReferenceFileError, SPLITS), name))
    rows = json_rows(read_text(path, MAX_BYTES), path, ReferenceFileError, _unpack)
    return ReferenceSet(path.name, _examples(rows, path))


def _unpack(document: Any) -> Iterator[DataRow]:
    return numbered(document if isinstance(document, list) else [document])


def _examples(rows: Iterable[DataRow], where: object) -> tuple[Example, ...]:
    examples: list[Example] = []
    for line, row in rows:
        if len(examples) == MAX_EXAMPLES:
            raise ReferenceFileError(f"holds more than {MAX_EXAMPLES:,} prompts", file=where, fix="cut it")
        if not isinstance(row, Mapping):
            raise ReferenceFileError(f"{line} is no object", file=where, fix=FIELDS_FIX)
        try:
            examples.append(_example({str(key).strip().lower(): value for key, value in row.items()}))
        except FieldError as error:
            raise ReferenceFileError(f"{line} has {error}", file=where, fix=error.fix) from None
    if not examples:
        raise ReferenceFileError("holds no prompts", file=where)
    return tuple(examples)


def _example(fields: Mapping[str, Any]) -> Example:
    found = (fields[name] for name in ID_FIELDS if isinstance(fields.get(name), str | int))
    name = printable(next(found, ""), MAX_ID)
    if "prompt" in fields:
        return Example(name, _prompt(fields["prompt"]), _references(fields, r"references?"))
    for text, summary, request in COLUMNS:
        if text in fields:
            prompt = Prompt.ask(f"{request}\n\n{_text(text, fields[text], MAX_PROMPT)}")
            return Example(name, prompt, _references(fields, rf"{summary}\d*"))
    raise FieldError("no prompt", FIELDS_FIX)


def _prompt(value: object) -> Prompt:
    if not isinstance(value, list):
        return Prompt.ask(_text("prompt", value, MAX_PROMPT))
    if len(value) > MAX_MESSAGES:
        raise FieldError(f"more than {MAX_MESSAGES:,} messages")
    messages = tuple(map(_message, value))
    if not messages or messages[-1].role != "user":
        raise FieldError("a prompt that does not end with a message of the user", "leave the answer to the reference")
    return Prompt(messages)


def _message(value: object) -> Message:
    role = value.get("role") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or role not in ("system", "user", "assistant"):
        raise FieldError("a message without a role", 'give {"role": "system", "user" or "assistant", "content": "…"}')
    return Message(role, _text("message", value.get("content"), MAX_PROMPT))


def _references(fields: Mapping[str, Any], names: str) -> tuple[str, ...]:
    found: list[object] = []
    for value in (value for name, value in fields.items() if re.fullmatch(names, name)):
        # A table has empty cells where a row has fewer references than others.
        found.extend(value if isinstance(value, list) else [] if value is None else [value])
    if not found:
        raise FieldError("no reference", FIELDS_FIX)
    if len(found) > MAX_REFERENCES:
        raise FieldError(f"more than {MAX_REFERENCES} references")
    return tuple(dict.fromkeys(_text("reference", value, MAX_REFERENCE) for value in found))


def _text(name: str, value: object, most: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise FieldError(f"a {name} that is no text", f"give a text that is not empty for {name}")
    if len(value) > most:
        raise FieldError(f"a {name} of more than {most:,} characters")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise FieldError(f"half of a character (a lone surrogate) in its {name}")
    return value.strip()
