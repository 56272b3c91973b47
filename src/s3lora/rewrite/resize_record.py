"""What `s3lora.json` says of a resized adapter: which rank each module got, and what that lost."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import msgspec

from s3lora.adapter.digest import FileDigest, Source
from s3lora.measure.scan import Tool
from s3lora.rewrite.one_source import OfOneSource
from s3lora.rewrite.record import WrittenRecord

#: Of `s3lora.json` in the folder of a resized adapter.
RESIZE_VERSION = 1


@dataclass(frozen=True, slots=True)
class ResizedModule:
    """One module: its rank `before` and now, and ‖ΔW − ΔW′‖_F / ‖ΔW‖_F as it is written.

    `error` is 0 where the module stays as it is, and None for a zero update, which has no size to compare with.
    """

    path: str
    before: int
    rank: int
    error: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ResizeProvenance(WrittenRecord, OfOneSource):
    """The content of `s3lora.json` of a resized adapter, which is also what `resize` returns.

    One of `rank` and `energy` was asked for. `modules` are all modules of the adapter, in its order. `error` is
    ‖ΔW − ΔW′‖_F / ‖ΔW‖_F over all of them together, None where all are zero updates.
    """

    word: ClassVar[str] = "resized"

    schema_version: int = RESIZE_VERSION
    kind: Literal["resize"] = "resize"
    tool: Tool = field(default_factory=Tool)
    source: Source
    rank: int | None = None
    energy: float | None = None
    loader: str
    bake: bool = False
    modules: tuple[ResizedModule, ...]
    error: float | None
    warnings: tuple[str, ...]
    written: tuple[FileDigest, ...]

    @property
    def asked(self) -> str:
        """Return what was asked for, as in `rank 4` or `99% of the energy`."""
        return f"rank {self.rank}" if self.energy is None else f"{100 * self.energy:.10g}% of the energy"

    @property
    def worst(self) -> ResizedModule | None:
        """Return the module that lost most by its own measure, None where none lost anything."""
        lost = [module for module in self.modules if module.error]
        return max(lost, key=lambda module: module.error or 0.0) if lost else None

    @property
    def changed(self) -> tuple[ResizedModule, ...]:
        """Return the modules that got another rank."""
        return tuple(module for module in self.modules if module.rank != module.before)

    @property
    def done(self) -> str:
        """Return in words how many modules got which rank."""
        ranks = Counter((module.before, module.rank) for module in self.changed)
        told = ", ".join(f"{count:,} from rank {old} to {new}" for (old, new), count in sorted(ranks.items()))
        return told or "no module changed"

    @property
    def story(self) -> dict[str, str]:
        """Return what goes into `__metadata__`, so that a weights file without its folder still tells its story."""
        story = {
            "version": self.tool.version,
            "source_sha256": self.source.sha256,
            "resize": self.asked,
            "modules": {module.path: [module.before, module.rank] for module in self.changed},
        }
        return {"s3lora": msgspec.json.encode(story).decode()}


def relative(lost: float, whole: float) -> float | None:
    """Return √(lost / whole), of squared norms; None where there is nothing to compare with."""
    return math.sqrt(lost / whole) if whole else None


__all__ = ["RESIZE_VERSION", "ResizeProvenance", "ResizedModule", "relative"]
