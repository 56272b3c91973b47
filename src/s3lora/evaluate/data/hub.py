"""Data sets on the Hugging Face Hub, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from s3lora.errors import printable
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import DataRow
from s3lora.evaluate.data.json_rows import numbered
from s3lora.needs import need

#: owner/name, then a configuration and a split, as in JailbreakBench/JBB-Behaviors:behaviors:harmful.
DATA_SET = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]*))?(?::([\w.-]+))?")
FILE_ENDINGS = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".txt", ".parquet", ".gz")


def data_set_parts(name: str, path: Path) -> tuple[str, str | None, str | None] | None:
    """Return owner/name, configuration and split where this names a data set; None where it means the file at `path`.

    >>> data_set_parts("owner/name::test", Path("owner/name::test"))
    ('owner/name', None, 'test')
    """
    found = DATA_SET.fullmatch(name)
    if not found or path.suffix.lower() in FILE_ENDINGS or path.is_file():
        return None
    return found[1], found[2] or None, found[3]


def data_set_rows(
    name: str, configuration: str | None, split: str | None, preferred: Sequence[str]
) -> Iterator[DataRow]:
    """Yield the rows of a data set; without a split those of its only one, or of the first of `preferred` it has.

    Raises MissingPackageError without the package datasets, and DataFileError where the data set cannot be loaded.
    """
    data_sets = need("datasets")
    try:
        loaded = data_sets.load_dataset(name, configuration, split=split)
    # A network, a hub and half a dozen file formats fail in as many ways, all of them for the user to mend.
    except Exception as problem:
        reason = printable(str(problem).strip().split("\n")[0] or type(problem).__name__)
        fix = "check its name, configuration and split, or give a local file where there is no network"
        raise DataFileError(f"this data set cannot be loaded ({reason})", file=name, fix=fix) from None
    if isinstance(loaded, dict):
        splits = list(loaded)
        chosen = next((choice for choice in (*preferred, *splits[: len(splits) == 1]) if choice in splits), None)
        if chosen is None:
            choice = f"{name}:{configuration or ''}:{splits[0]}"
            raise DataFileError(f"has the splits {', '.join(splits)}", file=name, fix=f"name one, as in {choice}")
        loaded = loaded[chosen]
    yield from numbered(loaded)
