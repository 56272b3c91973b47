"""What an adapter was made of: names, sizes and SHA-256 of its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from s3lora.adapter.model import Adapter
from s3lora.adapter.regular import RegularFile
from s3lora.errors import printable


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file: its name without folder, its size in bytes and its SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a result comes from.

    `sha256` is that of the weights file, as `sha256sum` prints it; for a sharded adapter, that of the lines
    `<sha256>  <name>` of its shards in order of name. It is None for a model in memory. `adapter` is which of several
    adapters of one file was meant, None where there is one.
    """

    name: str
    format: str
    sha256: str | None
    files: tuple[FileDigest, ...]
    base_model: str | None
    adapter: str | None = None

    @property
    def identity(self) -> list[list[str]]:
        """Return what tells one adapter from every other: names and digests of its files, and which of several in them.

        >>> Source("a", "peft", "00", (FileDigest("a.safetensors", 9, "00"),), None, "style").identity
        [['a.safetensors', '00'], ['style']]
        """
        files = [[file.name, file.sha256] for file in self.files]
        return files if self.adapter is None else [*files, [self.adapter]]


def source_of(adapter: Adapter) -> Source:
    """Read all files of the adapter once and return their digests.

    Raises AdapterFileError where one was changed since it was opened.
    """
    weights = tuple(FileDigest(printable(file.name, 255), file.file.size, file.file.sha256()) for file in adapter.files)
    adapter.check_unchanged()
    return source_with(adapter, weights)


def source_with(adapter: Adapter, weights: tuple[FileDigest, ...]) -> Source:
    """Return the source, its weights files having these digests; that of the configuration is of what was parsed."""
    config: tuple[FileDigest, ...] = ()
    if adapter.config_file is not None and adapter.config_raw is not None:
        raw = adapter.config_raw
        config = (FileDigest(adapter.config_file.name, len(raw), hashlib.sha256(raw).hexdigest()),)
    return Source(
        name=adapter.name,
        format=adapter.format,
        sha256=combined(weights),
        files=weights + config,
        base_model=adapter.base_model,
        adapter=adapter.picked,
    )


def combined(weights: tuple[FileDigest, ...]) -> str | None:
    """Return one digest for all weights files."""
    if not weights:
        return None
    if len(weights) == 1:
        return weights[0].sha256
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in sorted(weights, key=lambda file: file.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digest(path: Path) -> FileDigest:
    """Return the digest of one file."""
    file = RegularFile(path)
    try:
        return FileDigest(path.name, file.size, file.sha256())
    finally:
        file.close()
