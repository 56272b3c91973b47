"""Results as JSON, out of which `s3lora report` makes a page again: anybody may have written them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from s3lora.report.again import page_of
from tests.fuzz.draw import Draw
from tests.fuzz.target import Target

DOCUMENTS = Path(__file__).parents[2] / "data" / "documents" / "1"
KINDS = ("scan", "compare", "eval", "sweep", "tune", "repair", "population")


@cache
def _document(kind: str) -> str:
    return (DOCUMENTS / f"{kind}.json").read_text(encoding="utf-8")


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    kind = draw.pick(KINDS)
    raw = draw.rest() if draw.chance(20) else json.dumps(draw.edited(json.loads(_document(kind)))).encode()
    (folder / "result.json").write_bytes(raw)
    assert page_of(folder / "result.json").startswith("<!doctype html>")


def _seeds() -> Sequence[bytes]:
    return [bytes([i]) + bytes(range(i, 40 + i)) for i in range(len(KINDS))]


_WORDS = (b'"modules":[]', b'"steps":', b'"counts":[0]', b'"sharpest":"x"', b"1e308", b"-1", b'""')
TARGETS = (Target("results", "results that `report` shows again", _fuzz, _seeds, _WORDS, quick=60),)
