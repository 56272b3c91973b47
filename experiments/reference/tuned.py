"""What `s3lora tune` tried and confirmed, on the scale of what was learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.reference.analyse import lost, value_of


@dataclass(frozen=True)
class Tried:
    """One number of modules that was tried on a half of the data.

    `relative` is what the loss rose by as a share of the adapter's own, which tuning went by before; `lost` is the
    share of what was learned that is lost, between `low` and `high`. `fall` is the paired difference in ASR from the
    whole adapter, with p.
    """

    top: int
    asr: float
    loss: float
    relative: float
    lost: float
    low: float
    high: float
    fall: dict[str, Any]

    @property
    def row(self) -> list[str]:
        """The cells of the page's table."""
        fall = f"{self.fall['difference']:+.2f} ({self.fall['low']:+.2f} to {self.fall['high']:+.2f})"
        return [str(self.top), f"{self.asr:.2f}", fall, f"{self.loss:.3f}", self.percent]

    @property
    def percent(self) -> str:
        """The share lost with its 95 % interval."""
        return f"{100 * self.lost:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class Tuned:
    """All that was tried, in the order of the modules, what tuning says, and what the other half confirms of it."""

    floor: float
    sentence: str
    tried: list[Tried]
    confirmed: Tried | None

    @property
    def over(self) -> Tried:
        """The fewest modules that were tried and lose the floor or more."""
        return min((one for one in self.tried if one.lost >= self.floor), key=lambda one: one.top)


def read(document: dict[str, Any]) -> Tuned:
    """Return what was tried, and what was confirmed, if anything."""
    points = sorted(document["tried"], key=lambda point: point["top"])
    ends = {half: (document[f"{half}_unpruned"], document[f"{half}_base"]) for half in ("tuning", "held_out")}
    tried = [_tried(point, *ends["tuning"]) for point in points]
    chosen = document["confirmed"]
    confirmed = None if chosen is None else _tried(chosen, *ends["held_out"])
    return Tuned(document["floor"], document["sentence"], tried, confirmed)


def _tried(point: dict[str, Any], unpruned: dict[str, Any], alone: dict[str, Any]) -> Tried:
    adapter, base, loss = (value_of(holder, "loss") for holder in (unpruned, alone, point))
    fall = next(found for found in point["comparisons"] if found["measure"] == "asr")
    share = next(found for found in point["shares"] if found["measure"] == "loss")
    ends = (share["low"], share["high"])
    return Tried(point["top"], value_of(point, "asr"), loss, loss / adapter - 1, lost(loss, adapter, base), *ends, fall)
