"""Adapters that hold the same factors count once: the SQL for that, and for the recipes of those that are left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Groups of adapters with the same factors, of which there are `count(*)`.
COPIES = "adapters GROUP BY tensors HAVING count(*) > 1"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What adapters have in common that were made alike, as far as files tell, and how many there are.

    `form` tells how their updates are stored, None where an older s3lora scanned them.
    """

    base_family: str
    projections: str
    rank: int
    lora_alpha: float | None
    lora_dropout: float | None
    init: str | None
    adapters: int
    form: str | None = None


def make_distinct(database: Any) -> None:
    """Make the table `one`: the first in order of uri of all adapters that hold the same factors."""
    database.execute("""
        CREATE TEMP TABLE one AS
        SELECT CAST(row_number() OVER (ORDER BY uri) AS INTEGER) AS id, *
        FROM (SELECT uri, name, base_family, rank_min, rank_max, modules, projections, lora_alpha, lora_dropout,
                     init, form, count(*) OVER (PARTITION BY tensors) - 1 AS copies
              FROM adapters QUALIFY row_number() OVER (PARTITION BY tensors ORDER BY uri) = 1)
    """)


def recipes(database: Any, most: int, those: str = "true") -> tuple[tuple[Recipe, ...], int]:
    """Return the most frequent recipes of the adapters of `one` for which the SQL `those` holds, and how many more."""
    rows = database.execute(f"""
        SELECT base_family, projections, rank_max, lora_alpha, lora_dropout, init, count(*), form, count(*) OVER ()
        FROM one WHERE {those} GROUP BY ALL ORDER BY 7 DESC, 1, 2, 3, 4, 5, 6, 8 LIMIT {most}
    """).fetchall()
    return tuple(Recipe(*row[:8]) for row in rows), rows[0][8] - len(rows) if rows else 0
