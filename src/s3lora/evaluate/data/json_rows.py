"""Rows of JSON documents and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from s3lora.errors import printable
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import DataRow

#: Fields that hold the rows of a document: JailbreakBench's artifacts, TriviaQA and SQuAD, and what others write.
WRAPPERS = ("jailbreaks", "data", "rows", "examples", "instances")


def numbered(rows: Iterable[object]) -> Iterator[DataRow]:
    """Name the rows by their number."""
    return ((f"row {n}", row) for n, row in enumerate(rows, 1))


def json_rows(text: str, where: object, known: Collection[str]) -> Iterator[DataRow]:
    """Yield the rows of a JSON document, or of JSON lines; raise DataFileError, with the line, where it is neither.

    `known` are the columns, in lower case, by which one object is told from a document that holds many.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as problem:
        if problem.msg != "Extra data":
            raise DataFileError(f"line {problem.lineno} is not JSON ({problem.msg})", file=where) from None
    except (ValueError, RecursionError):
        raise DataFileError("holds JSON that is nested too deeply or numbers too long", file=where) from None
    else:
        yield from _document_rows(document, where, known)
        return
    # Something follows the first value: one value a line.
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise DataFileError(f"line {n} is not JSON", file=where, fix="give one JSON object a line") from None
            yield f"line {n}", row


def _document_rows(document: Any, where: object, known: Collection[str]) -> Iterator[DataRow]:
    """Yield the rows of a document: a list, a field that holds one, one row, or HarmBench's lists by behaviour."""
    names = {str(name).strip().lower(): name for name in document} if isinstance(document, dict) else {}
    inside = next((document[names[name]] for name in WRAPPERS if name in names), None)
    if isinstance(document, list):
        yield from numbered(document)
    elif not names.keys().isdisjoint(known):
        yield "row 1", document
    elif isinstance(inside, list):
        yield from numbered(inside)
    elif names and all(isinstance(value, list) for value in document.values()):
        for behaviour, cases in document.items():
            for n, case in enumerate(cases, 1):
                fields = case if isinstance(case, dict) else {"test_case": case}
                yield f"{printable(behaviour, 80)}, case {n}", {**fields, "behavior_id": behaviour}
    elif names:
        # One row whose columns are not known: the error that names them says what to do.
        yield "row 1", document
    else:
        raise DataFileError("is JSON of no form that holds rows", file=where, fix="give a list of objects")
