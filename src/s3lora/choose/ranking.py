"""What selection rules are given, and what they give back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from s3lora.spectrum.indices import Index


@dataclass(frozen=True, slots=True)
class Unit:
    """What is ranked: a module, or a whole layer.

    `value` is the index; `sharpness` is the same number, rounded as `ties.rounded` does, with the sign that puts sharp
    units first. `kind` is the projection (or `layer`), within which outliers are looked for; `shapes` are (m, n, rank)
    of its modules.
    """

    name: str
    value: float
    sharpness: float
    kind: str
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What a rule chose: positions in the ranked list, why, and what the user should be told."""

    chosen: tuple[int, ...]
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may need besides the ranked units: the index, how the scan computed it, and how units combine it."""

    index: Index | None
    method: str
    components: int | None
    fit: str = "l2"
    combine: str = "mean"


class Rule(Protocol):
    """Anything that chooses among ranked units."""

    def choose(self, ranked: Sequence[Unit], context: Context) -> RuleVerdict:
        """Return the positions chosen from `ranked`, which is sorted sharpest first."""

    def __str__(self) -> str:
        """Return the rule as the user would write it."""
