"""An adapter → where it stands among published ones, of which quantiles are shipped; see `docs/normal.md`.

They are aggregated by role, band of ranks and, where there are enough, architecture; `docs/make_published.py` makes
them. Nothing is compared with what it is not: a module without such a group has no standing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import msgspec
import numpy as np

from s3lora.arguments import checked
from s3lora.measure.against_published import (
    AgainstPublished,
    LeftOut,
    PublishedGroup,
    PublishedMark,
    PublishedStanding,
    TrainingSignal,
)
from s3lora.measure.cells import band
from s3lora.measure.null_energy import null_energy
from s3lora.measure.roles import architecture_of, role_of, without_numbers
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.spectrum.tall import Float
from s3lora.statistics import wilson

FILE = "data/reference/published.json"
#: The index that leads, since it hardly depends on the rank, and on no spectral method.
LEADING = "energy"
#: Shares at which quantiles are kept. Beyond them a percentile of so few sources means nothing.
GRID = tuple(round(share / 100, 2) for share in range(5, 96))
#: Largest rank with published modules enough.
MAX_RANK = 16
#: A module is compared as long as its width is within this factor of those of its group.
FAR_WIDER = 2.0
#: A matrix must be so many ranks wide: in a smaller one even random updates are sharp.
NARROWEST = 2
#: The median excess of energy over random updates from which on there is a training signal.
SIGNAL = 0.03
#: A share of the largest singular value that is rounding.
NOTHING = 1e-6
#: How SSI was measured. Energy is the same by every method.
_METHOD = "mas-svd"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell(PublishedGroup):
    quantiles: dict[str, list[float]]

    @property
    def facts(self) -> PublishedGroup:
        return PublishedGroup(**{one.name: getattr(self, one.name) for one in fields(PublishedGroup)})


class _StoredReference(msgspec.Struct):
    name: str
    adapters: int
    sources: int
    modules: int
    cells: list[_Cell]


class Published(NamedTuple):
    """The shipped reference; `groups` by role, band and architecture."""

    name: str
    adapters: int
    sources: int
    modules: int
    groups: dict[tuple[str, str, str | None], _Cell]


@lru_cache(maxsize=1)
def published() -> Published:
    """Return the shipped reference, which is read once."""
    found = msgspec.json.decode((files("s3lora") / FILE).read_bytes(), type=_StoredReference)
    groups = {(one.role, one.band, one.architecture): one for one in found.cells}
    return Published(found.name, found.adapters, found.sources, found.modules, groups)


@checked
def among_published(scan: Scan) -> AgainstPublished:
    """Return where every module of a scan stands among published ones of its role and rank.

    Examples:
        >>> import s3lora
        >>> against = s3lora.among_published(s3lora.scan("my-adapter"))
        >>> len(against.standings), against.left_out, against.signal.found
        (90, {'few': 30}, True)
        >>> against.standings["model.layers.25.self_attn.v_proj"].marks["energy"].beyond
        False

    Raises UsageError for anything but a scan.
    """
    reference = published()
    same = scan.configuration.method == _METHOD and scan.configuration.rank is None
    left_out: Counter[LeftOut] = Counter()
    members: dict[tuple[str, str, str | None], list[ModuleScan]] = {}
    decided: dict[tuple[object, ...], tuple[str, str, str | None] | LeftOut] = {}
    for module in scan.modules:
        if module.indices.get(LEADING) is None:
            continue
        # Modules that differ in the number of their layer alone are decided on once.
        alike = (without_numbers(module.path), module.rank, module.shape, module.kind, module.form, module.dense)
        if (key := decided.get(alike)) is None:
            key = decided[alike] = _group_of(module, scan.source.base_model, reference)
        if isinstance(key, str):
            left_out[key] += 1
        else:
            members.setdefault(key, []).append(module)
    standings: dict[str, PublishedStanding] = {}
    for number, (found, own) in enumerate(members.items()):
        standings |= _standings(number, reference.groups[found], own, same=same)
    marks = {path: one.marks[LEADING] for path, one in standings.items()}
    groups = tuple(reference.groups[found].facts for found in members)
    return AgainstPublished(
        name=reference.name,
        adapters=reference.adapters,
        sources=reference.sources,
        modules=reference.modules,
        index=LEADING,
        groups=groups,
        # In the order of the model, and not of the groups.
        standings={module.path: standings[module.path] for module in scan.modules if module.path in standings},
        left_out={reason: left_out[reason] for reason in sorted(left_out)},
        sharpest=max(marks, key=lambda path: (marks[path].percentile, marks[path].value), default=None),
        median=_median([(mark, groups[standings[path].group].sources) for path, mark in marks.items()]),
        beyond=sum(mark.beyond for mark in marks.values()),
        signal=training_signal(scan.modules),
    )


def bands(against: AgainstPublished) -> dict[str, list[tuple[float, float]]]:
    """Return the 5th and 95th percentile of each index for each of its `groups`; empty where those are of another file.

    SSI is that of modules of the group's own rank.
    """
    reference = published()
    keys = [(one.role, one.band, one.architecture) for one in against.groups]
    if against.name != reference.name or not all(key in reference.groups for key in keys):
        return {}
    found = [reference.groups[key].quantiles for key in keys]
    names = dict.fromkeys(name for quantiles in found for name in quantiles)
    return {name: [(quantiles[name][0], quantiles[name][-1]) for quantiles in found] for name in names}


def _group_of(
    module: ModuleScan, base_model: str | None, reference: Published
) -> tuple[str, str, str | None] | LeftOut:
    """Return the finest group of a module, or why it has none."""
    if module.form != "LoRA" or module.dense or module.kind != "linear":
        return "form"
    if not 1 < module.rank <= MAX_RANK:
        return "rank"
    role = None if module.expert is not None else role_of(module.path)
    if role is None:
        return "role"
    ranks = band(module.rank)
    wanted = ((role.key, ranks, architecture_of(module.path, base_model)), (role.key, ranks, None))
    keys = [key for key in wanted if key in reference.groups]
    if not keys:
        return "few"
    return next((key for key in keys if _fits(module, reference.groups[key])), "width")


def _fits(module: ModuleScan, group: PublishedGroup) -> bool:
    low, high = group.width
    wide = math.sqrt(module.shape[0] * module.shape[1])
    return low / FAR_WIDER <= wide <= high * FAR_WIDER and min(module.shape) >= NARROWEST * module.rank


def _standings(number: int, group: _Cell, own: list[ModuleScan], *, same: bool) -> dict[str, PublishedStanding]:
    """Return the standings of the modules of one group; `same` tells that σ̃ were measured as those of the group."""
    marks: dict[str, dict[str, PublishedMark]] = {module.path: {} for module in own}
    for name, stored in group.quantiles.items():
        if name != LEADING and not same:
            continue
        compared = [module for module in own if name != "ssi" or module.rank == group.rank]
        known = [(module.path, value) for module in compared if (value := module.indices.get(name)) is not None]
        if not known:
            continue
        quantiles, values = np.asarray(stored), np.array([value for _, value in known])
        numbers = _intervals(np.interp(values, *_strictly(quantiles)), group.sources)
        numbers[1][values < quantiles[0]] = 0.0
        columns = (*(column.tolist() for column in numbers), (values > quantiles[-1]).tolist())
        for (path, value), *column in zip(known, *columns, strict=True):
            marks[path][name] = PublishedMark(value, *column)
    return {path: PublishedStanding(number, found) for path, found in marks.items()}


def _strictly(quantiles: Float) -> tuple[Float, Float]:
    """Return quantiles and their shares without repetition, the middle of the shares where values are equal."""
    values, place, counts = np.unique(quantiles, return_inverse=True, return_counts=True)
    return values, np.bincount(place, GRID) / counts


def _intervals(shares: Float, sources: int) -> tuple[Float, Float, Float]:
    """Return shares with the ends of their intervals for so many sources, in percent; none goes beyond the last of
    `GRID`.
    """
    ends = 100 * np.array(_wilson(sources))[np.rint(shares * sources).astype(int)]
    percent = 100 * shares
    return percent, np.minimum(ends[..., 0], percent), np.minimum(np.maximum(ends[..., 1], percent), 100 * GRID[-1])


@lru_cache(maxsize=64)
def _wilson(sources: int) -> list[tuple[float, float]]:
    """Return the interval of each share of so many sources."""
    return [(one.low, one.high) for one in (wilson(count, sources) for count in range(sources + 1))]


def _median(marks: list[tuple[PublishedMark, int]]) -> PublishedMark | None:
    """Return the median of marks, each with the number of sources behind it; its value is that of the index."""
    if not marks:
        return None
    share = np.median([mark.percentile for mark, _ in marks]) / 100
    sources = int(np.median([sources for _, sources in marks]))
    percent, low, high = (float(number) for number in _intervals(np.asarray(share), sources))
    return PublishedMark(float(np.median([mark.value for mark, _ in marks])), percent, low, high, beyond=False)


def training_signal(modules: Iterable[ModuleScan]) -> TrainingSignal | None:
    """Return how far these modules lie above random updates, None where none of them can tell."""
    found = []
    for module in modules:
        value, (m, n) = module.indices.get(LEADING), module.shape
        # Factors that were padded with zeros are of the rank that they had.
        rank = sum(sigma > NOTHING * module.sigma[0] for sigma in module.sigma) if module.sigma else module.rank
        if value is None or module.form != "LoRA" or module.dense or min(m, n) < NARROWEST * rank:
            continue
        if (random := null_energy(m, n, rank)) is not None:
            found.append(value - random)
    if not found:
        return None
    excess = float(np.median(found))
    return TrainingSignal(excess, len(found), excess >= SIGNAL)
