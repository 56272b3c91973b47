"""Prompts: sets of them, drawn with a seed, read as others publish them, and written as others read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

from s3lora.evaluate.chat import Message, Prompt, digest_of
from s3lora.evaluate.data.choice import EVERY_ROW, RowChoice
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import DataRow
from s3lora.evaluate.data.draws import DataItem, draw
from s3lora.evaluate.data.items import FieldError
from s3lora.evaluate.data.json_rows import json_rows
from s3lora.evaluate.data.kinds import PromptKind
from s3lora.evaluate.data.rows import DataSource, identifier, read_item, read_rows
from s3lora.wording import worded

#: Bytes of a file, and prompts of a set, that are read.
MAX_BYTES = 64 * 2**20
MAX_PROMPTS = 100_000


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, with its category and the identifier of the behaviour it asks for where its source names them.

    Requests with one identifier are cases of one behaviour. `before` are the messages that precede the text in a chat.
    """

    text: str
    category: str = ""
    id: str = ""
    before: tuple[Message, ...] = ()

    @property
    def prompt(self) -> Prompt:
        """Return the request as a chat that ends with its text."""
        return Prompt((*self.before, Message("user", self.text)))


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts in the order of their source; `notes` say which of its rows they are."""

    name: str
    requests: tuple[Request, ...]
    built_in: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many prompts there are."""
        return len(self.requests)

    @property
    def sha256(self) -> str:
        """Return a digest of the texts, the same in whichever format they were read."""
        return digest_of([request.prompt.as_dicts() if request.before else request.text for request in self.requests])

    @property
    def items(self) -> list[DataItem]:
        """Return what draws and halves go by."""
        return [DataItem(request.prompt.digest, request.id) for request in self.requests]

    @property
    def prompts(self) -> list[Prompt]:
        """Return the prompts as chats."""
        return [request.prompt for request in self.requests]

    def subset(self, positions: Iterable[int]) -> PromptSet:
        """Return the prompts at these positions, in the order of the source."""
        return replace(self, requests=tuple(self.requests[i] for i in sorted(set(positions))))

    def ordered(self) -> PromptSet:
        """Return the same prompts in the order of their digests, which does not depend on the order of the source."""
        key = {request: (request.prompt.digest, request.id, request.category) for request in self.requests}
        return replace(self, requests=tuple(sorted(self.requests, key=key.__getitem__)))

    def take(self, limit: int | None, seed: int = 0) -> PromptSet:
        """Return `limit` prompts drawn with the seed, in the order of the source; all of them for None.

        One prompt of every identifier comes before a second one of any, and a larger draw with the same seed holds the
        smaller one. Raises UsageError for a limit below 1.
        """
        positions = draw(self.items, limit, seed, "prompts")
        return self if len(positions) == len(self) else self.subset(positions)


def built_in(kind: PromptKind, of: Literal["evaluate", "repair"] = "evaluate") -> PromptSet:
    """Return the prompts that come with s3lora: mild harmful ones, or harmless, half of which sound bad.

    There are 48 of each kind for `evaluate`, and 140 others for `repair`.
    """
    text = (files("s3lora") / "data" / of / f"{kind}.jsonl").read_text(encoding="utf-8")
    return PromptSet(f"built-in {kind}", _requests(json_rows(text, kind, ()), EVERY_ROW, kind)[0], built_in=True)


def read_prompts(source: str | Path, choice: RowChoice = EVERY_ROW, kind: PromptKind | None = None) -> PromptSet:
    """Read a file, or a data set by its name (`owner/name`, `owner/name:configuration:split`).

    Parameters:
        source: CSV, TSV, JSON, JSON lines or parquet, each also in gzip, or text with one prompt a line.
        choice: which rows are meant, and which column holds the prompt.
        kind: which prompts are wanted of a table that tells harmful ones from harmless ones; None for all.

    Raises DataFileError, which names the file and the line, where the source is absent, too large or malformed.
    """
    rows = read_rows(DataSource(source, choice, kind, MAX_BYTES))
    requests, notes = _requests(rows, choice, rows.where)
    return PromptSet(rows.name, requests, notes=tuple(f"{rows.name}: {note}" for note in (*rows.notes, *notes)))


def _requests(rows: Iterable[DataRow], choice: RowChoice, where: object) -> tuple[tuple[Request, ...], list[str]]:
    """Return the requests of rows, and what there is to say of them."""
    requests: list[Request] = []
    seen: set[str] = set()
    repeated = with_turns = 0
    for line, row in rows:
        try:
            item = read_item(line, row, choice)
        except FieldError as error:
            raise DataFileError(f"{line} has {error}", file=where, fix=error.fix) from None
        if item.shape is not None and item.shape.once and item.asked.text in seen:
            repeated += 1
            continue
        if len(requests) == MAX_PROMPTS:
            raise DataFileError(
                f"holds more than {MAX_PROMPTS:,} prompts", file=where, fix=worded("cut it, or choose: {where}")
            )
        seen.add(item.asked.text)
        with_turns += bool(item.asked.more_turns)
        before = item.asked.messages[:-1]
        requests.append(Request(item.asked.text, item.category, identifier(item, choice.prompt_field), before))
    if not requests:
        raise DataFileError("holds no prompts", file=where)
    notes = [f"{repeated} rows repeat a prompt, which is asked once"] * bool(repeated)
    notes += [f"of {with_turns} prompts with several turns the first turn is asked"] * bool(with_turns)
    return tuple(requests), notes


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
