"""What `s3lora.json` says of a sum of adapters: what was added up, and how far what is written is from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import msgspec

from s3lora.adapter.digest import FileDigest, Source
from s3lora.measure.scan import Tool
from s3lora.rewrite.record import WrittenRecord

#: Of `s3lora.json` in the folder of a sum.
SUM_VERSION = 1


@dataclass(frozen=True, slots=True)
class SummedModule:
    """One module: the rank that each adapter has there, None where it lacks it, and the `rank` of the sum.

    `error` is ‖ΔW − ΔW′‖_F / ‖ΔW‖_F of the exact sum ΔW and what is written, None where the sum is zero.
    """

    path: str
    ranks: tuple[int | None, ...]
    rank: int
    error: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SumProvenance(WrittenRecord):
    """The content of `s3lora.json` of a sum of adapters: `sources` and `weights` in the order given.

    `rank` or `energy` is what was asked for where the sum was resized. `error` is that of all modules together.
    """

    word: ClassVar[str] = "added up"

    schema_version: int = SUM_VERSION
    kind: Literal["sum"] = "sum"
    tool: Tool = field(default_factory=Tool)
    sources: tuple[Source, ...]
    weights: tuple[float, ...]
    rank: int | None = None
    energy: float | None = None
    modules: tuple[SummedModule, ...]
    error: float | None
    warnings: tuple[str, ...]
    written: tuple[FileDigest, ...]

    @property
    def done(self) -> str:
        """Return in words how many modules were written, and of which ranks."""
        ranks = sorted({module.rank for module in self.modules})
        told = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        return f"the sum of {len(self.sources)} adapters: {len(self.modules):,} modules of {told}"

    @property
    def story(self) -> dict[str, str]:
        """Return what goes into `__metadata__`, so that a weights file without its folder still tells its story."""
        story = {
            "version": self.tool.version,
            "sum": [
                [one.sha256, weight, *([one.adapter] if one.adapter else [])]
                for one, weight in zip(self.sources, self.weights, strict=True)
            ],
        }
        return {"s3lora": msgspec.json.encode(story).decode()}


__all__ = ["SUM_VERSION", "SumProvenance", "SummedModule"]
