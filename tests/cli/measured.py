"""What the tests of `eval`, `sweep` and `tune` share: short runs, and a search for what must not be told."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.prompts import built_in
from tests.command import Result

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
#: So few items and tokens that a run takes no time.
SHORT = ("--limit", "2", "--tokens", "12")
HARMFUL = {prompt.digest for prompt in built_in("harmful").prompts}


class Heard:
    """Listens to the model: what it answered to harmful prompts, and how often it was asked for anything."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.answers: set[str] = set()
        self.passes = 0
        generate, losses = LocalModel.generate, LocalModel.losses

        def listening(
            model: LocalModel, prompts: Sequence[Prompt], decoding: Decoding, batches: Any = None
        ) -> Iterator[tuple[int, Generation]]:
            self.passes += 1
            for i, answer in generate(model, prompts, decoding, batches):
                if prompts[i].digest in HARMFUL:
                    self.answers.add(answer.text)
                yield i, answer

        def counting(model: LocalModel, *arguments: Any) -> Any:
            self.passes += 1
            return losses(model, *arguments)

        patch.setattr(LocalModel, "generate", listening)
        patch.setattr(LocalModel, "losses", counting)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    return Heard(monkeypatch)


def contents(*places: Path) -> dict[Path, bytes]:
    """Return the bytes of every file under these folders, journals and hidden files included."""
    files = [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
    return {path: path.read_bytes() for path in files}


def found_in(texts: set[str], *places: Path) -> set[str]:
    """Return those of the texts that stand in a file there, as they are or as JSON or HTML writes them."""
    everything = b"\0".join(contents(*places).values())
    forms = (str, lambda text: json.dumps(text)[1:-1], html.escape, lambda text: html.escape(json.dumps(text)[1:-1]))
    return {text for text in texts if any(form(text).encode() in everything for form in forms)}


def is_clean(result: Result, folder: Path, *places: Path) -> bool:
    """Return whether neither a place on this disk nor a date or time stands in what was printed and written."""
    texts = [result.out, result.err, *(data.decode(errors="replace") for data in contents(folder).values())]
    time = re.compile(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b")
    return not any(str(place) in text for text in texts for place in places) and not any(map(time.search, texts))


def validated(name: str, text: str) -> Any:
    """Return the JSON, which is as the committed schema says."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    document = json.loads(text)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def one_line(result: Result, says: str) -> bool:
    """Return whether a command failed with one sentence, in which `says` is found, and nothing else."""
    assert (result.status, result.out) == (2, ""), result
    assert re.fullmatch(r"s3lora: [^\n]+\n", result.err), result.err
    assert result.err[:-1].isprintable()
    assert re.search(says, result.err), result.err
    return True
