"""Orders in which modules can be pruned: by an index of a spectral method, or by chance as a control."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from s3lora.adapter.model import Adapter
from s3lora.choose.ranking import index_of_ranks
from s3lora.choose.rules import Top
from s3lora.choose.select import Plan, select
from s3lora.choose.ties import sharpness
from s3lora.choose.units import CONTROLS
from s3lora.errors import UsageError, printable
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.spectrum.indices import INDICES
from s3lora.spectrum.methods import METHODS
from s3lora.statistics import spearman
from s3lora.wording import worded


@dataclass(frozen=True, slots=True)
class SweepRanking:
    """An index by a method; or a control, drawn with a seed, that `matches` the projections of such a ranking."""

    index: str
    method: str | None = None
    seed: int | None = None
    matches: tuple[str, str] | None = None

    @property
    def control(self) -> bool:
        """Return whether the ranking carries no information."""
        return self.index in CONTROLS

    @property
    def label(self) -> str:
        """Return the name in tables, the same for all seeds of a control."""
        if self.matches is not None:
            return f"{self.index} to {_label(*self.matches)}"
        return self.index if self.method is None else _label(self.index, self.method)

    def plan(self, scans: Mapping[str, Scan], top: int) -> Plan:
        """Return which modules go when `top` of them do; `scans` maps each method to its scan."""
        index, method = self.matches or (self.index, self.method or next(iter(scans)))
        return select(
            scans[method],
            Top(top),
            index=self.index,
            match=index if self.matches else "ssi",
            seed=self.seed or 0,
        )


def _label(index: str, method: str) -> str:
    return index if INDICES[index].plain else f"{index} ({method})"


def rankings(
    methods: Sequence[str],
    indices: Sequence[str],
    *,
    match: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[SweepRanking]:
    """Return every index by every method, each once, then the controls.

    Parameters:
        methods: spectral methods, and among them the controls `random` and `random-matched`.
        indices: indices of a scan; one that does not depend on the method is taken once.
        match: indices, by the first method, that `random-matched` is matched to; by default the first index.
        seeds: one control each.

    Raises UsageError for an unknown name, or where nothing is left.
    """
    spectral = [name for name in methods if name not in CONTROLS]
    names = [name.replace("-", "_") for name in indices]
    wanted = list(dict.fromkeys(name.replace("-", "_") for name in match)) if match else names[:1]
    for name, known in [(n, METHODS) for n in spectral] + [(n, INDICES) for n in (*names, *wanted)]:
        if name not in known:
            raise UsageError(f"no method or index {printable(name, 40)}", fix=f"choose from {', '.join(known)}")
    made = [SweepRanking(index, method) for method in spectral for index in names]
    unique = {ranking.label: ranking for ranking in reversed(made)}
    made = [ranking for ranking in made if unique[ranking.label] is ranking]
    if "random" in methods:
        made += [SweepRanking("random", seed=seed) for seed in seeds]
    if "random-matched" in methods:
        if not spectral or not names:
            raise UsageError("random-matched needs a ranking to match", fix="name a method and an index besides")
        made += [
            SweepRanking("random-matched", seed=seed, matches=(index, spectral[0]))
            for index in wanted
            for seed in seeds
        ]
    if not made:
        raise UsageError("nothing to rank by", fix="name at least one method and one index")
    return made


def usual_of(adapter: Adapter) -> str:
    """Return the index that ranks an adapter's modules unless another is asked for: SSI only within one rank."""
    return index_of_ranks(min(module.rank, module.m, module.n) for module in adapter.modules)


def swept(adapter: Adapter) -> tuple[str, ...]:
    """Return the indices that a sweep of an adapter ranks by unasked."""
    usual = usual_of(adapter)
    return tuple(usual if index.name == "ssi" else index.name for index in INDICES.values() if index.swept)


def tops(text: Sequence[str], candidates: int) -> list[int]:
    """Return how many modules to prune for each of `10`, `25%` and `0.25`, in rising order and each once.

    Raises UsageError for anything else, for nothing, and for more than there are.
    """
    if not text:
        raise UsageError(worded("{top} names no number of modules"), fix="write 10, 25% or 0.25")
    counts = set()
    for part in text:
        if re.fullmatch(r"\d{1,9}", part):
            wanted = float(part)
        elif re.fullmatch(r"\d{1,3}(\.\d+)?%", part):
            wanted = float(part[:-1]) / 100 * candidates
        elif re.fullmatch(r"[01]?\.\d+", part):
            wanted = float(part) * candidates
        else:
            raise UsageError(
                worded("{top} {part} is no number of modules", part=printable(part, 40)), fix="write 10, 25% or 0.25"
            )
        if wanted > candidates:
            raise UsageError(
                worded("{top} {part} is more than the {n} modules that can be pruned", part=part, n=candidates)
            )
        # As the rule `Fraction` rounds, so that a sweep prunes what `prune` would.
        counts.add(math.floor(wanted + 0.5))
    return sorted(counts)


def tops_by_default(text: Sequence[str], candidates: int) -> list[int]:
    """Return the same for numbers that nobody asked for: what is more than there are is left out."""
    return tops([part for part in text if not part.isdigit() or int(part) <= candidates], candidates)


def candidates(scan: Scan) -> int:
    """Return how many modules are not zero: no ranking chooses others."""
    return sum(not module.zero for module in scan.modules)


def correlations(ranked: Sequence[SweepRanking], scans: Mapping[str, Scan]) -> dict[str, float]:
    """Return Spearman's rank correlation of each pair of rankings over the modules, sharpest first in all of them."""
    values = {r.label: _sharpness(r, scans) for r in ranked if not r.control}
    pairs = {}
    for a, b in combinations(values, 2):
        both = [(x, y) for x, y in zip(values[a], values[b], strict=True) if x is not None and y is not None]
        value = spearman([x for x, _ in both], [y for _, y in both]) if len(both) > 1 else None
        if value is not None:
            pairs[f"{a} | {b}"] = value
    return pairs


def _sharpness(ranking: SweepRanking, scans: Mapping[str, Scan]) -> list[float | None]:
    def value(module: ModuleScan) -> float | None:
        index = module.indices.get(ranking.index)
        return None if index is None or module.zero else sharpness(index, ranking.index)

    return [value(module) for module in scans[ranking.method or ""].modules]
