"""The bins in which an index is counted over many adapters.

Bins do not depend on the data, so that those of two populations can be laid beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RANKS", "SHARES", "SIZES", "Bins"]


@dataclass(frozen=True, slots=True)
class Bins:
    """`count` bins from `low` up, `each` of them to a unit, a doubling or a factor of ten; the outer ones are open.

    >>> [round(Bins("log10", 1e-2, 2, 8).edge(i), 4) for i in range(4)]
    [0.01, 0.0316, 0.1, 0.3162]
    """

    scale: Literal["linear", "log2", "log10"]
    low: float
    each: int
    count: int

    def edge(self, i: int) -> float:
        """Return the lower edge of bin i; `edge(count)` is the upper edge of the last."""
        if self.scale == "linear":
            return self.low + i / self.each
        return float(self.low * (2.0 if self.scale == "log2" else 10.0) ** (i / self.each))


#: From 0 to 1.
SHARES = Bins("linear", 0.0, 100, 100)
#: From 1 to 4,096.
RANKS = Bins("log2", 1.0, 8, 96)
#: In the unit of ΔW, from 1e-8 to 1e8.
SIZES = Bins("log10", 1e-8, 8, 128)
