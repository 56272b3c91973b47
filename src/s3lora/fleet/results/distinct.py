"""Adapters that hold the same factors count once: the SQL for that, and for the recipes of those that are left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s3lora.errors import UsageError, printable

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


#: What stands for the source of an adapter besides the columns of `adapters` → SQL. Of a run, the folder is that above.
SOURCES = {
    "repository": r"regexp_extract(one.uri, '^hf://([^/@]+/[^/@]+)', 1)",
    "owner": r"regexp_extract(one.uri, '^hf://([^/@]+)', 1)",
    "folder": r"regexp_extract(runs.run, '^(.*)[/\\][^/\\]*$', 1)",
}


def one_a_run(database: Any, source: str | None) -> int:
    r"""Keep of the table `one` the last adapter of each run, give each its `source`, and return how many are left out.

    Checkpoints of a run lie in folders `checkpoint-N`, or are files `N_adapters.safetensors`, in one folder; an adapter
    without a step is the last. `source` is a column of `adapters` or a name of `SOURCES`, and without one each run is
    a source of its own. Adapters of which it is not known count as one source.

    Raises UsageError if there is no such column.
    """
    columns = [row[0] for row in database.execute("DESCRIBE adapters").fetchall()]
    if source is not None and source not in (*columns, *SOURCES):
        known = ", ".join((*SOURCES, *columns))
        raise UsageError(f"the dataset has no column {printable(source, 60)}", fix=f"choose one of {printable(known)}")
    of = "runs.run" if source is None else SOURCES.get(source, f'a."{source}"')
    before: int = database.execute("SELECT count(*) FROM one").fetchone()[0]
    database.execute(r"""
        CREATE TEMP TABLE runs AS
        SELECT id, regexp_replace(uri, '[/\\](checkpoint-\d+|(\d+_)?adapters\.safetensors)$', '') AS run,
               TRY_CAST(regexp_extract(uri, '(\d+)(_adapters\.safetensors)?$', 1) AS BIGINT) AS step,
               regexp_matches(uri, '[/\\](checkpoint-\d+|\d+_adapters\.safetensors)$') AS midway
        FROM one
    """)
    database.execute(f"""
        CREATE OR REPLACE TEMP TABLE one AS
        SELECT one.*, coalesce(CAST({of} AS VARCHAR), '') AS source
        FROM one JOIN runs USING (id) JOIN adapters a ON a.uri = one.uri
        QUALIFY row_number() OVER (PARTITION BY run ORDER BY midway, step DESC, one.uri) = 1
    """)
    after: int = database.execute("SELECT count(*) FROM one").fetchone()[0]
    return before - after


def recipes(database: Any, most: int, those: str = "true") -> tuple[tuple[Recipe, ...], int]:
    """Return the most frequent recipes of the adapters of `one` for which the SQL `those` holds, and how many more."""
    rows = database.execute(f"""
        SELECT base_family, projections, rank_max, lora_alpha, lora_dropout, init, count(*), form, count(*) OVER ()
        FROM one WHERE {those} GROUP BY ALL ORDER BY 7 DESC, 1, 2, 3, 4, 5, 6, 8 LIMIT {most}
    """).fetchall()
    return tuple(Recipe(*row[:8]) for row in rows), rows[0][8] - len(rows) if rows else 0
