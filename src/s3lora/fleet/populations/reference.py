"""A reference population: how every index is distributed over the adapters of a dataset, cell by cell, in one file.

Copies of an adapter count once, so do the checkpoints of a run, and modules without an index not at all. A cell keeps
the median, the median absolute deviation, and quantiles that are dense at the ends, where what is unusual lies.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from s3lora.errors import AdapterFileError, NothingToAuditError, printable
from s3lora.files import check_regular, reason, write_whole
from s3lora.fleet.populations.distributions import indices_of
from s3lora.fleet.results.database import connect
from s3lora.fleet.results.distinct import Recipe, make_distinct, one_a_run, recipes
from s3lora.fleet.results.outcome import Settings
from s3lora.fleet.results.summary import read_summary
from s3lora.measure.cells import FEWEST, FEWEST_SOURCES, KEYS, LEVELS, Level, band_sql
from s3lora.measure.roles import role_of
from s3lora.measure.scan import Tool
from s3lora.needs import need
from s3lora.spectrum.indices import INDICES

SCHEMA_VERSION = 1
FACTS_KEY = b"s3lora_reference"
#: Recipes that are named; the rest is one number.
RECIPES = 50
#: Shares of a cell at which quantiles are kept, denser towards both ends.
_TAIL = (0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.002)
GRID = tuple(sorted({*_TAIL, *(round(i / 200, 3) for i in range(201)), *(round(1 - share, 4) for share in _TAIL)}))
#: What stands for an adapter: the median of an index over its modules, and its value at the sharp end.
SUMMARIES = ("median", "sharpest")

Scope = Literal["module", "adapter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a reference says of itself.

    `adapters` counts distinct ones, the last of each run; `copies` are those left out as copies of them, and
    `checkpoints` as earlier ones of their run. `sources` is the number of sources by the column `source`, without
    which each run is one.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    name: str
    settings: Settings
    adapters: int
    modules: int
    copies: int
    families: dict[str, int]
    recipes: tuple[Recipe, ...]
    more_recipes: int
    checkpoints: int = 0
    sources: int | None = None
    source: str | None = None


def build_reference(folder: Path, out: Path, name: str | None = None, source: str | None = None) -> Facts:
    """Write the reference of the dataset in `folder` to the Parquet file `out`, whole or not at all.

    `name` is what results that use it will call it, by default the name of the folder. Same dataset, same bytes.

    `source` is a column of the dataset's adapters, or `repository`, `owner` or `folder`: then a cell needs
    adapters of 10 sources, and intervals are those of as many values as it has sources.

    Raises AdapterFileError if `folder` is no dataset, UsageError if it has no such column, NothingToAuditError if it
    holds no module with an index, and OutputError if `out` cannot be written.
    """
    settings = read_summary(folder).settings
    with connect(folder) as database:
        indices = indices_of(database)
        left = _prepare(database, indices, source)
        called = printable(name or Path(os.path.realpath(folder)).name, 80)
        facts = _facts(database, called, settings, left, source)
        if not facts.modules:
            raise NothingToAuditError("no adapter of this dataset has a module with an index", file=folder)
        rows = [
            row
            for scope in ("module", "adapter")
            for row in _cells(database, scope, indices, sourced=source is not None)
        ]
    _write(out, rows, facts)
    return facts


def read_facts(path: Path) -> Facts:
    """Return what a reference says of itself; raise AdapterFileError if the file is none, or of a newer version."""
    pq, pa = need("pyarrow.parquet", "fleet"), need("pyarrow", "fleet")
    try:
        check_regular(path)
        found = pq.read_schema(path)
        raw = (found.metadata or {}).get(FACTS_KEY)
        facts = None if raw is None else msgspec.json.decode(raw, type=Facts)
    except (OSError, ValueError, pa.ArrowException, msgspec.DecodeError, RecursionError) as error:
        raise AdapterFileError(f"cannot be read as a reference: {reason(error)}", file=path) from None
    if facts is None:
        fix = "make one with: s3lora fleet reference build DIR -o FILE"
        raise AdapterFileError("is no reference", file=path, fix=fix)
    if facts.schema_version > SCHEMA_VERSION:
        what = f"is of schema version {facts.schema_version}, and this s3lora knows {SCHEMA_VERSION}"
        raise AdapterFileError(what, file=path, fix="update s3lora")
    if not any(found.equals(arrow_schema(newest=newest)) for newest in (True, False)):
        raise AdapterFileError("has other columns than a reference", file=path, fix="build it again")
    return facts


def _prepare(database: Any, indices: Sequence[str], source: str | None) -> int:
    """Make the tables `one` (one adapter a run), `module` and `adapter` (values with the keys of their cells).

    Returns how many distinct adapters are left out as checkpoints.
    """
    ends = {"high": "max", "low": "min"}
    summaries = ", ".join(
        f"median({index.name}) AS {index.name}_median, {ends[index.sharp]}({index.name}) AS {index.name}_sharpest"
        for index in map(INDICES.__getitem__, indices)
    )
    make_distinct(database)
    left = one_a_run(database, source)
    place = make_roles(database)
    database.execute(f"""
        CREATE TEMP TABLE module AS
        SELECT id, source, base_family, projection, role, {band_sql("m.rank")} AS band, layer_third AS third,
               {", ".join(indices)}
        FROM modules m JOIN one USING (uri) LEFT JOIN roles ON roles.place = {place} WHERE m.ssi IS NOT NULL
    """)
    database.execute(f"""
        CREATE TEMP TABLE adapter AS
        SELECT id, any_value(a.source) AS source, any_value(a.base_family) AS base_family,
               NULL::VARCHAR AS projection, NULL::VARCHAR AS role, any_value({band_sql("a.rank_max")}) AS band,
               NULL::INTEGER AS third, {summaries}
        FROM module JOIN one a USING (id) GROUP BY id
    """)
    return left


def make_roles(database: Any) -> str:
    r"""Make the table `roles`, and return the SQL of a module's path for its column `place`.

    Paths that differ in the numbers of layers alone have one role, so that few of them are looked at.
    """
    place = r"regexp_replace(path, '([._])\d+', '\1#', 'g')"
    found = database.execute(f"SELECT {place}, min(path) FROM modules GROUP BY 1").fetchall()
    pa = need("pyarrow", "fleet")
    known = [(name, role.key) for name, path in found if (role := role_of(path)) is not None]
    columns = {"place": [name for name, _ in known], "role": [role for _, role in known]}
    database.register("role_rows", pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns])))
    database.execute("CREATE TEMP TABLE roles AS SELECT * FROM role_rows")
    return place


def _facts(database: Any, name: str, settings: Settings, left: int, source: str | None) -> Facts:
    adapters, modules = database.execute("SELECT count(DISTINCT id), count(*) FROM module").fetchone()
    everything = database.execute("SELECT count(*) FROM adapters").fetchone()[0]
    distinct = database.execute("SELECT count(*) FROM one").fetchone()[0]
    sources = database.execute("SELECT count(DISTINCT source) FROM adapter").fetchone()[0]
    families = database.execute("SELECT base_family, count(*) FROM adapter GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
    made, more_recipes = recipes(database, RECIPES, "id IN (SELECT id FROM adapter)")
    return Facts(
        name=name,
        settings=settings,
        adapters=adapters,
        modules=modules,
        copies=everything - distinct - left,
        checkpoints=left,
        sources=None if source is None else sources,
        source=None if source is None else printable(source, 80),
        families=dict(families),
        recipes=made,
        more_recipes=more_recipes,
    )


def _cells(database: Any, scope: Any, indices: Sequence[str], *, sourced: bool) -> Iterator[tuple[Any, ...]]:
    levels = LEVELS[scope]
    summaries = [f"{index}_{summary}" for index in indices for summary in SUMMARIES]
    for column in indices if scope == "module" else summaries:
        for number, level in enumerate(levels):
            query = cell_query(scope, column, level, last=number == len(levels) - 1, sourced=sourced)
            for row in database.execute(query, [list(GRID)]).fetchall():
                yield (scope, number, *row[: len(KEYS)], column, *row[len(KEYS) :], *(() if sourced else (None,)))


def cell_query(scope: Scope, column: str, level: Level, *, last: bool, sourced: bool = False) -> str:
    """Return the SQL for the cells of one level: the table named `scope` holds `id`, the keys of cells and `column`.

    Rows are (keys…, adapters, values, median, mad, quantiles), and the number of sources where these are known; its
    one parameter is `GRID`. Cells with fewer than `FEWEST` adapters, or than `FEWEST_SOURCES` sources, are left out but
    for those of the `last` level.
    """
    keys = ", ".join(key if key in level.keys else f"NULL AS {key}" for key in KEYS)
    group = f"GROUP BY {', '.join(level.keys)}" if level.keys else ""
    having = "HAVING count(*) > 0" if last else f"HAVING count(DISTINCT id) >= {FEWEST}"
    sources = ", count(DISTINCT source)" if sourced else ""
    if sourced and not last:
        having += f" AND count(DISTINCT source) >= {FEWEST_SOURCES}"
    # What has no role, or another key, shares it with nobody.
    known = " AND ".join(f"{name} IS NOT NULL" for name in (column, *(("role",) if "role" in level.keys else ())))
    order = f"ORDER BY {', '.join(level.keys)}" if level.keys else ""
    return f"""
        SELECT {keys}, count(DISTINCT id), count(*), median({column}), mad({column}),
               quantile_cont({column}, ?){sources}
        FROM {scope} WHERE {known} {group} {having} {order}
    """


def arrow_schema(facts: Facts | None = None, *, newest: bool = True) -> Any:
    """Return the schema of a reference file; one of before has no roles and no sources."""
    pa = need("pyarrow", "fleet")
    fields = [
        ("scope", pa.string()),
        ("level", pa.int32()),
        ("base_family", pa.string()),
        ("projection", pa.string()),
        *((("role", pa.string()),) if newest else ()),
        ("band", pa.string()),
        ("third", pa.int32()),
        ("index", pa.string()),
        ("adapters", pa.int64()),
        ("values", pa.int64()),
        ("median", pa.float64()),
        ("mad", pa.float64()),
        ("quantiles", pa.list_(pa.float64())),
        *((("sources", pa.int64()),) if newest else ()),
    ]
    return pa.schema(fields, metadata=None if facts is None else {FACTS_KEY: msgspec.json.encode(facts)})


def _write(out: Path, rows: list[tuple[Any, ...]], facts: Facts) -> None:
    pa, pq = need("pyarrow", "fleet"), need("pyarrow.parquet", "fleet")
    schema = arrow_schema(facts)
    # Those of one family lie together: looking one adapter up reads few of the row groups.
    rows.sort(key=lambda row: (row[2] is not None, row[2] or ""))
    columns = [list(column) for column in zip(*rows, strict=True)]
    buffer = io.BytesIO()
    table = pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)
    pq.write_table(table, buffer, compression="zstd", row_group_size=2048)
    write_whole(out, buffer.getvalue())
