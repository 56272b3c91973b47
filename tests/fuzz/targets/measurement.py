"""`evaluation.json`, `sweep.json` and `tuning.json`: measurements that others made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from s3lora.evaluate.figures import figures_of
from s3lora.evaluate.reading import read_measurement
from s3lora.report.card import card_section
from tests.fuzz.contract import BrokenContract, check_lines, refusable, untouched
from tests.fuzz.draw import Draw
from tests.fuzz.target import Target
from tests.fuzz.targets.reference import _scan as scanned
from tests.report import measured


@cache
def _documents() -> tuple[Any, ...]:
    """Return one result of each kind, smaller than in earnest."""
    sweep = measured.sweep()
    small = dataclasses.replace(sweep, points=sweep.points[:3], spreads=sweep.spreads[:2], pareto=(0, 1))
    made = (measured.evaluation(), small, measured.tuning())
    return tuple(json.loads(msgspec.json.encode(document)) for document in made)


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    document = draw.pick(_documents())
    file = folder / "result.json"
    file.write_bytes(draw.rest() if draw.chance(3) else json.dumps(draw.edited(document)).encode())
    with untouched(folder):
        found = read_measurement(file)
    again = folder / "again.json"
    again.write_bytes(msgspec.json.encode(found))
    if read_measurement(again) != found:
        raise BrokenContract("what was written of a measurement is not read as the same")
    source = measured.source()
    with refusable():
        figures = figures_of(found, source, None, file)
        check_lines(
            card_section(dataclasses.replace(scanned(), source=source), "ssi", None, figures, ["s3lora", "card"])
        )


def _seeds() -> Sequence[bytes]:
    raw = [b"%c\2" % i + json.dumps(document).encode() for i, document in enumerate(_documents())]
    return (*raw, *(b"%c" % i + bytes(9) for i in range(3)), b"\1\0\2\1\3\1\4\1\2\1\3" * 3)


_WORDS = (b'"variants":', b'"points":', b'"tried":', b'"metrics":', b'"schema_version":1', b"null")
TARGETS = (Target("measurement", "evaluation.json, sweep.json and tuning.json", _fuzz, _seeds, _WORDS),)
