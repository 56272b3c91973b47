"""`s3lora.json`: what a pruned adapter says of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import s3lora
from tests.fuzz.contract import command, emptied, refusable, untouched, work_folder
from tests.fuzz.draw import Draw
from tests.fuzz.measuring import CONFIG, WEIGHTS, put
from tests.fuzz.target import Target

RECORD = "s3lora.json"


@cache
def _pruned() -> dict[str, bytes]:
    with work_folder() as folder:
        path = put(emptied(folder / "made") / "in")
        with s3lora.open_adapter(path) as adapter:
            measured = s3lora.scan(adapter)
            chosen = s3lora.select(measured, s3lora.Top(2))
            s3lora.write_pruned(s3lora.prune(adapter, chosen), measured, folder / "out")
        return {name: (folder / "out" / name).read_bytes() for name in (WEIGHTS, CONFIG, RECORD)}


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    record: Any = json.loads(_pruned()[RECORD])
    raw = draw.rest() if draw.chance(3) else json.dumps(draw.edited(record)).encode()
    pruned = folder / "pruned"
    pruned.mkdir()
    for name, content in (_pruned() | {RECORD: raw}).items():
        (pruned / name).write_bytes(content)
    found = s3lora.read_provenance(pruned)
    repr(found.modules)
    repr(found.done)
    put(folder / "in")
    with untouched(folder / "in"), untouched(pruned):
        command("card", pruned, "--print")
        with refusable():
            s3lora.restore(pruned, folder / "in", folder / "back")
        with refusable():
            s3lora.restore(pruned, folder / "in", folder / "some", modules=[one.path for one in found.modules[:1]])


def _seeds() -> Sequence[bytes]:
    return (b"", bytes(20), b"\2" + _pruned()[RECORD], b"\0\2\1\0\3\1\2\3\1" * 3, b"\0\1\2\1\1\3\3\3\1\0\2\5")


_WORDS = (b'"schema_version":2', b'"plan":', b'"mode":"zero"', b'"settings":{', b'"written":[]', b'"zeroed":')
TARGETS = (Target("provenance", "s3lora.json of a pruned adapter", _fuzz, _seeds, _WORDS, quick=60),)
