"""What comes out of a batch, and the settings that determine it: the data between the work and the dataset."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from s3lora.fleet.results.rows import Row
from s3lora.fleet.results.schema import SCHEMA_VERSION, Table
from s3lora.measure.configuration import Configuration
from s3lora.needs import need


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that determines the numbers of a fleet; results of other settings are never mixed with them.

    `adapter` is which one is taken where a file holds several; None makes such a file an error.
    """

    scan: Configuration = field(default_factory=Configuration)
    signature: bool = False
    schema_version: int = SCHEMA_VERSION
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """What the driver keeps of a row: enough to know the input again, and its content."""

    uri: str
    fingerprint: str | None
    content: str | None = None
    tensors: str | None = None
    modules: int = 0
    kind: str | None = None
    transient: bool = False


@dataclass(frozen=True, slots=True)
class MeasuredBatch:
    """What became of a batch: the rows as Parquet, a trace of each, and the inputs that have not changed.

    `copies` are rows of `adapters` whose content the dataset has: their measurement is copied, not made again.
    """

    tables: dict[Table, bytes]
    traces: tuple[Trace, ...]
    unchanged: tuple[str, ...]
    copies: tuple[Row, ...] = ()


def trace_of(row: Row) -> Trace:
    """Return what is kept of a row of `adapters`."""
    return Trace(row["uri"], row["fingerprint"], row["content"], row["tensors"], row["modules"])


def to_parquet(table: Any) -> bytes:
    """Return a table as a Parquet file: the same bytes for the same rows."""
    buffer = io.BytesIO()
    need("pyarrow.parquet", "fleet").write_table(
        table.combine_chunks(), buffer, compression="zstd", compression_level=1
    )
    return buffer.getvalue()
