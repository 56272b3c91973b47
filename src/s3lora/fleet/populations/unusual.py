"""Which adapters of a population stand farthest from others of their kind, by one index, and which are unusual.

An adapter is compared by two numbers, the median of the index over its modules and its value at the sharp end, with
the adapters of its cell: in a reference, or in the population itself. The farther of the two counts. When one is
unusual is the rule of `against`, as in a scan that is held against a reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from s3lora.errors import AdapterFileError, UsageError, printable
from s3lora.fleet.bounded import refuse_large
from s3lora.fleet.populations.reference import GRID, SUMMARIES, cell_query
from s3lora.fleet.populations.standing import NORMAL, Mark, PopulationCell, Reference, cell_of
from s3lora.fleet.results.outcome import Settings
from s3lora.measure.against import FAR, TELLING, Hindrance, UnusualWord, hindrance, together, unusual
from s3lora.measure.cells import ADAPTER_LEVELS, band_sql
from s3lora.needs import need
from s3lora.spectrum.indices import INDICES
from s3lora.wording import worded

#: Bins of robust z: half a unit each, the outer ones open.
WIDEST, EACH = 10, 2
#: (level, base family, band, column of the summary)
CellKey = tuple[int, str | None, str | None, str]
Cells = dict[CellKey, PopulationCell]


@dataclass(frozen=True, slots=True)
class UnusualAdapter:
    """One adapter, the `place`-th from the usual, counted from 1.

    `level` counts the steps from the finest cell to one with enough adapters, `cell` says in words what its members
    share, and `adapters` is how many there are. `copies` are other inputs with the same factors; `module` is the one at
    the sharp end. `verdict` is the word of `against.unusual` on both marks together, and `hindered` tells where ranks
    are why it is `unknown`.
    """

    place: int
    uri: str
    name: str
    base_family: str
    rank: int
    modules: int
    copies: int
    module: str
    level: int
    cell: str
    adapters: int
    median: Mark
    sharpest: Mark
    verdict: UnusualWord
    hindered: Hindrance | None
    form: str | None = None

    @property
    def z(self) -> float:
        """Return the robust z that counts: the one farther from 0."""
        return max((mark.z for mark in (self.median, self.sharpest) if mark.z is not None), key=abs, default=0.0)


@dataclass(frozen=True, slots=True)
class ZSpread:
    """How many adapters have a robust z in each bin; `edges` are one more, and the outer bins are open."""

    edges: tuple[float, ...]
    median: tuple[int, ...]
    sharpest: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """All distinct adapters of a population by how far they stand from their cells, and the first of them.

    `against` is what they are compared with, called `reference`, of `reference_adapters` distinct adapters. `adapters`
    are ranked, `coarser` of them had to be compared with a coarser cell, and for `alike` there is no z, since half of
    their cell has one and the same value. `unusual` of all, not of the first alone, have the verdict `high` or `low`.
    It can be given to none of `few`, whose cell has fewer than 73 adapters, nor of `mixed`, which are compared over
    several bands of ranks by an index that depends on the rank. `rank_one` are not ranked: all their modules have
    rank 1, of which the index says nothing.
    """

    index: str
    meaning: str
    sharp: Literal["high", "low"]
    against: Literal["reference", "population"]
    reference: str
    reference_adapters: int
    adapters: int
    coarser: int
    alike: int
    unusual: int
    few: int
    mixed: int
    rank_one: int
    spread: ZSpread
    most: tuple[UnusualAdapter, ...]


def ranking(
    database: Any, settings: Settings, index: str, most: int, name: str, reference: Path | None
) -> Ranking | None:
    """Rank the adapters of a database with the table `one`; None where none has the index.

    Raises UsageError if the reference was made with another method or M, or lacks the index, and AdapterFileError if
    it is none.
    """
    rank_one = _prepare(database, index)
    adapters = database.execute("SELECT count(*) FROM adapter").fetchone()[0]
    if not adapters + rank_one:
        return None
    if reference is None:
        cells, called, size = _own_cells(database, index), name, adapters
    else:
        opened = Reference(reference)
        opened.check(settings.scan)
        cells, called, size = _cells_of(reference, index), opened.facts.name, opened.facts.adapters
    _place(database, index, cells)
    coarser, alike, few, mixed = database.execute(f"""
        SELECT count(*) FILTER (level > 0), count(*) FILTER (score IS NULL),
               count(*) FILTER (n < {TELLING} AND NOT mixed), count(*) FILTER (mixed) FROM placed
    """).fetchone()
    return Ranking(
        index=index,
        meaning=INDICES[index].described,
        sharp=INDICES[index].sharp,
        against="population" if reference is None else "reference",
        reference=called,
        reference_adapters=size,
        adapters=adapters,
        coarser=coarser,
        alike=alike,
        unusual=_unusual(database, cells, index),
        few=few,
        mixed=mixed,
        rank_one=rank_one,
        spread=_spread(database),
        most=_most(database, index, most, cells),
    )


def _columns(index: str) -> list[str]:
    return [f"{index}_{summary}" for summary in SUMMARIES]


def _prepare(database: Any, index: str) -> int:
    """Make the table `adapter`: what stands for each, and the keys of its cells.

    Returns how many are left out, since all their modules have rank 1 and the index says nothing of those.
    """
    end = "max" if INDICES[index].sharp == "high" else "min"
    bands = (band_sql("rank_min"), band_sql("rank_max"))
    database.execute(f"""
        CREATE TEMP TABLE adapter AS
        SELECT id, uri, base_family, NULL::VARCHAR AS projection, NULL::VARCHAR AS role, {bands[1]} AS band,
               NULL::INTEGER AS third, rank_min, rank_max, {bands[0]} <> {bands[1]} AS banded,
               middle AS {index}_median, tip AS {index}_sharpest
        FROM (SELECT uri, median({index}) FILTER (isfinite({index})) AS middle,
                     {end}({index}) FILTER (isfinite({index})) AS tip
              FROM modules WHERE ssi IS NOT NULL GROUP BY uri) JOIN one USING (uri)
    """)
    left: int = 0
    if INDICES[index].silent:
        left = database.execute("SELECT count(*) FROM adapter WHERE rank_max = 1").fetchone()[0]
        database.execute("DELETE FROM adapter WHERE rank_max = 1")
    database.execute(f"DELETE FROM adapter WHERE {index}_median IS NULL")
    return left


def _own_cells(database: Any, index: str) -> Cells:
    cells: Cells = {}
    last = len(ADAPTER_LEVELS) - 1
    for column in _columns(index):
        for number, level in enumerate(ADAPTER_LEVELS):
            query = cell_query("adapter", column, level, last=number == last)
            for family, _, _, band, _, *cell in database.execute(query, [list(GRID)]).fetchall():
                cells[number, family, band, column] = PopulationCell(*cell)
    return cells


def _cells_of(path: Path, index: str) -> Cells:
    """Return the cells of a reference that adapters are compared with."""
    pq, pa, pc = (need(name, "fleet") for name in ("pyarrow.parquet", "pyarrow", "pyarrow.compute"))
    wanted = (pc.field("scope") == "adapter") & pc.field("index").isin(_columns(index))
    try:
        refuse_large(path, path)
        rows = pq.read_table(path, filters=wanted).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise AdapterFileError(f"cannot be read as a reference: {printable(error)}", file=path) from None
    cells = {(row["level"], row["base_family"], row["band"], row["index"]): cell_of(row, path) for row in rows}
    last = len(ADAPTER_LEVELS) - 1
    if any((last, None, None, column) not in cells for column in _columns(index)):
        raise UsageError(
            f"the reference holds no {index}", fix=worded("choose another {index}, or build it of such a scan")
        )
    return cells


def _place(database: Any, index: str, cells: Cells) -> None:
    """Make the table `placed`: each adapter with its cell, both z, and the larger |z| as its score.

    Of the cell it keeps how many adapters it has (`n`), and whether that or the adapter itself is of several bands of
    ranks, over which the index does not compare (`mixed`).
    """
    middle, tip = _columns(index)
    numbers = ", ".join(f"{name} DOUBLE" for name in "mdte")  # median and MAD of the medians, and of the sharpest
    database.execute(f"CREATE TEMP TABLE cell (level INTEGER, f VARCHAR, b VARCHAR, n BIGINT, {numbers})")
    rows = [
        (level, family, band, cell.independent, cell.median, cell.mad, other.median, other.mad)
        for (level, family, band, column), cell in cells.items()
        if column == middle and (other := cells.get((level, family, band, tip))) is not None
    ]
    if rows:
        database.executemany("INSERT INTO cell VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    chosen = ", ".join(f"coalesce(c0.{name}, c1.{name}, c2.{name}) AS {name}" for name in ("level", "n", *"mdte"))
    mixed = "(level = 2 OR banded)" if INDICES[index].by_rank else "false"
    database.execute(f"""
        CREATE TEMP TABLE placed AS
        SELECT *, greatest(abs(z_median), abs(z_sharpest)) AS score FROM (
            SELECT *, {mixed} AS mixed, CASE WHEN d > 0 THEN {NORMAL} * (middle - m) / d END AS z_median,
                      CASE WHEN e > 0 THEN {NORMAL} * (tip - t) / e END AS z_sharpest
            FROM (SELECT uri, base_family, band, banded, {middle} AS middle, {tip} AS tip, {chosen}
                  FROM adapter LEFT JOIN cell c0 ON c0.level = 0 AND c0.f = base_family AND c0.b = band
                       LEFT JOIN cell c1 ON c1.level = 1 AND c1.b = band JOIN cell c2 ON c2.level = 2))
    """)


def _unusual(database: Any, cells: Cells, index: str) -> int:
    """Return how many of all adapters are unusual."""
    rows = database.execute(f"""
        SELECT level, base_family, band, middle, tip FROM placed WHERE score > {FAR} AND n >= {TELLING} AND NOT mixed
    """).fetchall()
    found = 0
    for level, family, band, *values in rows:
        adapters, marks = _held(cells, index, (level, family, band), values)
        found += _verdict(marks, adapters, None) in ("high", "low")
    return found


def _held(
    cells: Cells, index: str, cell: tuple[int, str, str], values: Sequence[float]
) -> tuple[int, tuple[Mark, Mark]]:
    """Return how many adapters the cell of an adapter has, and where its median and its sharpest stand in it."""
    level, family, band = cell
    keys = (level, family if level == 0 else None, band if level < 2 else None)
    middle, tip = (cells[(*keys, column)] for column in _columns(index))
    return middle.independent, (middle.mark(values[0]), tip.mark(values[1]))


def _verdict(marks: tuple[Mark, Mark], adapters: int, hindered: Hindrance | None) -> UnusualWord:
    median, sharpest = marks
    farthest = sorted((sharpest, median), key=lambda mark: -abs(mark.z or 0.0))
    return together([unusual(mark, adapters, hindered) for mark in farthest])


def _spread(database: Any) -> ZSpread:
    counts = {}
    bins = 2 * WIDEST * EACH
    for summary in SUMMARIES:
        numbers = [0] * bins
        bin_of = f"CAST(least(greatest(floor((z_{summary} + {WIDEST}) * {EACH}), 0), {bins - 1}) AS INTEGER)"
        query = f"SELECT {bin_of}, count(*) FROM placed WHERE z_{summary} IS NOT NULL GROUP BY 1"
        for at, number in database.execute(query).fetchall():
            numbers[at] = number
        counts[summary] = tuple(numbers)
    return ZSpread(tuple(i / EACH - WIDEST for i in range(bins + 1)), counts["median"], counts["sharpest"])


def _most(database: Any, index: str, most: int, cells: Cells) -> tuple[UnusualAdapter, ...]:
    order = "DESC" if INDICES[index].sharp == "high" else "ASC"
    database.execute(
        "CREATE TEMP TABLE top AS SELECT * FROM placed WHERE score IS NOT NULL ORDER BY score DESC, uri LIMIT ?", [most]
    )
    rows = database.execute(f"""
        WITH sharp AS (
            SELECT uri, path FROM modules WHERE uri IN (SELECT uri FROM top) AND isfinite({index})
            QUALIFY row_number() OVER (PARTITION BY uri ORDER BY {index} {order}, path) = 1)
        SELECT level, t.base_family, t.band, middle, tip, rank_min, rank_max, uri, name, modules, copies, form, path
        FROM top t JOIN one USING (uri) JOIN sharp USING (uri) ORDER BY score DESC, uri
    """).fetchall()
    found = []
    for number, (level, family, band, *values, low, rank, uri, name, modules, copies, form, path) in enumerate(rows, 1):
        adapters, (median, sharpest) = _held(cells, index, (level, family, band), values)
        hindered = hindrance(index, level, (low, rank))
        found.append(
            UnusualAdapter(
                place=number,
                uri=uri,
                name=name,
                base_family=family,
                rank=rank,
                modules=modules,
                copies=copies,
                module=path,
                level=level,
                cell=ADAPTER_LEVELS[level].meaning,
                adapters=adapters,
                median=median,
                sharpest=sharpest,
                verdict=_verdict((median, sharpest), adapters, hindered),
                hindered=hindered,
                form=form,
            )
        )
    return tuple(found)
