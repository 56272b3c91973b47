"""What a comparison with a reference population says, as documents keep it, and when it calls an adapter unusual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from s3lora.measure.cells import ADAPTER_LEVELS, band
from s3lora.spectrum.indices import INDICES

#: A robust z beyond this is an outlier (Iglewicz & Hoaglin 1993, the rule of `outlier` as well).
FAR = 3.5
#: The interval of a percentile must lie wholly below the first or above the second of these.
ENDS = (5.0, 95.0)
MIDDLE = 50.0
#: Fewest adapters with which it can: of 72, even the interval of what lies above all begins below 95.
TELLING = 73

UnusualWord = Literal["high", "low", "no", "unknown"]
Hindrance = Literal["rank_one", "mixed_ranks"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where one value stands in its cell.

    `percentile` is the share of the cell's values below it, in percent, those equal to it counted half, with the ends
    `low` and `high` of Wilson's 95 % interval for as many independent values as the cell has sources, or adapters where
    these are not known, since modules of one adapter are not. `z` is 0.6745·(value − median)/MAD, None where the MAD
    is zero.
    """

    value: float
    percentile: float
    low: float
    high: float
    z: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """One module, or the adapter: the cell it is compared with, how many it holds, and a mark for each index.

    `level` counts the steps from the finest cell to one with at least 20 adapters; `cell` says in words what its
    members share. `sources` is how many sources its adapters come from, None where the reference does not know.
    """

    level: int
    cell: str
    adapters: int
    marks: dict[str, Mark]
    sources: int | None = None


@dataclass(frozen=True, slots=True)
class Against:
    """An adapter against a reference: the reference's name and size, the adapter's base family, and what stands where.

    `family_adapters` is how many adapters of that family the reference has. `coarser` is the number of modules that
    were compared with a coarser cell, as the finest holds fewer than 20 adapters. The marks of `adapter` are named
    after an index and what stands for it: `ssi_median` over the modules, and `ssi_sharpest`. `unusual` has a word for
    each of them, and `hindered` tells for which of them ranks are why that word is `unknown`. `standings` are those of
    the modules with an index, by path.
    """

    reference: str
    adapters: int
    modules: int
    base_family: str
    family_adapters: int
    coarser: int
    adapter: Standing | None
    unusual: dict[str, UnusualWord]
    hindered: dict[str, Hindrance]
    standings: dict[str, Standing]


def hindrance(index: str, level: int, ranks: tuple[int, int]) -> Hindrance | None:
    """Return why ranks forbid to call an adapter unusual by an index, None where they do not.

    Parameters:
        index: name of the index.
        level: that of the adapter's cell in `ADAPTER_LEVELS`; the last is of all ranks.
        ranks: the smallest and the largest of its modules.

    >>> hindrance("ssi", 0, (1, 1)), hindrance("ssi", 2, (8, 8)), hindrance("ssi", 1, (2, 8))
    ('rank_one', 'mixed_ranks', 'mixed_ranks')
    >>> hindrance("ssi", 1, (5, 8)), hindrance("normalised_ssi", 2, (8, 8)), hindrance("magnitude", 0, (1, 1))
    (None, None, None)
    """
    low, high = ranks
    if high == 1 and INDICES[index].silent:
        return "rank_one"
    coarse = "band" not in ADAPTER_LEVELS[level].keys
    return "mixed_ranks" if INDICES[index].by_rank and (coarse or band(low) != band(high)) else None


def unusual(mark: Mark, adapters: int, hindered: Hindrance | None = None) -> UnusualWord:
    """Return at which end a value is unusual against a cell of so many adapters.

    It is where its robust z lies beyond ±3.5 and the interval of its percentile wholly above 95 or below 5: far out,
    and not by the chance of a small cell. `unknown` is what lies off the middle of a cell that is too small for such
    an interval, or without a z, and whatever is hindered.
    """
    if hindered is not None:
        return "unknown"
    middling = mark.low <= MIDDLE <= mark.high
    if middling or (mark.z is not None and abs(mark.z) <= FAR):
        return "no"
    if adapters < TELLING:
        return "unknown"
    low, high = ENDS
    if not (mark.low > high or mark.high < low):
        return "no"
    if mark.z is None:
        return "unknown"
    return "high" if mark.low > high else "low"


def together(words: Sequence[UnusualWord]) -> UnusualWord:
    """Return what the words on several marks of an adapter, the farthest first, say of it.

    One mark that is unusual makes it so.

    >>> together(["unknown", "low"]), together(["no", "unknown"]), together(["no", "no"])
    ('low', 'unknown', 'no')
    """
    ends = [word for word in words if word in ("high", "low")]
    return ends[0] if ends else "unknown" if "unknown" in words else "no"
