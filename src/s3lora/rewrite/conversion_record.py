"""What `s3lora.json` says of a converted adapter: the format and loader it was written for, and what that changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from s3lora.adapter.digest import FileDigest, Source
from s3lora.adapter.loaders.problems import DropPart
from s3lora.measure.scan import Tool
from s3lora.rewrite.one_source import OfOneSource
from s3lora.rewrite.record import WrittenRecord

#: Of the record that a conversion leaves.
CONVERSION_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConversionRecord(WrittenRecord, OfOneSource):
    """The content of `s3lora.json` beside a converted adapter: where it came from, and what was done.

    `difference` is the largest ‖ΔW′ − ΔW‖_F / ‖ΔW‖_F over all modules, measured on the written file, and `differs`
    names the module that has it, None where all updates are equal. `renamed` gives the paths that changed. `loader` is
    the one it was written for, None for any that reads the format, and `base` the configuration that was given.
    """

    word: ClassVar[str] = "converted"

    kind: str = "conversion"
    schema_version: int = CONVERSION_VERSION
    tool: Tool = field(default_factory=Tool)
    source: Source
    to: str
    loader: str | None = None
    bake: bool
    pad_rank: int | None
    dtype: str | None
    base: FileDigest | None = None
    drop: tuple[DropPart, ...] = ()
    dropped: tuple[str, ...] = ()
    modules: int
    renamed: dict[str, str]
    difference: float
    differs: str | None
    warnings: tuple[str, ...]
    written: tuple[FileDigest, ...]

    @property
    def done(self) -> str:
        """Return in words what was written."""
        to = self.to if self.loader is None else f"{self.to} for {self.loader}"
        how = [
            *(["scalings baked"] if self.bake else []),
            *(["ranks padded"] if self.pad_rank is not None else []),
            *([self.dtype] if self.dtype else []),
            *([f"{len(self.dropped):,} other tensors dropped ({', '.join(self.drop)})"] if self.dropped else []),
        ]
        many = "1 module" if self.modules == 1 else f"{self.modules:,} modules"
        return ", ".join((f"{many} written as {to}", *how, self.change))

    @property
    def change(self) -> str:
        """Return in words how far the updates are from those of the source."""
        return "every update equal" if self.differs is None else f"updates equal up to {self.difference:.2g}"


__all__ = ["CONVERSION_VERSION", "ConversionRecord"]
