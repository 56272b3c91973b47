"""Rows of JSON files and of data sets on the Hugging Face Hub, each with where it stands; and draws of some of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from s3lora.errors import S3LoRAError, UsageError, printable
from s3lora.evaluate.chat import digest_of
from s3lora.needs import need

#: Where a row stands ("line 3"), and the row: a text or fields.
DataRow = tuple[str, object]

#: owner/name, then a configuration and a split, as in JailbreakBench/JBB-Behaviors:behaviors:harmful.
DATA_SET = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]*))?(?::([\w.-]+))?")
FILE_ENDINGS = (".csv", ".json", ".jsonl", ".ndjson", ".txt")


class FieldError(Exception):
    """What is wrong with a row, to be told with the line it stands on, and what to do."""

    def __init__(self, problem: str, fix: str | None = None) -> None:
        """Take what follows "line 3 has …", and the remedy."""
        super().__init__(problem)
        self.fix = fix


def data_set_parts(name: str, path: Path) -> tuple[str, str | None, str | None] | None:
    """Return owner/name, configuration and split where this names a data set; None where it means the file at `path`.

    >>> data_set_parts("owner/name::test", Path("owner/name::test"))
    ('owner/name', None, 'test')
    """
    found = DATA_SET.fullmatch(name)
    if not found or path.suffix.lower() in FILE_ENDINGS or path.is_file():
        return None
    return found[1], found[2] or None, found[3]


def data_set_rows(
    name: str, configuration: str | None, split: str | None, error: type[S3LoRAError], preferred: Sequence[str]
) -> Iterator[DataRow]:
    """Yield the rows of a data set; without a split those of its only one, or of the first of `preferred` it has.

    Raises MissingPackageError without the package datasets, and `error` where the data set cannot be loaded.
    """
    data_sets = need("datasets")
    try:
        loaded = data_sets.load_dataset(name, configuration, split=split)
    # A network, a hub and half a dozen file formats fail in as many ways, all of them for the user to mend.
    except Exception as problem:
        reason = printable(str(problem).strip().split("\n")[0] or type(problem).__name__)
        fix = "check its name, configuration and split, or give a local file where there is no network"
        raise error(f"this data set cannot be loaded ({reason})", file=name, fix=fix) from None
    if isinstance(loaded, dict):
        splits = list(loaded)
        chosen = next((choice for choice in (*preferred, *splits[: len(splits) == 1]) if choice in splits), None)
        if chosen is None:
            choice = f"{name}:{configuration or ''}:{splits[0]}"
            raise error(f"has the splits {', '.join(splits)}", file=name, fix=f"name one, as in {choice}")
        loaded = loaded[chosen]
    yield from numbered(loaded)


def numbered(rows: Iterable[object]) -> Iterator[DataRow]:
    """Name the rows by their number."""
    return ((f"row {n}", row) for n, row in enumerate(rows, 1))


def json_rows(
    text: str, where: object, error: type[S3LoRAError], unpack: Callable[[Any], Iterable[DataRow]]
) -> Iterator[DataRow]:
    """Yield what `unpack` makes of a JSON document, or the values of JSON lines; raise `error`, with the line, else."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as problem:
        if problem.msg != "Extra data":
            raise error(f"line {problem.lineno} is not JSON ({problem.msg})", file=where) from None
    except (ValueError, RecursionError):
        raise error("holds JSON that is nested too deeply or numbers too long", file=where) from None
    else:
        yield from unpack(document)
        return
    # Something follows the first value: one value a line.
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise error(f"line {n} is not JSON", file=where, fix="give one JSON object a line") from None
            yield f"line {n}", row


def draw(total: int, limit: int | None, seed: int, what: str) -> list[int]:
    """Return `limit` of `total` positions, ascending, drawn with the seed; all of them for None.

    A larger draw with the same seed holds the smaller one. Raises UsageError, which names `what`, for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} {what} leaves nothing to measure", fix="give at least 1")
    if limit is None or limit >= total:
        return list(range(total))
    return sorted(sorted(range(total), key=lambda i: digest_of([seed, i]))[:limit])
