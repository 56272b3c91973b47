"""Parquet files that anybody may have written: what they unpack to is known before it is unpacked."""

from __future__ import annotations

from typing import Any

from s3lora.errors import AdapterFileError
from s3lora.needs import need

#: Most rows, values of a column in one group of rows, and bytes of all that is unpacked.
ROWS, VALUES, BYTES = 10_000_000, 250_000_000, 4 << 30
#: Rows that are looked at together.
_AT_ONCE = 65_536


def refuse_large(source: Any, label: object) -> None:
    """Raise AdapterFileError for a Parquet file that stands for too much: a few bytes may stand for any number of rows.

    `source` is what pyarrow opens. Raises what pyarrow raises for what is no Parquet file.
    """
    pq = need("pyarrow.parquet", "fleet")
    with pq.ParquetFile(source) as opened:
        metadata, schema = opened.metadata, opened.schema
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(metadata.num_columns)]
        texts = [
            one.path
            for one in map(schema.column, range(len(schema)))
            if one.physical_type == "BYTE_ARRAY" and not one.max_repetition_level and "." not in one.path
        ]
    size = sum(max(0, chunk.total_uncompressed_size) for chunk in chunks)
    if not 0 <= metadata.num_rows <= ROWS or any(not 0 <= chunk.num_values <= VALUES for chunk in chunks):
        raise AdapterFileError(f"holds more than {ROWS:,} rows or {VALUES:,} values", file=label)
    # A text stands in the file at least once, so that a small file of few rows needs no second look.
    if size > BYTES or (texts and size * metadata.num_rows > BYTES and _texts(source, texts) > BYTES):
        raise AdapterFileError(f"unpacks to more than {BYTES:,} bytes", file=label)


def _texts(source: Any, columns: list[str]) -> int:
    """Return how many bytes the texts of these columns have, each as often as it stands there."""
    pq, pc = need("pyarrow.parquet", "fleet"), need("pyarrow.compute", "fleet")
    total = 0
    with pq.ParquetFile(source, read_dictionary=columns) as opened:
        for batch in opened.iter_batches(batch_size=_AT_ONCE, columns=columns):
            for column in batch.columns:
                lengths = pc.cast(pc.binary_length(column.dictionary), "int64")
                total += pc.sum(lengths.take(column.indices)).as_py() or 0
            if total > BYTES:
                break
    return total
