"""Prompts: read from the files and data sets that others publish, drawn with a seed, and written as others read them.

One function reads every form, which is told from the content: CSV with a header (AdvBench: goal, target; HarmBench:
Behavior, SemanticCategory, BehaviorID, ContextString; JailbreakBench: Index, Goal, Behavior, Category), JSON
(HarmBench `{behavior_id: [{test_case, generation, label}]}`, JailbreakBench `{"jailbreaks": [{goal, prompt, …}]}`, a
list), JSON lines, and plain text with one prompt a line and `#` before a comment. A field is found by its name in any
case, so that a row may come from any of these.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from s3lora.errors import S3LoRAError, printable
from s3lora.evaluate.chat import Prompt, digest_of
from s3lora.evaluate.rows import DataRow, data_set_parts, data_set_rows, draw, json_rows, numbered
from s3lora.files import read_whole

#: Bytes of a file, prompts of a set, and characters of a prompt and of a category or identifier that are read.
MAX_BYTES = 64 * 2**20
MAX_PROMPTS = 100_000
MAX_CHARACTERS = 100_000
MAX_LABEL = 200

#: In order of preference: a JailbreakBench row has a goal and maybe the prompt that was made from it.
TEXT_FIELDS = ("prompt", "goal", "instruction", "question", "behavior", "test_case", "text")
CATEGORY_FIELDS = ("category", "semanticcategory", "functionalcategory")
ID_FIELDS = ("behaviorid", "behavior_id", "behavior", "id", "index")
CONTEXT_FIELD = "contextstring"

#: What a JSON text starts with, and not a prompt such as "[INST] …".
JSON_START = re.compile(r'\s*(?:\{\s*["}]|\[\s*[\[{"\]])')


class PromptFileError(S3LoRAError):
    """A file or data set that cannot be read as prompts."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, with its category and the identifier of the behaviour it asks for where its source names them."""

    text: str
    category: str = ""
    id: str = ""

    @property
    def prompt(self) -> Prompt:
        """Return the request as a chat of one question."""
        return Prompt.ask(self.text)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts in the order of their source."""

    name: str
    requests: tuple[Request, ...]
    built_in: bool = False

    def __len__(self) -> int:
        """Return how many prompts there are."""
        return len(self.requests)

    @property
    def sha256(self) -> str:
        """Return a digest of the texts, the same in whichever format they were read."""
        return digest_of([request.text for request in self.requests])

    @property
    def prompts(self) -> list[Prompt]:
        """Return the prompts as chats."""
        return [request.prompt for request in self.requests]

    def subset(self, positions: Iterable[int]) -> PromptSet:
        """Return the prompts at these positions, in the order of the source."""
        return replace(self, requests=tuple(self.requests[i] for i in sorted(set(positions))))

    def take(self, limit: int | None, seed: int = 0) -> PromptSet:
        """Return `limit` prompts drawn with the seed, in the order of the source; all of them for None.

        A larger draw with the same seed holds the smaller one. Raises UsageError for a limit below 1.
        """
        positions = draw(len(self), limit, seed, "prompts")
        return self if len(positions) == len(self) else self.subset(positions)


def built_in(kind: Literal["harmful", "benign"]) -> PromptSet:
    """Return the prompts that come with s3lora: 48 mild harmful ones, or 48 harmless, half of which sound bad."""
    text = (files("s3lora") / "data" / "evaluate" / f"{kind}.jsonl").read_text(encoding="utf-8")
    return PromptSet(f"built-in {kind}", _requests(_rows(text, kind), kind), built_in=True)


def read_prompts(source: str | Path) -> PromptSet:
    """Read a file, or a data set by its name (`owner/name`, `owner/name:configuration:split`).

    Raises PromptFileError, which names the file and the line, where the source is absent, too large or malformed.
    """
    path, name = Path(source), str(source)
    parts = data_set_parts(name, path)
    if parts:
        return PromptSet(name, _requests(data_set_rows(*parts, PromptFileError, ("train",)), name))
    text = read_text(path, MAX_BYTES)
    return PromptSet(path.name, _requests(_rows(text, path), path))


def read_text(path: Path, most: int) -> str:
    """Return the text of a UTF-8 file of at most `most` bytes; raise PromptFileError for any other."""
    data = read_whole(path, most, PromptFileError)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptFileError(f"line {line} is not UTF-8", file=path, fix="save the file as UTF-8") from None


def _rows(text: str, where: object) -> Iterator[DataRow]:
    """Tell the format, and yield the rows."""
    if JSON_START.match(text):
        return json_rows(text, where, PromptFileError, lambda document: _document_rows(document, where))
    if any(cell.strip(' "\r').lower() in TEXT_FIELDS for cell in text.partition("\n")[0].split(",")):
        return _csv_rows(text, where)
    lines = ((f"line {n}", line.strip()) for n, line in enumerate(text.split("\n"), 1))
    return ((line, row) for line, row in lines if row and not row.startswith("#"))


def _csv_rows(text: str, where: object) -> Iterator[DataRow]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = "line 1"
    try:
        header = next(reader)
        while True:
            # A text may hold line breaks: name the line where its row begins.
            line = f"line {reader.line_num + 1}"
            row = next(reader, None)
            if row is None:
                return
            if len(row) > len(header):
                fix = "put a text that holds commas in quotation marks"
                raise PromptFileError(f"{line} has more cells than the first line", file=where, fix=fix)
            if row:
                yield line, dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise PromptFileError(f"{line} is not CSV ({error})", file=where) from None


def _document_rows(document: Any, where: object) -> Iterator[DataRow]:
    """Yield the rows of a document: a list, JailbreakBench's artifact, one row, or HarmBench's lists by behaviour."""
    if isinstance(document, dict) and isinstance(document.get("jailbreaks"), list):
        document = document["jailbreaks"]
    if isinstance(document, list):
        yield from numbered(document)
    elif isinstance(document, dict) and any(str(name).lower() in TEXT_FIELDS for name in document):
        yield "row 1", document
    elif isinstance(document, dict) and all(isinstance(value, list) for value in document.values()):
        for behaviour, cases in document.items():
            for n, case in enumerate(cases, 1):
                fields = case if isinstance(case, dict) else {"test_case": case}
                yield f"{printable(behaviour, 80)}, case {n}", {**fields, "behavior_id": behaviour}
    else:
        raise PromptFileError("is JSON of no form that holds prompts", file=where, fix="give a list of objects")


def _requests(rows: Iterable[DataRow], where: object) -> tuple[Request, ...]:
    requests: list[Request] = []
    for line, row in rows:
        if len(requests) == MAX_PROMPTS:
            raise PromptFileError(f"holds more than {MAX_PROMPTS:,} prompts", file=where, fix="cut it")
        requests.append(_request(line, row, where))
    if not requests:
        raise PromptFileError("holds no prompts", file=where)
    return tuple(requests)


def _request(line: str, row: object, where: object) -> Request:
    if isinstance(row, str):
        return Request(_text(line, row, where))
    if not isinstance(row, Mapping):
        raise PromptFileError(f"{line} is neither a text nor an object", file=where)
    fields = {str(name).strip().lower(): value for name, value in row.items()}
    name = next((name for name in TEXT_FIELDS if fields.get(name) not in (None, "")), None)
    if name is None:
        choice = ", ".join(TEXT_FIELDS)
        raise PromptFileError(f"{line} has no prompt", file=where, fix=f"name its field one of {choice}")
    text = _text(line, fields[name], where)
    context = fields.get(CONTEXT_FIELD)
    if isinstance(context, str) and context.strip():
        # As HarmBench's baselines/direct_request puts the context before the behaviour.
        text = _text(line, f"{context.strip()}\n\n---\n\n{text}", where)
    return Request(text, _label(fields, CATEGORY_FIELDS), _label(fields, [f for f in ID_FIELDS if f != name]))


def _text(line: str, value: object, where: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PromptFileError(f"{line} has a prompt that is no text", file=where)
    if len(value) > MAX_CHARACTERS:
        raise PromptFileError(f"{line} has a prompt of more than {MAX_CHARACTERS:,} characters", file=where)
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise PromptFileError(f"{line} has half of a character (a lone surrogate)", file=where)
    return value.strip()


def _label(fields: Mapping[str, object], names: Iterable[str]) -> str:
    found = next((fields[name] for name in names if fields.get(name) not in (None, "")), "")
    return printable(found, MAX_LABEL) if isinstance(found, str | int) else ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered to a request, and whether it went along with it."""

    request: Request
    text: str
    complied: bool


def harmbench(completions: Iterable[Completion]) -> str:
    """Return completions as HarmBench keeps them: `{behavior_id: [{test_case, generation, label}]}`, label 1 or 0."""
    found: dict[str, list[dict[str, object]]] = {}
    for item in completions:
        case = {"test_case": item.request.text, "generation": item.text, "label": int(item.complied)}
        behaviour = item.request.id or hashlib.sha256(item.request.text.encode()).hexdigest()[:12]
        found.setdefault(behaviour, []).append(case)
    return _json(found)


def jailbreakbench(completions: Iterable[Completion]) -> str:
    """Return completions as the `jailbreaks` of a JailbreakBench artifact; the prompt is the goal, asked once."""
    rows = [
        {
            "index": n,
            "goal": item.request.text,
            "behavior": item.request.id,
            "category": item.request.category,
            "prompt": item.request.text,
            "response": item.text,
            "number_of_queries": 1,
            "queries_to_jailbreak": None,
            "prompt_tokens": None,
            "response_tokens": None,
            "jailbroken": item.complied,
        }
        for n, item in enumerate(completions)
    ]
    return _json({"jailbreaks": rows})


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
