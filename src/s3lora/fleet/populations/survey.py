"""A population at a glance: what a dataset holds, how its indices are distributed, what is unusual, what went wrong.

All is computed by DuckDB over the dataset: of 20 million modules no row passes through Python. Copies of an adapter
count once in everything but the counts of inputs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3lora.errors import UsageError, printable
from s3lora.fleet.populations.distributions import Distribution, distributions, indices_of
from s3lora.fleet.populations.unusual import Ranking, ranking
from s3lora.fleet.results.database import connect
from s3lora.fleet.results.distinct import COPIES, Recipe, make_distinct, recipes
from s3lora.fleet.results.inside import counted_inside
from s3lora.fleet.results.outcome import Settings
from s3lora.fleet.results.summary import Summary, read_summary
from s3lora.measure.scan import Tool
from s3lora.spectrum.indices import INDICES
from s3lora.wording import worded

SCHEMA_VERSION = 1
#: How many of each are listed; the rest is one number.
EXAMPLES, GROUPS, NAMES, RECIPES, MOST = 5, 20, 5, 20, 50


@dataclass(frozen=True, slots=True)
class Census:
    """How many there are of everything.

    Every input is one of `adapters` or of `errors`. `distinct` adapters have factors of their own, `measured` of these
    have a module with an index, and `measured_modules` is how many such modules these have. The others count all
    adapters; `bytes` are those of their weights files.
    """

    inputs: int
    adapters: int
    errors: int
    distinct: int
    families: int
    measured: int
    modules: int
    measured_modules: int
    zero_modules: int
    nonfinite_modules: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Failure:
    """One input that gave no result."""

    uri: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failures:
    """Errors of one kind: how many, how many of them another try may mend, and the first in order of uri."""

    kind: str
    inputs: int
    transient: int
    examples: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Copies:
    """Adapters that hold the same factors; `scalings` tells in how many different ways these are scaled or named."""

    tensors: str
    adapters: int
    scalings: int
    first: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What `s3lora fleet report` shows; `complete` tells whether the last run of the scan came to its end.

    `copies` are the largest groups of `copied_groups`, `recipes` the most frequent ones, of which `more_recipes` are
    left out. `skipped` counts by reason what was found and is no adapter; `inside`, by column of `adapters`, adapters
    with something that is not LoRA in them or beside them. `forms` counts modules by how their update is stored, as far
    as this is known: datasets of older versions do not tell.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    name: str
    settings: Settings
    inputs: tuple[str, ...]
    complete: bool
    census: Census
    unusual: Ranking | None
    distributions: tuple[Distribution, ...]
    errors: tuple[Failures, ...]
    skipped: dict[str, int]
    copied_groups: int
    copies: tuple[Copies, ...]
    recipes: tuple[Recipe, ...]
    more_recipes: int
    inside: dict[str, int] = field(default_factory=dict)
    forms: dict[str, int] = field(default_factory=dict)


def survey(folder: Path, *, index: str = "ssi", most: int = MOST, reference: Path | None = None) -> Survey:
    """Return what the dataset in `folder` holds.

    Parameters:
        folder: a dataset of `fleet scan`.
        index: by which adapters are ranked.
        most: how many adapters to name, the farthest from their kind first.
        reference: a file of `build_reference` to compare with; None compares with the dataset itself.

    Raises AdapterFileError if there is no dataset or no reference, and UsageError for an unknown index, one that the
    scan did not compute or did not know yet, and a reference of another method or M.
    """
    if index not in INDICES:
        raise UsageError(f"no index {index!r}", fix=f"choose one of {', '.join(INDICES)}")
    if most < 1:
        raise UsageError(f"most must be 1 or more, not {most}")
    summary = read_summary(folder)
    with connect(folder) as database:
        return _survey(database, folder, summary, index, most, reference)


def _survey(database: Any, folder: Path, summary: Summary, index: str, most: int, reference: Path | None) -> Survey:
    known = indices_of(database)
    if index not in known:
        what = f"this dataset was scanned before s3lora had the index {index}"
        raise UsageError(what, fix=worded("scan into a new folder, or choose another {index}"))
    make_distinct(database)
    name = printable(Path(os.path.realpath(folder)).name, 80)
    unusual = ranking(database, summary.settings, index, most, name, reference)
    shown = (name for name in known if INDICES[name].surveyed)
    drawn = distributions(database, tuple(dict.fromkeys((index, *shown))))
    census = _census(database)
    if unusual is None and census.measured:
        fix = worded("scan with {kurtosis}") if INDICES[index].costly else worded("choose another {index}")
        raise UsageError(f"no module of this dataset has {index}", fix=fix)
    made, more_recipes = recipes(database, RECIPES)
    copies, copied_groups = _copies(database)
    return Survey(
        name=name,
        settings=summary.settings,
        inputs=summary.inputs,
        complete=summary.complete,
        census=census,
        unusual=unusual,
        distributions=drawn,
        errors=_errors(database),
        skipped=dict(sorted(summary.counts.skipped.items())),
        copied_groups=copied_groups,
        copies=copies,
        recipes=made,
        more_recipes=more_recipes,
        inside=counted_inside(folder),
        forms=_forms(database),
    )


def _census(database: Any) -> Census:
    adapters, families, modules, zero, nonfinite, parameters, size = database.execute("""
        SELECT count(*), count(DISTINCT base_family), coalesce(sum(modules), 0), coalesce(sum(zero_modules), 0),
               coalesce(sum(nonfinite_modules), 0), coalesce(sum(parameters), 0), coalesce(sum(bytes), 0)
        FROM adapters
    """).fetchone()
    errors = database.execute("SELECT count(*) FROM errors").fetchone()[0]
    distinct = database.execute("SELECT count(*) FROM one").fetchone()[0]
    measured, measured_modules = database.execute("SELECT count(DISTINCT id), count(*) FROM part").fetchone()
    return Census(
        inputs=adapters + errors,
        adapters=adapters,
        errors=errors,
        distinct=distinct,
        families=families,
        measured=measured,
        modules=int(modules),
        measured_modules=measured_modules,
        zero_modules=int(zero),
        nonfinite_modules=int(nonfinite),
        parameters=int(parameters),
        bytes=int(size),
    )


def _forms(database: Any) -> dict[str, int]:
    rows = database.execute("""
        SELECT form, count(*) FROM modules WHERE form IS NOT NULL GROUP BY form ORDER BY 2 DESC, form
    """).fetchall()
    return dict(rows)


def _errors(database: Any) -> tuple[Failures, ...]:
    kinds = database.execute("""
        SELECT kind, count(*), count(*) FILTER (transient) FROM errors GROUP BY kind ORDER BY 2 DESC, kind
    """).fetchall()
    examples = database.execute(f"""
        SELECT kind, uri, reason FROM errors
        QUALIFY row_number() OVER (PARTITION BY kind ORDER BY uri) <= {EXAMPLES} ORDER BY kind, uri
    """).fetchall()
    return tuple(
        Failures(kind, inputs, passing, tuple(Failure(uri, why) for one, uri, why in examples if one == kind))
        for kind, inputs, passing in kinds
    )


def _copies(database: Any) -> tuple[tuple[Copies, ...], int]:
    """Return the largest groups of adapters with the same factors, and how many groups there are."""
    rows = database.execute(f"""
        SELECT tensors, count(*), count(DISTINCT content), list_sort(list(uri))[1:{NAMES}], count(*) OVER ()
        FROM {COPIES} ORDER BY 2 DESC, min(uri) LIMIT {GROUPS}
    """).fetchall()
    found = tuple(Copies(tensors, adapters, scalings, tuple(first)) for tensors, adapters, scalings, first, _ in rows)
    return found, rows[0][-1] if rows else 0
