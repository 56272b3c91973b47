"""Where an adapter stands among published ones, as documents keep it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from s3lora.errors import NoSuchModuleError, UsageError, printable
from s3lora.needs import need
from s3lora.views import view

__all__ = ["AgainstPublished", "LeftOut", "PublishedGroup", "PublishedMark", "PublishedStanding", "TrainingSignal"]

#: The indices of which quantiles of published modules are kept.
COMPARED = ("energy", "normalised_ssi", "ssi")
#: Why a module is not compared: it has a rank, a width or a form that no published module of its role has; its path
#: tells no role; or too few published modules have its role and rank.
LeftOut = Literal["rank", "role", "few", "width", "form"]


@dataclass(frozen=True, slots=True)
class PublishedMark:
    """Where one value stands: sharper than `low` to `high` percent of the modules that it is compared with.

    This is the 95 % interval of the percentile, for as many independent values as there are sources; it never goes
    beyond 95, as nothing is known there. `percentile` lies in [5, 95], and `beyond` tells that the value is above
    the 95th.
    """

    value: float
    percentile: float
    low: float
    high: float
    beyond: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedGroup:
    """The published modules that others are compared with.

    They have one `role`, such as `decoder.q`, one `band` of ranks, and one `architecture`, where that is not None.
    `rank` is that of most of them, of which alone the SSI is known, and `width` the 5th and 95th percentile of √(m·n).
    """

    role: str
    band: str
    architecture: str | None
    adapters: int
    runs: int
    sources: int
    modules: int
    rank: int
    width: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PublishedStanding:
    """One module: the place of its group in `groups`, and a mark for each index that can be compared."""

    group: int
    marks: dict[str, PublishedMark]


@dataclass(frozen=True, slots=True)
class TrainingSignal:
    """How far an adapter lies above random updates of its shapes and ranks.

    `excess` is the median, over `modules`, of the energy less the median energy of random updates. `found` is whether
    it reaches .03.
    """

    excess: float
    modules: int
    found: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AgainstPublished:
    """An adapter among published ones: `against[path]` is the standing of a module that was compared.

    `adapters`, `sources` and `modules` count all of these. `index` is the one that leads, `groups` are those that
    modules were compared with, and `standings` the modules by path; `left_out` counts the others by the reason.
    `sharpest` is the path of the module that stands highest by `index`, `median` the median of all that were compared,
    and `beyond` how many of these lie above the 95th percentile. All are None, or empty, where nothing was compared.
    """

    name: str
    adapters: int
    sources: int
    modules: int
    index: str
    groups: tuple[PublishedGroup, ...]
    standings: dict[str, PublishedStanding]
    left_out: dict[LeftOut, int]
    sharpest: str | None = None
    median: PublishedMark | None = None
    beyond: int = 0
    signal: TrainingSignal | None = None

    def __repr__(self) -> str:
        """Return in sentences where the adapter stands."""
        told: str = view("published", self)
        return told

    def __len__(self) -> int:
        """Return how many modules were compared."""
        return len(self.standings)

    def __iter__(self) -> Iterator[str]:
        """Go through the paths of the modules that were compared, in the order of the model."""
        return iter(self.standings)

    def __contains__(self, path: object) -> bool:
        """Return whether the module of this path was compared."""
        return isinstance(path, str) and path in self.standings

    def __getitem__(self, path: str) -> PublishedStanding:
        """Return the standing of the module at `path`; raise NoSuchModuleError where it has none."""
        if not isinstance(path, str):
            what = f"a module is named by its path, not by {printable(repr(path), 40)}"
            raise UsageError(what, fix="give the path, or go through `.standings`")
        if path not in self.standings:
            near = difflib.get_close_matches(str(path), self.standings, 1, 0.8)
            left = "`.left_out` counts those that are not, by the reason"
            fix = f"did you mean {printable(near[0])}?" if near else left
            raise NoSuchModuleError(f"no module {printable(path)!r} is compared with published ones", fix=fix)
        return self.standings[path]

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with a row for every module that is compared; raise MissingPackageError without it.

        After `path`, `role`, `ranks`, `architecture`, `adapters` and `sources` of its group, each index has its value,
        and `…_percentile`, `…_low` and `…_high`: the percentile among published modules, and the 95 % interval of it.
        """
        numbers = [f"{index}{end}" for index in COMPARED for end in ("", "_percentile", "_low", "_high")]
        columns = ["path", "role", "ranks", "architecture", "adapters", "sources", *numbers]
        table = need("pandas", None).DataFrame(self._rows(), columns=columns)
        return table.astype({"adapters": int, "sources": int, **dict.fromkeys(numbers, float)})

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for path, standing in self.standings.items():
            group = self.groups[standing.group]
            row = {"path": path, "role": group.role, "ranks": group.band, "architecture": group.architecture}
            numbers: dict[str, Any] = {"adapters": group.adapters, "sources": group.sources}
            for index, mark in standing.marks.items():
                numbers |= {index: mark.value, f"{index}_percentile": mark.percentile}
                numbers |= {f"{index}_low": mark.low, f"{index}_high": mark.high}
            rows.append({**row, **numbers})
        return rows
