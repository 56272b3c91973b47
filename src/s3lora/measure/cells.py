"""Cells of a reference: with which modules of other adapters a module is compared, coarser ones where those are few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Fewest adapters of a cell: with fewer, a percentile is hardly a number.
FEWEST = 20
#: Fewest sources that these come from, where it is known: adapters of one source are not independent.
FEWEST_SOURCES = 10
#: Upper ends of the bands of ranks; the last band has none.
BANDS = (1, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Level:
    """One way to group; `keys` are the columns that the members of a cell share, `meaning` says it in words."""

    keys: tuple[str, ...]
    meaning: str


#: Of modules and of adapters, from the finest to the coarsest, which is everything.
MODULE_LEVELS = (
    Level(("base_family", "projection", "band", "third"), "same base family, projection, rank band and layer third"),
    Level(("base_family", "projection", "band"), "same base family, projection and rank band"),
    Level(("role", "band"), "same role and rank band, of any base"),
    Level(("band",), "same rank band, of any base and role"),
    Level((), "all modules"),
)
ADAPTER_LEVELS = (
    Level(("base_family", "band"), "same base family and rank band"),
    Level(("band",), "same rank band, of any base"),
    Level((), "all adapters"),
)
LEVELS = {"module": MODULE_LEVELS, "adapter": ADAPTER_LEVELS}
KEYS = ("base_family", "projection", "role", "band", "third")


def band(rank: int) -> str:
    """Return the band of a rank.

    >>> [band(rank) for rank in (1, 3, 8, 100)]
    ['1', '2-4', '5-8', '65+']
    """
    low = 1
    for high in BANDS:
        if rank <= high:
            return str(high) if low == high else f"{low}-{high}"
        low = high + 1
    return f"{low}+"


def band_sql(column: str) -> str:
    """Return the SQL expression that computes `band` of a column."""
    cases = " ".join(f"WHEN {column} <= {high} THEN '{band(high)}'" for high in BANDS)
    return f"CASE {cases} ELSE '{band(BANDS[-1] + 1)}' END"


def key_of(level: Level, values: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values of all keys, None for those that the level does not group by."""
    return tuple(values[key] if key in level.keys else None for key in KEYS)
