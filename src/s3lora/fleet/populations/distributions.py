"""How indices are distributed over a population: histograms and quartiles, by base and by projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from s3lora.spectrum.bins import Bins
from s3lora.spectrum.indices import INDICES

#: Groups that are told apart, the largest; the rest is joined.
GROUPS = 12
_GROUPED = ("base_family", "projection")
_QUARTILES = [0.0, 0.25, 0.5, 0.75, 1.0]


@dataclass(frozen=True, slots=True)
class Group:
    """The values of one group of modules.

    `joined` is the number of groups behind it, 1 but where the small ones are joined and `name` is empty. `counts` has
    a number a bin of the distribution.
    """

    name: str
    joined: int
    adapters: int
    modules: int
    least: float
    q25: float
    median: float
    q75: float
    greatest: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """One index over the modules of distinct adapters; `edges` are those of the bins that hold any, one more than bins.

    Values beyond the outermost bins of the fixed scale count in these.
    """

    index: str
    meaning: str
    scale: Literal["linear", "log2", "log10"]
    edges: tuple[float, ...]
    all: Group
    families: tuple[Group, ...]
    projections: tuple[Group, ...]


def bin_sql(bins: Bins, column: str) -> str:
    """Return the SQL for the bin of a column; the first bin of a logarithmic scale holds what is not above 0."""
    if bins.scale == "linear":
        place = f"floor(({column} - ({bins.low!r})) * {bins.each})"
    else:
        place = f"floor({bins.scale}({column} / {bins.low!r}) * {bins.each})"
        place = f"CASE WHEN {column} > 0 THEN {place} ELSE 0 END"
    return f"CAST(least(greatest({place}, 0), {bins.count - 1}) AS INTEGER)"


def indices_of(database: Any) -> tuple[str, ...]:
    """Return the indices that a dataset has columns for: one that an older s3lora made lacks the newest."""
    there = {row[0] for row in database.execute("DESCRIBE modules").fetchall()}
    return tuple(name for name in INDICES if name in there)


def distributions(database: Any, indices: Sequence[str]) -> tuple[Distribution, ...]:
    """Return the distribution of each of these indices that has any value, of a database with the table `one`."""
    names = _prepare(database, indices)
    found = (_distribution(database, index, names) for index in indices)
    return tuple(one for one in found if one is not None)


def _prepare(database: Any, indices: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Make the table `part` (values with the numbers of their groups); return (name, joined) of the groups by number.

    Numbers instead of names make every later pass several times faster.
    """
    names: dict[str, list[tuple[str, int]]] = {}
    for key in _GROUPED:
        database.execute(f"""
            CREATE TEMP TABLE group_{key} AS
            SELECT {key},
                   CAST(least(row_number() OVER (ORDER BY count(*) DESC, {key}) - 1, {GROUPS}) AS UTINYINT) AS number
            FROM modules JOIN one USING (uri) WHERE ssi IS NOT NULL GROUP BY {key}
        """)
        rows = database.execute(
            f"SELECT number, min({key}), count(*) FROM group_{key} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        names[key] = [(name if joined == 1 else "", joined) for _, name, joined in rows]
    values = ", ".join(f"CASE WHEN isfinite({index}) THEN {index} END AS {index}" for index in indices)
    database.execute(f"""
        CREATE TEMP TABLE part AS
        SELECT id, f.number AS base_family, p.number AS projection, {values}
        FROM modules m JOIN one USING (uri) JOIN group_base_family f USING (base_family)
             JOIN group_projection p ON p.projection = m.projection
        WHERE m.ssi IS NOT NULL
    """)
    return names


def _distribution(database: Any, index: str, names: dict[str, list[tuple[str, int]]]) -> Distribution | None:
    bins = INDICES[index].bins
    counted = database.execute(f"""
        SELECT base_family, projection, {bin_sql(bins, index)}, count(*)
        FROM part WHERE {index} IS NOT NULL GROUP BY ALL
    """).fetchall()
    if not counted:
        return None
    first, last = min(row[2] for row in counted), max(row[2] for row in counted)
    counts: dict[tuple[str, int], list[int]] = {}
    for family, projection, place, number in counted:
        for group in (("all", 0), ("base_family", family), ("projection", projection)):
            counts.setdefault(group, [0] * (last - first + 1))[place - first] += number

    def groups(key: str) -> tuple[Group, ...]:
        column = "0" if key == "all" else key
        rows = database.execute(
            f"""
            SELECT {column} AS number, count(DISTINCT id), count(*), quantile_cont({index}, ?)
            FROM part WHERE {index} IS NOT NULL GROUP BY 1 ORDER BY 1
            """,
            [_QUARTILES],
        ).fetchall()
        told = names.get(key, [("all", 1)])
        found = []
        for number, adapters, modules, (least, q25, middle, q75, greatest) in rows:
            name, joined = told[number]
            ends = (least, q25, middle, q75, greatest)
            found.append(Group(name, joined, adapters, modules, *ends, tuple(counts[key, number])))
        return tuple(found)

    return Distribution(
        index=index,
        meaning=INDICES[index].described,
        scale=bins.scale,
        edges=tuple(bins.edge(i) for i in range(first, last + 2)),
        all=groups("all")[0],
        families=groups("base_family"),
        projections=groups("projection"),
    )
