"""A dataset as a database: DuckDB with a view for each table, which can read nothing else."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s3lora.errors import AdapterFileError, printable
from s3lora.files import check_regular, reason
from s3lora.fleet.results.dataset import PARTS, part_files
from s3lora.fleet.results.schema import FORM, FORMS, INSIDE, TABLES, Column, Table
from s3lora.needs import need

#: Columns that a dataset may lack as a whole, for an older s3lora wrote it; a query finds null in them.
_LATER: dict[Table, tuple[Column, ...]] = {"adapters": (*INSIDE, FORMS), "modules": (FORM,)}
_TYPES = {"int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR"}


@contextlib.contextmanager
def connect(folder: Path) -> Iterator[Any]:
    """Give a DuckDB connection with the views `adapters`, `modules` and `errors`.

    What is asked can read the files of this dataset and no others, write none, and change none of these settings.
    Raises AdapterFileError if `folder` holds no dataset.
    """
    duckdb = need("duckdb", "fleet")
    for table in TABLES:
        for file in part_files(folder, table):
            _check(Path(file))
    database = duckdb.connect(":memory:")
    try:
        parts = os.path.realpath(folder / PARTS)
        pattern = glob.escape(parts)
        for table in TABLES:
            files = _quoted(f"{pattern}/[0-9]*/{table}.parquet")
            # A part that an older s3lora wrote lacks the columns of newer indices.
            source = f"read_parquet({files}, union_by_name = true)"
            there = {row[0] for row in database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
            later = (column for column in _LATER.get(table, ()) if column.name not in there)
            nulls = "".join(f", CAST(NULL AS {_TYPES[column.type]}) AS {column.name}" for column in later)
            database.execute(f"CREATE VIEW {table} AS SELECT *{nulls} FROM {source}")
        # DuckDB holds patterns, too, against the folders that it may read.
        database.execute(f"SET allowed_directories = [{_quoted(parts)}, {_quoted(pattern)}]")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        yield database
    except duckdb.Error as error:
        raise AdapterFileError(f"cannot be read as a dataset: {printable(error, 400)}", file=folder) from None
    finally:
        database.close()


def _check(file: Path) -> None:
    """Raise AdapterFileError for what DuckDB would wait for, and for ever: a named pipe, say."""
    try:
        check_regular(file)
    except OSError as error:
        raise AdapterFileError(f"cannot be read ({reason(error)})", file=file) from None


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
