"""Prompts, prompts with reference answers, and lists of refusals."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from s3lora.evaluate.data.choice import choices
from s3lora.evaluate.planning.loader import read_tasks
from s3lora.evaluate.prompts import read_prompts
from s3lora.evaluate.references import read_references
from s3lora.evaluate.refusals import read_refusals
from s3lora.repair.task_data import read_task
from tests.fuzz.contract import BrokenContract, untouched
from tests.fuzz.draw import Draw
from tests.fuzz.target import Target


def _chosen(file: Path) -> object:
    """Read what is meant by conditions, of the kind that is wanted, from a column of one's own."""
    choice = choices(["label!=safe", "label!=", "tags.x!=true"], ["text"], ["harmful"])["harmful"]
    return read_prompts(file, choice, "harmful")


READERS = (read_prompts, read_references, read_refusals, read_tasks, _chosen, read_task)
ENDINGS = (".jsonl", ".csv", ".json", ".txt", ".tsv", "")


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    read = draw.pick(READERS)
    file = folder / f"x{draw.pick(ENDINGS)}"
    file.write_bytes(draw.rest())
    with untouched(folder):
        found = read(file)
        if found != read(file):
            raise BrokenContract("reads something else the second time")
        found.digest if read is read_refusals else found.sha256  # type: ignore[attr-defined]  # noqa: B018


def _seeds() -> Sequence[bytes]:
    return (
        b"\0\0" + b'{"prompt": "a", "category": "b"}\n{"goal": "c", "target": "d"}\n',
        b"\0\1" + b'goal,target\n"a, b",c\nd,e\n',
        b"\0\2" + b'{"jailbreaks": [{"goal": "a", "prompt": "b", "index": 1}]}',
        b"\0\2" + b'{"id": [{"test_case": "a", "generation": "b", "label": 1}]}',
        b"\0\3" + b"# comment\nfirst\nsecond\n",
        b"\1\0"
        + b'{"prompt": [{"role": "user", "content": "a"}], "reference": "b"}\n{"document": "c", "summary1": "d"}',
        b"\0\1" + b'id;prompt;label\n1;"a ""b""\nc";safe\n2;d;unsafe\n',
        b"\0\1" + gzip.compress(b"goal,target\na,b\n", mtime=0),
        b"\0\0"
        + b'{"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "turns": ["a", "b"]}',
        b"\1\0" + b'{"question": "a", "choices": ["b", "c"], "answer": 1}\n{"question": "a", "answer": "b #### 2"}',
        b"\3\0" + b'{"question": "a", "answer": {"value": "b"}, "context": [["t", ["s"]]]}',
        b"\4\0" + b'{"text": "a", "label": "unsafe", "tags": {"x": true}}\n{"text": "b", "label": "safe"}',
        b"\5\0" + b'{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}',
        b"\5\0" + b'{"instruction": "a", "input": "b", "output": "#E1 = LLM[c]"}\n{"question": "a", "plan": "b"}',
        b"\2\2" + b'{"name": "n", "version": "1", "prefixes": ["I cannot", "Sorry"], "matching": "prefix"}',
    )


_WORDS = (
    b'"prompt":',
    b'"goal":',
    b'"turns":',
    b'"choices":',
    b'"label":',
    b"\x1f\x8b",
    b'"reference":',
    b'"role":"user"',
    b'"content":',
    b'"prefixes":',
    b"\\ud800",
    b"1e999",
)
TARGETS = (Target("prompts", "prompts, references and refusal lists", _fuzz, _seeds, _WORDS),)
