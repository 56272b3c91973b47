"""Where an adapter stands in a reference population: percentile and robust z of every module, and of the adapter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s3lora.errors import AdapterFileError, UsageError, printable
from s3lora.fleet.bounded import refuse_large
from s3lora.fleet.families import base_family
from s3lora.fleet.populations.reference import GRID, SUMMARIES, Facts, Scope, read_facts
from s3lora.fleet.results.rows import stored_uri, third
from s3lora.measure.against import Against, Hindrance, Mark, Standing, UnusualWord, hindrance, unusual
from s3lora.measure.cells import ADAPTER_LEVELS, KEYS, MODULE_LEVELS, Level, band, key_of
from s3lora.measure.configuration import Configuration
from s3lora.measure.roles import role_of
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.needs import need
from s3lora.spectrum.indices import INDICES
from s3lora.statistics import wilson

__all__ = ["NORMAL", "Against", "Mark", "PopulationCell", "Reference", "Standing", "cell_of", "summaries"]

#: Most cells that are read for one adapter: a reference of every public adapter has a tenth of them.
MAX_CELLS = 50_000
#: Of a normal distribution, the median absolute deviation is this share of the standard deviation.
NORMAL = 0.6745


@dataclass(frozen=True, slots=True)
class PopulationCell:
    """Distribution of one index over `adapters` adapters: `quantiles` are those at `GRID`.

    `sources` is None where each adapter counts as a source of its own.
    """

    adapters: int
    values: int
    median: float
    mad: float
    quantiles: Sequence[float]
    sources: int | None = None

    @property
    def independent(self) -> int:
        """Return how many independent values it has at most."""
        return self.adapters if self.sources is None else self.sources

    def mark(self, value: float) -> Mark:
        """Return where a value stands in this cell."""
        share = share_below(value, self.quantiles)
        interval = wilson(round(share * self.independent), self.independent)
        z = NORMAL * (value - self.median) / self.mad if self.mad > 0 else None
        low, high = min(interval.low, share), max(interval.high, share)
        return Mark(value, 100 * share, 100 * low, 100 * high, z)


def share_below(value: float, quantiles: Sequence[float]) -> float:
    """Return the share of a distribution below a value, from its quantiles at `GRID`; of equal values half."""
    q, p = np.asarray(quantiles), np.asarray(GRID)
    if value < q[0]:
        return 0.0
    if value > q[-1]:
        return 1.0
    first, last = int(np.searchsorted(q, value, "left")), int(np.searchsorted(q, value, "right"))
    if first == last:  # between two quantiles
        step = (value - q[first - 1]) / (q[first] - q[first - 1])
        return float(p[first - 1] + step * (p[first] - p[first - 1]))
    return float((p[first] + p[last - 1]) / 2)


class Reference:
    """A reference file, of which only what concerns one family is read at a time."""

    def __init__(self, path: Path) -> None:
        """Read what the file says of itself; raise AdapterFileError if it is no reference."""
        self.path = path
        self.facts: Facts = read_facts(path)
        self._cells: dict[tuple[Any, ...], PopulationCell] = {}
        self._read: set[str] = set()

    def compare(self, scan: Scan) -> Against:
        """Return where every module of a scan, and the adapter, stands.

        Raises UsageError if the reference was made with another method or M: its numbers are then others; and
        AdapterFileError if the file holds what no reference does.
        """
        self.check(scan.configuration)
        family = base_family(scan.source.base_model)
        self._load(family)
        layers = [module.layer for module in scan.modules if module.layer is not None]
        ends = (min(layers, default=0), max(layers, default=0))
        measured = [module for module in scan.modules if module.indices.get("ssi") is not None]
        standings = {module.path: self._module(module, family, ends) for module in measured}
        adapter = self._adapter(scan.modules, measured, family) if measured else None
        hindered = {} if adapter is None else _hindered(adapter, scan.modules)
        return Against(
            reference=printable(self.facts.name, 80),
            adapters=self.facts.adapters,
            modules=self.facts.modules,
            base_family=family,
            family_adapters=self.facts.families.get(family, 0),
            coarser=sum(standing.level > 0 for standing in standings.values()),
            adapter=adapter,
            unusual={} if adapter is None else _words(adapter, hindered),
            hindered=hindered,
            standings=standings,
        )

    def check(self, here: Configuration) -> None:
        """Raise UsageError if what was measured so cannot be compared with this reference."""
        there = self.facts.settings.scan
        for name in ("method", "rank", "fit", "sample"):
            if getattr(there, name) != getattr(here, name):
                raise UsageError(
                    f"the reference was made with {name} {printable(getattr(there, name), 40)}, and this scan with"
                    f" {printable(getattr(here, name), 40)}",
                    fix="scan with the same options, or build a reference of such a scan",
                )

    def _module(self, module: ModuleScan, family: str, ends: tuple[int, int]) -> Standing:
        keys = {
            "base_family": family,
            "projection": stored_uri(module.projection),
            "role": None if (role := role_of(module.path)) is None else role.key,
            "band": band(module.rank),
            "third": None if module.layer is None else third(module.layer, *ends),
        }
        return self._standing("module", MODULE_LEVELS, keys, module.indices)

    def _adapter(self, modules: Sequence[ModuleScan], measured: Sequence[ModuleScan], family: str) -> Standing:
        # The band is that of all modules, as in the rows of a dataset.
        keys = {"base_family": family, "band": band(max(module.rank for module in modules))}
        return self._standing("adapter", ADAPTER_LEVELS, keys, summaries(measured))

    def _standing(
        self, scope: Scope, levels: Sequence[Level], keys: dict[str, Any], values: Mapping[str, float | None]
    ) -> Standing:
        first = "ssi" if scope == "module" else f"ssi_{SUMMARIES[0]}"
        keyed = [(scope, number, *key_of(level, keys)) for number, level in enumerate(levels)]
        number = next(number for number, key in enumerate(keyed) if (*key, first) in self._cells)
        found = {name: self._cells.get((*keyed[number], name)) for name in values}
        marks = {
            name: cell.mark(value)
            for name, value in values.items()
            if value is not None and (cell := found[name]) is not None
        }
        cell = self._cells[(*keyed[number], first)]
        return Standing(number, levels[number].meaning, cell.adapters, marks, cell.sources)

    def _load(self, family: str) -> None:
        """Read the cells of a family and those of all families, once."""
        if family in self._read:
            return
        pq, pa = need("pyarrow.parquet", "fleet"), need("pyarrow", "fleet")
        pc = need("pyarrow.compute", "fleet")
        wanted = (pc.field("base_family") == family) | pc.field("base_family").is_null()
        try:
            refuse_large(self.path, self.path)
            if pq.read_table(self.path, columns=["base_family"], filters=wanted).num_rows > MAX_CELLS:
                raise AdapterFileError("holds more cells than any reference", file=self.path)
            table = pq.read_table(self.path, filters=wanted)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise AdapterFileError(f"cannot be read as a reference: {printable(error)}", file=self.path) from None
        for row in table.to_pylist():
            self._cells[_cell_key(row)] = cell_of(row, self.path)
        ends = (("module", len(MODULE_LEVELS) - 1, "ssi"), ("adapter", len(ADAPTER_LEVELS) - 1, f"ssi_{SUMMARIES[0]}"))
        for scope, level, name in ends:
            if (scope, level, *(None,) * len(KEYS), name) not in self._cells:
                raise AdapterFileError(f"has no cell of all {scope}s", file=self.path, fix="build it again")
        self._read.add(family)


def _hindered(adapter: Standing, modules: Sequence[ModuleScan]) -> dict[str, Hindrance]:
    """Return for which marks of an adapter ranks forbid a verdict, and why."""
    ranks = [module.rank for module in modules]
    ends = (min(ranks), max(ranks))
    found = {name: hindrance(name.rpartition("_")[0], adapter.level, ends) for name in adapter.marks}
    return {name: why for name, why in found.items() if why is not None}


def _words(adapter: Standing, hindered: Mapping[str, Hindrance]) -> dict[str, UnusualWord]:
    independent = adapter.adapters if adapter.sources is None else adapter.sources
    return {name: unusual(mark, independent, hindered.get(name)) for name, mark in adapter.marks.items()}


def summaries(modules: Iterable[ModuleScan]) -> dict[str, float | None]:
    """Return what stands for an adapter: of each index the median over its modules, and the value at the sharp end."""
    found: dict[str, float | None] = {}
    for name, index in INDICES.items():
        values = [value for module in modules if (value := module.indices.get(name)) is not None]
        found[f"{name}_median"] = float(np.median(values)) if values else None
        found[f"{name}_sharpest"] = (max if index.sharp == "high" else min)(values, default=None)
    return found


def _cell_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("scope", "level", *KEYS, "index"))


def cell_of(row: Mapping[str, Any], path: Path) -> PopulationCell:
    """Return the cell in a row of a reference; raise AdapterFileError where the file holds what no reference does."""
    quantiles = row["quantiles"] or []
    numbers = (row["median"], row["mad"], *quantiles)
    sound = len(quantiles) == len(GRID) and all(value is not None and math.isfinite(value) for value in numbers)
    sources, adapters = row.get("sources"), row["adapters"] or 0
    counted = adapters > 0 and (sources is None or 0 < sources <= adapters)
    if not sound or quantiles != sorted(quantiles) or not counted:
        raise AdapterFileError("holds a cell that is no distribution", file=path, fix="build it again")
    return PopulationCell(row["adapters"], row["values"], row["median"], row["mad"], quantiles, sources)
