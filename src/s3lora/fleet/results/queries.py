"""Questions to a dataset, in SQL: those that people write, and a few that are worth keeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3lora.errors import UsageError, printable
from s3lora.fleet.results.database import connect
from s3lora.fleet.results.distinct import COPIES
from s3lora.fleet.results.inside import NOT_LORA
from s3lora.needs import need


@dataclass(frozen=True, slots=True)
class Saved:
    """A query with a name, and what it tells."""

    meaning: str
    sql: str


#: Of each column that is not 0 its number and its name: a table with all of them is too wide to read.
_LISTED = ", ".join(f"CASE WHEN {name} > 0 THEN {name} || ' {name.replace('_', ' ')}' END" for name in NOT_LORA)

SAVED = {
    "sharpest": Saved(
        "the adapters whose sharpest module is the sharpest, among those of rank 2 and more",
        """
        SELECT a.uri, a.base_family, arg_max(m.path, m.ssi) AS module, max(m.ssi) AS ssi,
               max(m.normalised_ssi) AS normalised_ssi, count(*) AS modules
        FROM modules m JOIN adapters a USING (uri) WHERE m.rank > 1 AND m.ssi IS NOT NULL
        GROUP BY a.uri, a.base_family ORDER BY max(m.normalised_ssi) DESC, a.uri LIMIT 50
        """,
    ),
    "duplicates": Saved(
        "groups of adapters that hold the same factors under other names",
        f"""
        SELECT count(*) AS adapters, count(DISTINCT content) AS scalings, min(uri) AS first,
               list_sort(list(uri))[2:6] AS others
        FROM {COPIES} ORDER BY adapters DESC, first
        """,
    ),
    "not-lora": Saved(
        "adapters with anything that is not LoRA: tensors that no index has seen, modules that are not applied, other "
        "weights, code, pickles",
        f"""
        SELECT uri, concat_ws(', ', {_LISTED}) AS holds, unmeasured_bytes AS bytes, beside
        FROM adapters WHERE {" OR ".join(f"{name} > 0" for name in NOT_LORA)}
        ORDER BY base_weights > 0 DESC, code > 0 DESC, other_weights > 0 DESC, dead_modules > 0 DESC,
                 unmeasured_bytes DESC, uri
        """,
    ),
    "errors": Saved(
        "what went wrong, by kind, with an example of each",
        """
        SELECT kind, count(*) AS inputs, bool_or(transient) AS may_pass, min_by(reason, uri) AS example
        FROM errors GROUP BY kind ORDER BY inputs DESC, kind
        """,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a query: names of the columns, each of them once, and rows of as many values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def ask(folder: Path, sql: str) -> Answer:
    """Return what DuckDB answers over the views `adapters`, `modules` and `errors` of the dataset in `folder`.

    A query is one SELECT, can read this dataset and nothing else, and writes nothing. Raises UsageError for other SQL,
    and AdapterFileError if there is no dataset.
    """
    duckdb = need("duckdb", "fleet")
    with connect(folder) as database:
        try:
            # Within the folders that it may read DuckDB would write as well, and by more than COPY.
            if [one.type for one in database.extract_statements(sql)] != [duckdb.StatementType.SELECT]:
                raise UsageError(
                    "a query is one SELECT, without EXPLAIN or PIVOT", fix="write it over adapters, modules or errors"
                )
            found = database.execute(sql)
            return Answer(_once([column[0] for column in found.description]), tuple(found.fetchall()))
        except duckdb.IOException:  # of the files, and not of the query
            raise
        except duckdb.Error as error:
            raise UsageError(f"DuckDB refuses this query: {printable(error, 400)}") from None


def _once(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns, a number behind those that were there before.

    >>> _once(["uri", "uri", "rank"])
    ('uri', 'uri_2', 'rank')
    """
    made: dict[str, None] = {}
    for name in names:
        numbered = (name, *(f"{name}_{n}" for n in range(2, len(names) + 1)))
        made[next(one for one in numbered if one not in made)] = None
    return tuple(made)


def saved(name: str) -> str:
    """Return the SQL of a saved query."""
    return "\n".join(line.strip() for line in SAVED[name].sql.strip().splitlines())
