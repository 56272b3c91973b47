"""The cache of answers: what is kept, what never is, and what remains when writers meet, die or find garbage."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.errors import OutputError
from s3lora.evaluate.chat import Decoding, Generation, Prompt, digest_of
from s3lora.evaluate.store import CHUNK, AnswerStore, findings, generations
from tests.watched import PATIENCE

DECODING = Decoding(max_new_tokens=5)
SECRET = "zebra-lantern-0451"


class Beside:
    """Answers depend on what is asked beside them, as rounding makes them in a real model; batches may come anyhow."""

    def __init__(self, size: int = 3, fails_after: int | None = None) -> None:
        self.size, self.fails_after = size, fails_after
        self.identity = "beside"
        self.asked: list[tuple[int, ...]] = []

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: prompts[i].digest)
        return [order[i : i + self.size] for i in range(0, len(order), self.size)]

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        for batch in reversed(self.batches(prompts, decoding) if batches is None else batches):
            if self.fails_after is not None and len(self.asked) >= self.fails_after:
                raise KeyboardInterrupt
            self.asked.append(tuple(batch))
            together = digest_of([prompts[i].digest for i in batch])[:6]
            for i in batch:
                yield i, Generation(f"{prompts[i].messages[-1].content} {together} {i}", 3, True)


def prompts_of(*texts: object) -> list[Prompt]:
    return [Prompt.ask(str(text)) for text in texts]


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


# What is kept


@given(
    st.dictionaries(
        st.text("abcdef0123456789", min_size=1, max_size=8),
        st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=3),
        max_size=8,
    )
)
@settings(max_examples=40)
def test_what_was_put_is_there(tmp_path_factory: pytest.TempPathFactory, items: dict[str, dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("store") / "s.sqlite"
    with AnswerStore(path) as store:
        store.put(items)
        store.put({key: {"other": 1} for key in items})
        assert store.get([*items, "absent"]) == items
    with AnswerStore(path) as store:
        assert (len(store), store.get(list(items))) == (len(items), items)


def test_more_than_a_statement_takes(tmp_path: Path) -> None:
    items = {str(i): {"n": i} for i in range(2 * CHUNK + 1)}
    with AnswerStore(tmp_path / "s") as store:
        store.put(items)
        store.put({})
        assert store.get(list(items)) == items
        assert store.get([]) == {}


def test_a_put_is_all_or_none(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "s") as store:
        store._connection.execute("CREATE TRIGGER no BEFORE INSERT ON answers WHEN NEW.key = 'bad' "
                                  "BEGIN SELECT RAISE(FAIL, 'no room'); END")  # fmt: skip
        with pytest.raises(OutputError, match="no room"):
            store.put({"a": {}, "b": {}, "bad": {}})
        assert len(store) == 0
        store.put({"a": {}})
        assert len(store) == 1


@pytest.mark.parametrize("text", ["\ud83d", "a\udc00b", "\x00", "\U0001f600\u2028", "\ud83d\ude00"])
def test_texts_that_are_hard_to_write(tmp_path: Path, text: str) -> None:
    answer = Generation(text, 1, True)
    assert len(answer.digest) == 64

    class Says(Beside):
        def generate(self, *arguments: Any, **keywords: Any) -> Iterator[tuple[int, Generation]]:
            yield 0, answer

    prompts = [Prompt.ask(text, text)]
    with AnswerStore(tmp_path / "s") as store:
        assert generations(Says(), prompts, DECODING, store) == [answer]
        assert generations(Beside(fails_after=0), prompts, DECODING, store) == [answer]


def test_findings_never_write_the_answer(tmp_path: Path) -> None:
    """Whole, in pieces of the journal, or as the bytes that JSON makes of it."""

    class Tells(Beside):
        def generate(self, *arguments: Any, **keywords: Any) -> Iterator[tuple[int, Generation]]:
            for i, answer in super().generate(*arguments, **keywords):
                yield i, Generation(f"Sure: {SECRET} {answer.text}", 3, True)

    def find(_: int, answer: Generation) -> dict[str, Any]:
        return {"refused": SECRET not in answer.text, "answer": answer.digest}

    prompts = prompts_of(*range(40))
    kept, told = tmp_path / "kept", tmp_path / "told"
    with AnswerStore(kept / "s") as store:
        found = findings(Tells(), prompts, DECODING, find, "refusals 1", store)
        # With the journal beside the file, which closing removes.
        assert (kept / "s-wal").stat().st_size > 0
        assert SECRET.encode() not in bytes_of(kept)
        assert found[0]["answer"].encode() in bytes_of(kept)
    assert SECRET.encode() not in bytes_of(kept)
    with AnswerStore(told / "s") as store:
        generations(Tells(), prompts, DECODING, store)
        assert SECRET.encode() in bytes_of(told)


def test_findings_of_another_kind_are_found_anew(tmp_path: Path) -> None:
    prompts, model = prompts_of(1, 2), Beside()
    with AnswerStore(tmp_path / "s") as store:
        for what, value in (("list 1", 1), ("list 2", 2), ("list 1", 1)):
            assert (
                findings(model, prompts, DECODING, lambda i, a, v=value: {"v": v}, what, store)
                == [  # type: ignore[misc]
                    {"v": value}
                ]
                * 2
            )
        findings(model, prompts, Decoding(max_new_tokens=6), lambda i, a: {"v": 3}, "list 1", store)
        model.identity = "another adapter"
        findings(model, prompts, DECODING, lambda i, a: {"v": 4}, "list 1", store)
    assert len(model.asked) == 4


# Batches, and going on after an end


@given(st.integers(1, 14), st.sets(st.integers(0, 13)), st.integers(1, 5))
@settings(max_examples=60)
def test_an_answer_does_not_depend_on_which_others_were_known(
    tmp_path_factory: pytest.TempPathFactory, n: int, lost: set[int], size: int
) -> None:
    prompts = prompts_of(*range(n))
    expected = generations(Beside(size), prompts, DECODING)
    path = tmp_path_factory.mktemp("store") / "s"
    with AnswerStore(path) as store:
        assert generations(Beside(size), prompts, DECODING, store) == expected
        rows = store._connection.execute("SELECT key, value FROM answers ORDER BY value").fetchall()
        gone = [key for i, (key, _) in enumerate(rows) if i in lost]
        store._connection.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in gone])
        model = Beside(size)
        assert generations(model, prompts, DECODING, store) == expected
        # Whole batches were asked, and only those that lack an answer.
        assert {*model.asked} <= {tuple(batch) for batch in model.batches(prompts, DECODING)}
        assert len(model.asked) <= len(gone)
        assert len(store) == n


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    prompts = prompts_of(*range(20))
    with AnswerStore(tmp_path / "s") as store:
        with pytest.raises(KeyboardInterrupt):
            generations(Beside(fails_after=4), prompts, DECODING, store)
        # Seven batches, the two of the last one first.
        assert len(store) == 2 + 3 * 3
        model, done = Beside(), []
        found = generations(model, prompts, DECODING, store, lambda *both: done.append(both))
        assert len(model.asked) == 3
        assert done == [(n, 20) for n in range(11, 21)]
    assert found == generations(Beside(), prompts, DECODING)


def test_equal_prompts_have_one_answer_at_every_run(tmp_path: Path) -> None:
    prompts = prompts_of("a", "b", "a", "c", "a", "d", "b")
    done: list[tuple[int, int]] = []
    with AnswerStore(tmp_path / "s") as store:
        first = generations(Beside(2), prompts, DECODING, store, lambda *both: done.append(both))
        assert first[0] == first[2] == first[4]
        assert generations(Beside(fails_after=0), prompts, DECODING, store) == first
    assert first == generations(Beside(2), prompts, DECODING)
    assert (done[0], done[-1], done == sorted(done)) == ((0, 7), (7, 7), True)


# Several processes

WRITER = """
import sys
from pathlib import Path
from s3lora.evaluate.store import AnswerStore
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with AnswerStore(path) as store:
    for i in range(count):
        store.put({f"{name}-{i}": {"by": name, "text": name * 300}, f"both-{i}": {"by": name}})
        print(i, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    """Start a process that is ready to write, and begins when it is sent a line."""
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def intact(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)])
    finally:
        connection.close()


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path, count = tmp_path / "s.sqlite", 200
    running = [writer(path, name, count) for name in ("x", "y", "z")]
    for process in running:
        begin(process)
    for process in running:
        told, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, told.split()) == (0, [str(i) for i in range(count)])
    with AnswerStore(path) as store:
        assert len(store) == 4 * count
        for name in ("x", "y", "z"):
            found = store.get([f"{name}-{i}" for i in range(count)])
            assert found == {f"{name}-{i}": {"by": name, "text": name * 300} for i in range(count)}
        assert all(value["by"] in ("x", "y", "z") for value in store.get([f"both-{i}" for i in range(count)]).values())
    assert intact(path)


def test_a_new_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
    other.execute("BEGIN IMMEDIATE")
    later = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    later.start()
    try:
        with AnswerStore(tmp_path / "s.sqlite") as store:
            store.put({"a": {"b": 1}})
            assert store.get(["a"]) == {"a": {"b": 1}}
    finally:
        later.join()
        other.close()


def test_a_writer_that_is_killed_leaves_what_it_put(tmp_path: Path) -> None:
    path, rng, kept = tmp_path / "s.sqlite", random.Random(0), 0
    for turn in range(6):
        name = f"w{turn}"
        process = writer(path, name, 1_000_000)
        begin(process)
        assert process.stdout is not None
        told = "".join(process.stdout.readline() for _ in range(rng.randint(0, 40)))
        process.kill()
        told += process.stdout.read()
        process.communicate(timeout=PATIENCE)
        # The last line may be cut short.
        done = told.count("\n")
        with AnswerStore(path) as store:
            found = store.get([f"{name}-{i}" for i in range(done + 2)])
            assert done <= len(found) <= done + 1
            assert all(value == {"by": name, "text": name * 300} for value in found.values())
            kept += len(found)
            assert len(store) == kept + len(store.get([f"both-{i}" for i in range(kept + 1)]))
        assert intact(path)
    assert kept > 20


# Files that are none


@pytest.mark.parametrize("content", [b"hello", os.urandom(4096), b"SQLite format 3\x00" + b"\xff" * 4000])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    assert sentence(tmp_path / "s").endswith("; name another folder")
    assert (tmp_path / "s").read_bytes() == content


def test_a_database_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "s"
    items = {f"k{i}": {"text": "z" * 200} for i in range(500)}
    with AnswerStore(path) as store:
        store.put(items)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    sentence(path)
    damaged = bytearray(good)
    damaged[5000::97] = bytes(b ^ 0xFF for b in damaged[5000::97])
    path.write_bytes(damaged)
    sentence(path, *items)
    path.write_bytes(good.replace(b'{"text": ', b'{"text"? '))
    sentence(path, *items)


def test_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "s"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE answers (question TEXT)")
    connection.close()
    assert "no such column" in sentence(path, "k")


@pytest.mark.parametrize("below", ["file/s", "file/deeper/s", "folder", "nul\0/s", "x" * 5_000 + "/s"])
def test_places_where_no_file_can_be(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    sentence(tmp_path / below)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_must_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    sentence(folder / "s")
    sentence(folder / "deeper" / "s")


def test_a_file_that_is_only_read(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with AnswerStore(path) as store:
        store._connection.execute("PRAGMA query_only=1")
        with pytest.raises(OutputError, match=r"s: cannot be used as a cache \(attempt to write a readonly database\)"):
            store.put({"k": {}})
        assert len(store) == 0


def sentence(path: Path, *keys: str) -> str:
    """Return the one sentence that opening, and reading keys, ends in."""
    with pytest.raises(OutputError) as caught, AnswerStore(path) as store:
        store.get(keys)
    told = str(caught.value)
    assert told.isprintable()
    assert "cannot be used as a cache (" in told
    assert json.dumps(caught.value.problem)
    return told
