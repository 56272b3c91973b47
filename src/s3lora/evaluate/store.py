"""Answers kept on disk, so that a run killed at any moment goes on where it was and a repeated one takes seconds.

A SQLite file maps digests of (model with adapter state, prompt, settings, what is kept) to JSON values. Answers to
harmful prompts are not kept as text but as what was found out about them: see `findings`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from s3lora.errors import OutputError
from s3lora.evaluate.chat import ChatModel, Decoding, Generation, Prompt, generation_key
from s3lora.files import check_regular, reason
from s3lora.measure.scan import Progress

Value = Mapping[str, Any]

#: Seconds to wait while another process writes.
PATIENCE = 60.0
#: SQLite takes at most 999 variables in a statement on old builds.
CHUNK = 500
FILE_NAME = "generations.sqlite"
#: Raised where an answer that is kept as text changes its fields.
TEXT_VERSION = 2


class AnswerStore:
    """A key-value table in a SQLite file; several processes may use it at once. Use it as a context manager.

    Raises OutputError where the file cannot be opened, read or written, or is no such table.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                check_regular(path)
            self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise _unusable(path, error) from None
        try:
            self._write_ahead()
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        except sqlite3.Error as error:
            self.close()
            raise _unusable(path, error) from None

    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """Return what is known of these keys."""
        values: dict[str, Value] = {}
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            marks = ",".join("?" * len(part))
            rows = self._run(f"SELECT key, value FROM answers WHERE key IN ({marks})", part)
            try:
                values.update((key, json.loads(value)) for key, value in rows)
            except (ValueError, TypeError, RecursionError) as error:
                raise _unusable(self.path, error) from None
        return values

    def put(self, items: Mapping[str, Value]) -> None:
        """Keep these values, all or none; the first value of a key stays."""
        # As bytes, since SQLite refuses half a surrogate pair in a text, and JSON's escapes would join two halves.
        rows = [
            (key, json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
            for key, value in items.items()
        ]
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return int(self._run("SELECT count(*) FROM answers", [])[0][0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> AnswerStore:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _write_ahead(self) -> None:
        """Let readers go on while one writes; a crash loses at most the last transactions and never the file.

        Of processes that open a new file at once, SQLite refuses all but one here, however long they would wait.
        """
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def _run(self, statement: str, values: Sequence[str]) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None


def _unusable(path: Path, error: Exception) -> OutputError:
    return OutputError(f"cannot be used as a cache ({reason(error)})", file=path, fix="name another folder")


def generations(
    model: ChatModel,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    store: AnswerStore | None = None,
    progress: Progress | None = None,
) -> list[Generation]:
    """Return the model's answers in the order of the prompts; what the store has is not asked again."""

    def keep(_: int, answer: Generation) -> Value:
        return asdict(answer)

    values = findings(model, prompts, decoding, keep, f"text {TEXT_VERSION}", store, progress)
    return [Generation(**value) for value in values]


def findings(
    model: ChatModel,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    find: Callable[[int, Generation], Value],
    what: str,
    store: AnswerStore | None = None,
    progress: Progress | None = None,
) -> list[Value]:
    """Return `find(index, answer)` for each prompt; only that is kept on disk, under `what`, never the answer itself.

    `what` must name all that determines the finding besides prompt and answer, such as the version of a list. Values
    are of plain JSON types. Equal prompts share one finding, as they do in the store.
    """
    keys = [generation_key(model, prompt, decoding, what) for prompt in prompts]
    values = store.get(keys) if store is not None else {}
    times = Counter(keys)
    done = sum(times[key] for key in values)
    missing = [b for b in model.batches(prompts, decoding) if any(keys[i] not in values for i in b)]
    if progress is not None:
        progress(done, len(prompts))
    if missing:
        for i, answer in model.generate(prompts, decoding, missing):
            key = keys[i]
            if key in values:
                continue
            values[key] = find(i, answer)
            done += times[key]
            if store is not None:
                store.put({key: values[key]})
            if progress is not None:
                progress(done, len(prompts))
    return [values[key] for key in keys]
