"""Modules of one shape, each in the same adapters: their sums beside their parts alone, measured many at a time.

What Python and LAPACK take for a call, about 2 ms for a module of two adapters, is paid once for a stack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.model import Adapter, LoraModule
from s3lora.errors import NonFiniteError
from s3lora.measure.configuration import Configuration
from s3lora.measure.scan import FLAT, scan_module
from s3lora.spectrum.difference import inner_products
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import INDICES, Spectra
from s3lora.spectrum.methods import METHODS, Options
from s3lora.spectrum.subspaces import Bases, Overlap, directions, numerical_rank, overlaps
from s3lora.spectrum.tall import Float

__all__ = ["Alignment", "ModuleComposition", "ModuleUpdate", "SummedPart", "measured_sums", "stacks"]

#: Numbers in the factors of a stack, which are held several times in float64; and modules.
TOGETHER, MODULES = 1 << 20, 512
#: The parts of one module, in the order of the adapters.
SumParts = Sequence["SummedPart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleUpdate:
    """One update, weighted, or a sum of them.

    `rank` is the numerical rank, which is M here; `sigma` the M values of σ̃, descending; `indices` maps each index to
    its value, None where it is undefined.
    """

    rank: int
    sigma: tuple[float, ...]
    indices: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """How two adapters lie to each other in one module; `pair` are their places among the sources, from 0.

    `cosine` is ⟨wᵢΔWᵢ, wⱼΔWⱼ⟩ over the product of the norms, in [−1, 1]: above 0 they reinforce each other, below they
    cancel. `columns` and `rows` are the overlaps of the column spaces (outputs) and the row spaces (inputs).
    """

    pair: tuple[int, int]
    cosine: float
    columns: Overlap
    rows: Overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleComposition:
    """One module in the sum.

    `shape` is [m, n] of ΔW. `ranks` and `alone` have one value an adapter: r as its shapes say, None where it lacks the
    module, and its own weighted update, None where that is zero or missing. `together` is the sum, None where that is
    zero. `gain` is the energy of the sum less the greatest of those alone, in (−1, 1), None unless the sum and two or
    more of its parts are not zero; `sharper` whether it is 0.01 or more. `alignments` are of all pairs of parts that
    are not zero.
    """

    path: str
    layer: int | None
    projection: str
    expert: int | None
    shape: tuple[int, int]
    ranks: tuple[int | None, ...]
    together: ModuleUpdate | None
    alone: tuple[ModuleUpdate | None, ...]
    gain: float | None
    sharper: bool
    alignments: tuple[Alignment, ...]


@dataclass(frozen=True, slots=True)
class SummedPart:
    """The module of one adapter, which has place `i`, and the number that multiplies its B·A: weight · scaling."""

    i: int
    adapter: Adapter
    module: LoraModule
    factor: float


def stacks(parts: Mapping[str, SumParts]) -> Iterator[list[SumParts]]:
    """Yield the modules in stacks: all of one have one shape, and lie in the same adapters with the same ranks."""
    alike: dict[tuple[object, ...], list[SumParts]] = {}
    for of in parts.values():
        first = of[0].module
        alike.setdefault((first.m, first.n, *((part.i, part.module.rank) for part in of)), []).append(of)
    for modules in alike.values():
        numbers = sum(part.module.rank * (part.module.m + part.module.n) for part in modules[0])
        step = max(1, min(MODULES, TOGETHER // max(1, numbers)))
        yield from (modules[start : start + step] for start in range(0, len(modules), step))


def measured_sums(stack: Sequence[SumParts], count: int, method: str) -> list[ModuleComposition]:
    """Measure a stack of modules in the sum of `count` adapters; raise NonFiniteError for what is no number."""
    try:
        return _measured(stack, count, method)
    except FloatingPointError:
        if len(stack) == 1:
            raise _nonfinite(stack[0]) from None
    return [made for one in stack for made in measured_sums([one], count, method)]


@dataclass(frozen=True, slots=True)
class _StackedPart:
    """The parts that one adapter has in k modules: A (k, r, n), B (k, m, r), and what multiplies each B·A (k)."""

    i: int
    a: Float
    b: Float
    factors: Float

    @property
    def update(self) -> FactoredUpdate:
        """Return the weighted updates."""
        return FactoredUpdate([*self.a], [*self.b], self.factors.tolist())

    def of(self, which: NDArray[np.int64]) -> _StackedPart:
        """Return the parts in some of the modules."""
        if len(which) == len(self.a):
            return self
        return _StackedPart(self.i, self.a[which], self.b[which], self.factors[which])


def _measured(stack: Sequence[SumParts], count: int, method: str) -> list[ModuleComposition]:
    parts = [_stacked([of[j] for of in stack]) for j in range(len(stack[0]))]
    live = np.array([~part.update.is_zero for part in parts])  # (parts, k)
    made: dict[int, ModuleComposition] = {}
    for pattern in np.unique(live, axis=1).T:
        which = np.flatnonzero((live == pattern[:, None]).all(axis=0))
        some = [part.of(which) for part, on in zip(parts, pattern.tolist(), strict=True) if on]
        alone = {part.i: _updates(part.update, method) for part in some}
        together = _together(some, alone, len(which), method)
        alignments = _alignments(some, alone, len(which))
        for j, at in enumerate(which.tolist()):
            own = {i: update for i, updates in alone.items() if (update := updates[j]) is not None}
            made[at] = _composed(stack[at], count, own, together[j], alignments[j])
    return [made[at] for at in range(len(stack))]


def _stacked(parts: SumParts) -> _StackedPart:
    a, b = (np.stack(arrays) for arrays in ([p.module.A.array() for p in parts], [p.module.B.array() for p in parts]))
    factors = np.array([part.factor for part in parts], np.float64)
    with np.errstate(invalid="ignore"):  # a signalling NaN, which whoever looks at the numbers finds
        return _StackedPart(parts[0].i, a.astype(np.float64), b.astype(np.float64), factors)


def _composed(
    parts: SumParts,
    count: int,
    alone: Mapping[int, ModuleUpdate],
    together: ModuleUpdate | None,
    alignments: tuple[Alignment, ...],
) -> ModuleComposition:
    one = parts[0].module
    ranks = {part.i: part.module.rank for part in parts}
    gain = None if together is None or len(alone) < 2 else _energy(together) - max(map(_energy, alone.values()))
    return ModuleComposition(
        path=one.path,
        layer=one.layer,
        projection=one.projection,
        expert=one.expert,
        shape=(one.m, one.n),
        ranks=tuple(ranks.get(i) for i in range(count)),
        together=together,
        alone=tuple(alone.get(i) for i in range(count)),
        gain=gain,
        sharper=gain is not None and gain >= FLAT,
        alignments=alignments,
    )


def _updates(update: FactoredUpdate, method: str) -> list[ModuleUpdate | None]:
    """Return what is known of each update of a stack, None of one that is zero.

    M is the numerical rank: further values of σ̃ are rounding, and would count as directions in the normalised SSI.
    """
    ranks = np.asarray(numerical_rank(update))
    made: list[ModuleUpdate | None] = [None] * len(ranks)
    for rank in np.unique(ranks[ranks > 0]).tolist():
        which = np.flatnonzero(ranks == rank)
        some = update if len(which) == len(ranks) else update.some(which.tolist())
        sigma = METHODS[method].of(some, Options(rank))
        measured = Spectra(sigma, some)
        named = {name: index.of(measured) for name, index in INDICES.items() if not index.costly}
        values = {name: np.broadcast_to(found, len(which)).tolist() for name, found in named.items()}
        for j, at in enumerate(which.tolist()):
            known = {name: value[j] if math.isfinite(value[j]) else None for name, value in values.items()}
            made[at] = ModuleUpdate(rank=rank, sigma=tuple(sigma[j].tolist()), indices=known)
    return made


def _energy(update: ModuleUpdate) -> float:
    return update.indices["energy"] or 0.0


def _together(
    parts: Sequence[_StackedPart], alone: Mapping[int, list[ModuleUpdate | None]], count: int, method: str
) -> list[ModuleUpdate | None]:
    """Return what is known of Σ wᵢ·sᵢ·BᵢAᵢ, of rank Σr; of one part it is that part itself, to the last bit."""
    if len(parts) < 2:
        return alone[parts[0].i] if parts else [None] * count
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is found and told by whoever measures the sum
        a = np.concatenate([part.a for part in parts], axis=1)  # (k, Σr, n)
        b = np.concatenate([part.factors[:, None, None] * part.b for part in parts], axis=2)  # (k, m, Σr)
    return _updates(FactoredUpdate([*a], [*b], [1.0] * count), method)


def _alignments(
    parts: Sequence[_StackedPart], alone: Mapping[int, list[ModuleUpdate | None]], count: int
) -> list[tuple[Alignment, ...]]:
    """Return how each pair of parts lies to each other, in each of so many modules."""
    if len(parts) < 2:
        return [()] * count
    bases = {part.i: directions(part.a, part.b) for part in parts}
    ranks = {i: np.array([update.rank if update else 0 for update in updates]) for i, updates in alone.items()}
    norms = {i: [update.indices["frobenius"] if update else 0 for update in all] for i, all in alone.items()}
    found: list[list[Alignment]] = [[] for _ in range(count)]
    for first, second in combinations(parts, 2):
        i, j = pair = first.i, second.i
        cosines = inner_products((first.a, first.b), (second.a, second.b))
        for part in (first, second):  # each by itself: the product of the norms could underflow
            cosines = cosines * (part.factors / np.array([norm or math.inf for norm in norms[part.i]]))
        columns, rows = _angles(bases[i], bases[j], ranks[i], ranks[j])
        for at, cosine in enumerate(np.clip(cosines, -1.0, 1.0).tolist()):
            found[at].append(Alignment(pair=pair, cosine=cosine, columns=columns[at], rows=rows[at]))
    return [tuple(one) for one in found]


def _angles(
    first: Bases, second: Bases, ranks: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[dict[int, Overlap], dict[int, Overlap]]:
    """Return the overlaps of column and row spaces by the module's place; bases of one size are compared at once."""
    columns: dict[int, Overlap] = {}
    rows: dict[int, Overlap] = {}
    for r, s in np.unique(np.stack((ranks, others)), axis=1).T.tolist():
        which = np.flatnonzero((ranks == r) & (others == s))
        for made, one, two in ((columns, first.columns, second.columns), (rows, first.rows, second.rows)):
            made.update(zip(which.tolist(), overlaps(one[which, :, :r], two[which, :, :s]), strict=True))
    return columns, rows


def _nonfinite(parts: SumParts) -> NonFiniteError:
    """Return the error that names the tensor with NaN or infinity, or else the sum."""
    for part in parts:
        try:
            scan_module(part.module, Configuration("svd"), part.adapter.name)
        except NonFiniteError as error:
            error.adapter = None if part.adapter.path is None else str(part.adapter.path)
            return error
    one = parts[0].module
    return NonFiniteError(
        "the weighted sum exceeds float64", module=one.path, shape=(one.m, one.n), fix="give smaller weights"
    )
