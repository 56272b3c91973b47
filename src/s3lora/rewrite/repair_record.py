"""What `s3lora.json` says of a repaired adapter: how it was repaired, on which data, and what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import msgspec

from s3lora.adapter.digest import FileDigest, Source
from s3lora.adapter.loaders import loader_of
from s3lora.errors import UsageError, printable
from s3lora.measure.scan import Tool
from s3lora.rewrite.record import WrittenRecord

#: Of `s3lora.json` in the folder of a repaired adapter.
REPAIR_VERSION = 1


@dataclass(frozen=True, slots=True)
class RecordedData:
    """Prompts that a repair learned from, was tuned on or was tested on: their name, number and digest, and no text."""

    name: str
    n: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """The answer to one question of the acceptance card; `passed` is None where it cannot be told or was not asked."""

    question: str
    asked: bool
    passed: bool | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairFields:
    """How an adapter was repaired.

    Parameters:
        method: name of the method.
        settings: those of the method.
        strength: t in [0, 1]; at 0 nothing is changed.
        gates: what each singular value is multiplied by, by path; empty for a method without gates.
        data: what it learned from, was tuned on and was tested on, by the name of the part.
        limits: what it was allowed to cost, by name.
        lost_energy: share of Σσ² that was dropped to keep the ranks, in [0, 1]; None where nothing was.
        warnings: what a user should know.
        card: the acceptance card, from the part that nothing was chosen on.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    strength: float
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    data: Mapping[str, tuple[RecordedData, ...]] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    lost_energy: float | None = None
    warnings: tuple[str, ...] = ()
    card: tuple[RecordedAnswer, ...] = ()


@dataclass(frozen=True, slots=True)
class RepairedModule:
    """One module with new factors: its rank `before` and now, and what a trained bias of lora_B was multiplied by."""

    path: str
    before: int
    rank: int
    bias: float = 1.0
    action: Literal["repaired"] = "repaired"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RepairProvenance(WrittenRecord):
    """The content of `s3lora.json` of a repaired adapter: where it came from and what was done to it.

    `kind` tells it from a pruning's. `modules` are those with new factors; the others are as they were, bit for bit.
    """

    word: ClassVar[str] = "repaired"

    schema_version: int = REPAIR_VERSION
    kind: Literal["repair"] = "repair"
    tool: Tool = field(default_factory=Tool)
    source: Source
    repair: RepairFields
    loader: str
    bake: bool = False
    modules: tuple[RepairedModule, ...]
    warnings: tuple[str, ...]
    written: tuple[FileDigest, ...]

    def __post_init__(self) -> None:
        """Raise UsageError if there is no such loader, or the strength is none."""
        loader_of(self.loader)
        if not 0 <= self.repair.strength <= 1:
            raise UsageError(f"a strength of {self.repair.strength:g} does not lie between 0 and 1")

    @property
    def sources(self) -> tuple[Source, ...]:
        """Return what it was made from."""
        return (self.source,)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return the names of tensors that left the file: none."""
        return ()

    @property
    def done(self) -> str:
        """Return in words how many modules were changed, and how."""
        count = f"{len(self.modules):,} {self.word}" if self.modules else "no module changed"
        return f"{count} by {printable(self.repair.method, 60)} at strength {self.repair.strength:g}"

    @property
    def story(self) -> dict[str, str]:
        """Return what goes into `__metadata__`, so that a weights file without its folder still tells its story."""
        story = {
            "version": self.tool.version,
            "source_sha256": self.source.sha256,
            "repair": self.repair.method,
            "settings": self.repair.settings,
            "strength": self.repair.strength,
            "modules": {module.path: [module.action, module.rank] for module in self.modules},
        }
        return {"s3lora": msgspec.json.encode(story).decode()}


__all__ = ["REPAIR_VERSION", "RecordedAnswer", "RecordedData", "RepairFields", "RepairProvenance", "RepairedModule"]
