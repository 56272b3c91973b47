"""What `s3lora tune` tried, on the scale of what was learned: from means alone, so without intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.differences import LEVEL
from experiments.reference.analyse import lost, value_of


@dataclass(frozen=True)
class Tried:
    """One number of modules that was tried on the half to choose on.

    `relative` is what the loss rose by as a share of the adapter's own, which tuning went by before; `lost` is the
    share of what was learned that is lost. `fall` is the paired difference in ASR from the whole adapter, with p.
    """

    top: int
    asr: float
    loss: float
    relative: float
    lost: float
    fall: dict[str, Any]

    @property
    def row(self) -> list[str]:
        """The cells of the page's table."""
        fall = f"{self.fall['difference']:+.2f} ({self.fall['low']:+.2f} to {self.fall['high']:+.2f})"
        losses = [f"{self.loss:.3f}", f"{100 * self.relative:.0f} %", f"{100 * self.lost:.1f} %"]
        return [str(self.top), f"{self.asr:.2f}", fall, *losses]

    @property
    def told(self) -> bool:
        """Whether the fall of ASR can be told from chance, as one of one comparison."""
        return bool(self.fall["difference"] < 0 and self.fall["p"] < LEVEL)


@dataclass(frozen=True)
class Tuned:
    """All that was tried, in the order of the modules, and what tuning said then."""

    floor: float
    sentence: str
    tried: list[Tried]

    @property
    def kept(self) -> Tried:
        """The most modules that were tried and keep to the floor by the share lost."""
        return max((one for one in self.tried if one.lost < self.floor), key=lambda one: one.top)

    @property
    def over(self) -> Tried:
        """The fewest modules that were tried and do not."""
        return min((one for one in self.tried if one.lost >= self.floor), key=lambda one: one.top)


def read(document: dict[str, Any]) -> Tuned:
    """Return what was tried; without all modules it is the base, where that was not measured by itself."""
    points = sorted(document["tried"], key=lambda point: point["top"])
    alone = document.get("tuning_base") or next(p for p in points if p["top"] == document["modules_total"])
    adapter, base = value_of(document["tuning_unpruned"], "loss"), value_of(alone, "loss")
    tried = []
    for point in points:
        loss = value_of(point, "loss")
        fall = next(found for found in point["comparisons"] if found["measure"] == "asr")
        share = lost(loss, adapter, base)
        tried.append(Tried(point["top"], value_of(point, "asr"), loss, loss / adapter - 1, share, fall))
    return Tuned(document["floor"], document["sentence"], tried)
