"""Documents that the Lookup tool searches: given by a task, made from a fact base, or read from a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3lora.errors import S3LoRAError, printable
from s3lora.evaluate.data.content import read_text
from s3lora.files import reason

ENDINGS = (".md", ".txt")
MAX_FILES = 10_000
MAX_BYTES = 64 * 2**20
MAX_TITLE = 200


class DocumentError(S3LoRAError):
    """A folder that cannot be read as documents."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its title. A line `name: value` of it is a fact: the `name of title`."""

    title: str
    text: str


def read_documents(folder: str | Path) -> tuple[Document, ...]:
    """Read all .txt and .md files of a folder and its subfolders, in the order of their paths.

    The title of a document is its first line where that is a heading (`# Title`), else the file's name. Raises an
    S3LoRAError that names the file, and the line of what is not UTF-8; at most 10,000 files of 64 MiB in all are read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DocumentError("there is no such folder", file=folder, fix="give a folder of .txt or .md files")
    files = sorted(_texts(folder), key=lambda path: path.relative_to(folder).as_posix())
    if not 0 < len(files) <= MAX_FILES:
        problem = "holds no .txt or .md file" if not files else f"holds more than {MAX_FILES:,} files"
        raise DocumentError(problem, file=folder, fix="give a folder of documents")
    documents, left = [], MAX_BYTES
    for path in files:
        if path.stat().st_size > left:
            problem = f"holds more than {MAX_BYTES // 2**20} MiB of documents"
            raise DocumentError(problem, file=folder, fix="give a smaller folder")
        text = read_text(path, left)
        left -= len(text.encode())
        documents.append(_document(path.stem, text))
    return tuple(documents)


def _texts(folder: Path) -> Iterator[Path]:
    """Yield the texts below a folder, however deep it is."""
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                found = list(entries)
        except OSError as error:
            raise DocumentError(f"cannot be listed ({reason(error)})", file=folder) from None
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif Path(entry.name).suffix.lower() in ENDINGS and os.path.isfile(entry.path):
                yield Path(entry.path)


def _document(name: str, text: str) -> Document:
    first, _, rest = text.lstrip().partition("\n")
    if first.startswith("# ") and first[2:].strip():
        return Document(printable(first[2:].strip(), MAX_TITLE), rest)
    return Document(printable(name, MAX_TITLE), text)
