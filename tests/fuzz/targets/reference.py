"""References: what a fleet's adapters are like, in one Parquet file that others may have made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import s3lora
from s3lora.measure.cells import ADAPTER_LEVELS, MODULE_LEVELS
from s3lora.spectrum.indices import INDICES
from tests.fuzz.contract import emptied, untouched, work_folder
from tests.fuzz.draw import INTEGERS, NUMBERS, Draw
from tests.fuzz.measuring import put, shown
from tests.fuzz.target import Target


@cache
def _scan() -> s3lora.Scan:
    with work_folder() as folder:
        return s3lora.scan(put(emptied(folder / "made") / "in"))


def _facts() -> dict[str, Any]:
    from s3lora.fleet.populations.reference import Facts
    from s3lora.fleet.results.outcome import Settings

    facts = Facts(name="ours", settings=Settings(), adapters=80, modules=480, copies=0, families={"": 80}, recipes=(),
                  more_recipes=0)  # fmt: skip
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(facts))
    return made


def _rows() -> list[dict[str, Any]]:
    """Return the cells of all modules and of all adapters, for every index."""
    from s3lora.fleet.populations.reference import GRID, SUMMARIES

    names = [("module", len(MODULE_LEVELS) - 1, name) for name in INDICES]
    names += [("adapter", len(ADAPTER_LEVELS) - 1, f"{name}_{one}") for name in INDICES for one in SUMMARIES]
    keys = dict.fromkeys(("base_family", "projection", "role", "band", "third"))
    return [{"scope": scope, "level": level, **keys, "index": name, "adapters": 80, "values": 480, "median": 0.5,
             "mad": 0.1, "quantiles": list(GRID), "sources": None} for scope, level, name in names]  # fmt: skip


def _file(draw: Draw) -> bytes:
    if draw.chance(4):
        return draw.rest()
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from s3lora.fleet.populations.reference import FACTS_KEY, arrow_schema

    facts = draw.edited(_facts())
    rows, schema = _rows(), arrow_schema()
    for _ in range(draw.number(4)):
        row = draw.pick(rows)
        field = draw.pick(sorted(row))
        if field == "quantiles":
            odd = [draw.pick(NUMBERS)] * len(rows[0]["quantiles"] or ())
            row[field] = draw.pick(([], None, odd, [None] * len(odd), [*odd, 1.0]))
        elif field in ("median", "mad"):
            row[field] = draw.pick((*NUMBERS, None, float("nan"), float("inf")))
        elif pa.types.is_integer(schema.field(field).type):
            row[field] = draw.pick((None, *(n for n in INTEGERS if abs(n) < 2**31)))
        else:
            row[field] = draw.pick((None, draw.word()))
    edits = [(draw.number(65_535), draw.number(255)) for _ in range(draw.number(3))] if draw.chance(3) else []
    schema = schema.with_metadata({FACTS_KEY: json.dumps(facts).encode("utf-8", "replace")})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    raw = bytearray(buffer.getvalue())
    for offset, value in edits:
        raw[-1 - offset % len(raw)] = value
    return bytes(raw)


def _fuzz(data: bytes, folder: Path) -> None:
    from s3lora.fleet.populations.standing import Reference
    from s3lora.report.documents import scan_document, to_json

    file = folder / "reference.parquet"
    file.write_bytes(_file(Draw(data)))
    with untouched(folder):
        against = Reference(file).compare(_scan())
    json.loads(to_json(scan_document(_scan(), None, against)))
    shown(_scan())


def _seeds() -> Sequence[bytes]:
    return (b"", bytes(20), b"\3" + _file(Draw(b"")), b"\0\3\1\2\0\0\1\3\0\1\1\4\2\3\2" * 2)


TARGETS = (Target("reference", "reference of a fleet, as Parquet", _fuzz, _seeds, (b"PAR1", b"s3lora_reference"),
                  ("pyarrow", "duckdb"), quick=100),)  # fmt: skip
