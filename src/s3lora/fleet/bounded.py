"""Parquet files that anybody may have written: what they unpack to is known before it is unpacked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from s3lora.errors import AdapterFileError
from s3lora.needs import need

#: Most rows, values of a column in one group of rows, and bytes of all that is unpacked.
ROWS, VALUES, BYTES = 10_000_000, 250_000_000, 4 << 30
#: Rows that are looked at together.
_AT_ONCE = 65_536


def refuse_large(source: Any, label: object, columns: Collection[str] | None = None) -> None:
    """Raise AdapterFileError for a Parquet file that stands for too much: a few bytes may stand for any number of rows.

    `source` is what pyarrow opens; of `columns` are those that will be read, all unless given. Raises what pyarrow
    raises for what is no Parquet file.
    """
    pq = need("pyarrow.parquet", "fleet")
    with pq.ParquetFile(source) as opened:
        metadata, schema = opened.metadata, opened.schema
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        kept = [
            (i, schema.column(i))
            for i in range(metadata.num_columns)
            if columns is None or any(f"{schema.column(i).path}.".startswith(f"{one}.") for one in columns)
        ]
        chunks = [(one, group.column(i)) for group in groups for i, one in kept]
        texts = [one.path for _, one in kept if one.physical_type == "BYTE_ARRAY"]
    size = sum(max(0, chunk.total_uncompressed_size) for _, chunk in chunks)
    # Of a fixed length one value in the file may stand for all.
    size += sum(one.length * chunk.num_values for one, chunk in chunks if one.physical_type == "FIXED_LEN_BYTE_ARRAY")
    if not 0 <= metadata.num_rows <= ROWS or any(not 0 <= chunk.num_values <= VALUES for _, chunk in chunks):
        raise AdapterFileError(f"holds more than {ROWS:,} rows or {VALUES:,} values", file=label)
    values = max((chunk.num_values for _, chunk in chunks), default=0)
    # A text stands in the file at least once, so that a small file of few values needs no second look.
    if size > BYTES or (texts and size * values > BYTES and _texts(source, texts) > BYTES):
        raise AdapterFileError(f"unpacks to more than {BYTES:,} bytes", file=label)


def _texts(source: Any, columns: list[str]) -> int:
    """Return how many bytes the texts of these columns have, each as often as it stands there."""
    pq = need("pyarrow.parquet", "fleet")
    total = 0
    with pq.ParquetFile(source, read_dictionary=columns) as opened:
        for batch in opened.iter_batches(batch_size=_AT_ONCE, columns=columns):
            total += sum(map(_bytes_of, batch.columns))
            if total > BYTES:
                break
    return total


def _bytes_of(column: Any) -> int:
    """Return how many bytes the texts of a column have, within lists and structures too."""
    pa, pc = need("pyarrow", "fleet"), need("pyarrow.compute", "fleet")
    if pa.types.is_dictionary(column.type):
        lengths = pc.cast(pc.binary_length(column.dictionary), "int64")
        return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
    if pa.types.is_nested(column.type):
        inner = column.flatten()
        return sum(map(_bytes_of, inner if isinstance(inner, list) else [inner]))
    return int(column.nbytes)
