"""Rows of parquet files, by pyarrow, in bounded memory.

A few kilobytes of parquet can stand for gigabytes: pages are compressed, and a value that repeats is stored once. So
what the file says of its own size is checked before anything is unpacked, texts stay in the dictionary in which they
are stored until their lengths are known, and what was given out is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from s3lora.errors import printable
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import DataRow
from s3lora.needs import need

#: Bytes of the longest cell; values of a column; rows unpacked at once, and the bytes that lists in them may take.
MAX_CELL = 2**20
MAX_VALUES = 5_000_000
AT_ONCE = 256
MAX_AT_ONCE = 2**29


def parquet_rows(data: bytes, where: object, most: int) -> Iterator[DataRow]:
    """Yield the rows of a parquet file that unpacks to at most `most` bytes.

    Raises MissingPackageError without pyarrow, and DataFileError for a file that is damaged or unpacks to more.
    """
    arrow, parquet = need("pyarrow", "fleet"), need("pyarrow.parquet", "fleet")
    left = most
    try:
        at_once, texts = _checked(parquet.ParquetFile(arrow.BufferReader(data)), where, most)
        file = parquet.ParquetFile(arrow.BufferReader(data), read_dictionary=texts)
        n = 0
        for batch in file.iter_batches(batch_size=at_once):
            _check_cells(arrow, batch, where)
            for row in batch.to_pylist():
                n += 1
                left -= _size(row)
                if left < 0:
                    raise DataFileError(f"unpacks to more than {most:,} bytes", file=where, fix="cut it")
                yield f"row {n}", row
    except (arrow.ArrowException, OSError, ValueError, OverflowError, UnicodeDecodeError) as error:
        reason = printable(str(error).strip().split("\n")[0] or type(error).__name__, 160)
        raise DataFileError(f"is parquet that cannot be read ({reason})", file=where, fix="fetch it again") from None


def _checked(file: Any, where: object, most: int) -> tuple[int, list[str]]:
    """Return how many rows to unpack at once, and the columns of texts; raise where the file says it is too large."""
    metadata, schema = file.metadata, file.schema
    nested: dict[int, int] = {}
    texts, total = [], 0
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(metadata.num_columns):
            chunk, column = group.column(c), schema.column(c)
            size = chunk.total_uncompressed_size
            if size < 0 or not 0 <= chunk.num_values <= MAX_VALUES:
                raise DataFileError(f"holds more than {MAX_VALUES:,} values in a column", file=where, fix="cut it")
            total += size
            if "." in column.path or column.max_repetition_level:
                nested[c] = max(nested.get(c, 0), size)
            elif column.physical_type == "BYTE_ARRAY" and g == 0:
                texts.append(column.path)
    if total > most:
        raise DataFileError(f"unpacks to more than {most:,} bytes", file=where, fix="cut it")
    # Within lists texts cannot be kept in a dictionary: no cell is larger than its column.
    return max(1, min(AT_ONCE, MAX_AT_ONCE // max(1, sum(nested.values())))), texts


def _check_cells(arrow: Any, batch: Any, where: object) -> None:
    """Raise where a text that is still stored once is too long to be given out."""
    for column in batch.columns:
        if arrow.types.is_dictionary(column.type) and len(column.dictionary):
            longest = need("pyarrow.compute", "fleet").max(arrow.compute.binary_length(column.dictionary)).as_py() or 0
            if longest > MAX_CELL:
                raise DataFileError(f"holds a cell of more than {MAX_CELL:,} bytes", file=where, fix="cut it")


def _size(value: object) -> int:
    """Return about how many bytes a value takes."""
    if isinstance(value, str | bytes):
        return 8 + len(value)
    if isinstance(value, dict):
        return 8 + sum(map(_size, value.values()))
    return 8 + sum(map(_size, value)) if isinstance(value, list) else 8
