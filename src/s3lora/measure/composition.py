"""Several adapters added up: the spectrum of Σ wᵢ·sᵢ·BᵢAᵢ module by module, against that of each adapter alone.

The sum is itself a product of two factors, [w₁s₁B₁ …]·[A₁; …] of rank Σr, so that everything is exact and no ΔW is
formed. It is what the model sees where all the adapters are active at once, and what merging by concatenation gives;
ways of merging that trim, resolve signs or add up the factors instead of the products give something else.

Sharper together
----------------
A sum of two updates of rank r has up to 2r directions, so the numbers of the sum and of its parts need a measure that
does not depend on how many there are. It is the `energy`, σ_1² / Σσ², the share of ‖ΔW‖_F² in the first direction:

- it is a function of ΔW alone, in [1/r, 1], and adding next to nothing changes it by next to nothing. The normalised
  SSI does not have this: σ = (1, 0.1 × 7) has 0.53, and with eight more directions of next to no size 0.56;
- the SSI has it too, but its denominator adds up σ and not σ²: many small directions that come with a second adapter
  lower it, and would hide a first direction that grew;
- magnitude and weighted SSI grow when an adapter is only added to itself. By the energy, A + A is as sharp as A;
- updates whose column and row spaces are orthogonal are never sharper together, since the singular values of their
  sum are those of both. Sharper together therefore means that directions met.

It must exceed the greatest of the parts by `scan.FLAT` = 0.01, below which no scale-free index tells two modules apart:
far above rounding. An update of rank 1 has energy 1, and nothing is sharper. What cancels leaves a rest that may be
sharp and small: look at the norm as well. An adapter that is sharp and small by itself sets the mark for all others,
and of three or more only the sum of all is measured: leave one out to see the rest without it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from threadpoolctl import threadpool_limits

from s3lora.adapter.digest import Source, source_of
from s3lora.adapter.model import Adapter, LoraModule, natural_key
from s3lora.adapter.open import open_adapter
from s3lora.arguments import checked
from s3lora.errors import NonFiniteError, UnsupportedAdapterError, UsageError, printable
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import MAX_COST, afford, compose_cost
from s3lora.measure.modules import ByModule
from s3lora.measure.notes import other_bases, shared_notes
from s3lora.measure.scan import FLAT, SCHEMA_VERSION, Progress, Tool, scan_module
from s3lora.spectrum.difference import inner_product
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import INDICES, Spectra
from s3lora.spectrum.methods import METHODS, Options
from s3lora.spectrum.subspaces import Bases, Overlap, bases, numerical_rank, overlap

#: Methods that can measure a sum.
SUMMED = tuple(name for name, method in METHODS.items() if method.scales)


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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Composition(ByModule[ModuleComposition]):
    """Two or more adapters added up: `sources` and `weights` in the order given, `modules` in that of the model."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    sources: tuple[Source, ...]
    weights: tuple[float, ...]
    modules: tuple[ModuleComposition, ...]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Return how much was added up."""
        return f"<Composition of {len(self.sources)} adapters: {len(self)} modules>"


@dataclass(frozen=True, slots=True)
class SummedPart:
    """The module of one adapter, which has place `i`, and the number that multiplies its B·A: weight · scaling."""

    i: int
    adapter: Adapter
    module: LoraModule
    factor: float

    def update(self) -> FactoredUpdate:
        """Return its weighted update."""
        return FactoredUpdate(self.module.A.array(), self.module.B.array(), self.factor)


@checked
def compose(
    adapters: Sequence[Adapter | str | os.PathLike[str]],
    weights: Sequence[float] | None = None,
    method: str = "mas-svd",
    *,
    progress: Progress | None = None,
    max_cost: float = MAX_COST,
) -> Composition:
    """Measure the sum of adapters of one base model, each module beside its parts alone.

    Examples:
        >>> import s3lora
        >>> difference = s3lora.compose(["my-adapter", "pruned"], weights=[1.0, -1.0])
        >>> sum(module.together is None for module in difference)
        110

    Parameters:
        adapters: two or more, as paths or opened; those that were opened stay open. One may be there twice.
        weights: one finite number an adapter, which may be negative or zero; None stands for 1 each. They multiply
            the scaling that an adapter has anyway.
        method: `mas-svd`, `svd` or `spsvd`.
        progress: called with (modules done, modules in all).
        max_cost: operations that all of it may take, as for `scan`.

    Raises:
        CostError: it would take more operations than `max_cost`; nothing was read but headers.
        UsageError: fewer than two adapters, weights that do not fit, or a method that cannot measure a sum.
        UnsupportedAdapterError: adapters have one module in different shapes.
        NonFiniteError: a module holds NaN or infinity, or its sum exceeds float64.
        AdapterFileError, NothingToAuditError: as `open_adapter`.
    """
    chosen = weights_of(len(adapters), weights)
    if method not in SUMMED:
        raise UsageError(f"no method {method!r} for a sum", fix=f"choose one of {', '.join(SUMMED)}")
    with ExitStack() as stack, threadpool_limits(limits=1, user_api="blas"):
        opened = [one if isinstance(one, Adapter) else stack.enter_context(open_adapter(one)) for one in adapters]
        parts = parts_of(opened, chosen)
        shapes = {path: [(part.module.m, part.module.n, part.module.rank) for part in of] for path, of in parts.items()}
        estimate = compose_cost(shapes, Configuration(method))
        afford(estimate, max_cost, f"adding up {len(opened)} adapters by {method}")
        modules = []
        for path in sorted(parts, key=natural_key):
            modules.append(_module(parts[path], len(opened), method))
            if progress:
                progress(len(modules), len(parts))
        sources = tuple(source_of(one) for one in opened)
        return Composition(
            configuration=Configuration(method),
            sources=sources,
            weights=chosen,
            modules=tuple(modules),
            warnings=tuple(_warnings(opened, chosen, sources, modules)),
        )


def weights_of(count: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """Return one weight an adapter; raise UsageError for weights that cannot be meant, or fewer than two adapters."""
    if count < 2:
        raise UsageError("one adapter is no composition", fix="give two or more")
    chosen = (1.0,) * count if weights is None else tuple(float(weight) for weight in weights)
    if len(chosen) != count:
        raise UsageError(f"{len(chosen)} weights for {count} adapters", fix="give one for each")
    if not all(math.isfinite(weight) for weight in chosen):
        raise UsageError("a weight must be a finite number")
    return chosen


def parts_of(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, list[SummedPart]]:
    """Return the parts of every module by its path; raise UnsupportedAdapterError where their shapes differ."""
    found: dict[str, list[SummedPart]] = {}
    for i, (adapter, weight) in enumerate(zip(adapters, weights, strict=True)):
        for module in adapter.modules:
            parts = found.setdefault(module.path, [])
            parts.append(SummedPart(i, adapter, module, weight * module.scaling.value))
            first = parts[0]
            if (module.m, module.n) != (first.module.m, first.module.n):
                raise UnsupportedAdapterError(
                    f"does not add up with {first.module.m} × {first.module.n} of {printable(first.adapter.name, 60)}",
                    file=adapter.name,
                    module=module.path,
                    shape=(module.m, module.n),
                    fix="give adapters of one base model",
                )
    return found


def _module(parts: Sequence[SummedPart], count: int, method: str) -> ModuleComposition:
    """Measure one module of the sum of `count` adapters."""
    try:
        live = [(part, update) for part in parts if not (update := part.update()).is_zero]
        alone = {part.i: _measure(update, method) for part, update in live}
        summed = _sum(live)
        together = None if summed is None or summed.is_zero else _measure(summed, method)
        alignments = _alignments(live, alone)
    except FloatingPointError:
        raise _nonfinite(parts) from None
    one = parts[0].module
    ranks = {part.i: part.module.rank for part in parts}
    gain = None if together is None or len(live) < 2 else _energy(together) - max(map(_energy, alone.values()))
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


def _measure(update: FactoredUpdate, method: str) -> ModuleUpdate:
    """Return what is known of an update that is not zero.

    M is the numerical rank: further values of σ̃ are rounding, and would count as directions in the normalised SSI.
    """
    rank = numerical_rank(update)
    sigma = METHODS[method].of(update, Options(rank))
    measured = Spectra(sigma, update)
    values = {name: float(index.of(measured)) for name, index in INDICES.items() if not index.costly}
    return ModuleUpdate(
        rank=rank,
        sigma=tuple(float(value) for value in sigma),
        indices={name: value if math.isfinite(value) else None for name, value in values.items()},
    )


def _energy(update: ModuleUpdate) -> float:
    return update.indices["energy"] or 0.0


def _sum(live: Sequence[tuple[SummedPart, FactoredUpdate]]) -> FactoredUpdate | None:
    """Return Σ wᵢ·sᵢ·BᵢAᵢ as one update of rank Σr; of one part it is that part itself, to the last bit."""
    if len(live) < 2:
        return live[0][1] if live else None
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is found and told by whoever measures the sum
        return FactoredUpdate(
            np.vstack([update.A.astype(np.float64) for _, update in live]),
            np.hstack([part.factor * update.B.astype(np.float64) for part, update in live]),
        )


def _alignments(
    live: Sequence[tuple[SummedPart, FactoredUpdate]], alone: dict[int, ModuleUpdate]
) -> tuple[Alignment, ...]:
    if len(live) < 2:
        return ()
    spaces = {part.i: bases(update) for part, update in live}
    return tuple(
        Alignment(
            pair=(a.i, b.i), cosine=_cosine((a, first), (b, second), alone), **_overlaps(spaces[a.i], spaces[b.i])
        )
        for (a, first), (b, second) in combinations(live, 2)
    )


def _overlaps(first: Bases, second: Bases) -> dict[str, Overlap]:
    return {"columns": overlap(first.columns, second.columns), "rows": overlap(first.rows, second.rows)}


def _cosine(
    first: tuple[SummedPart, FactoredUpdate], second: tuple[SummedPart, FactoredUpdate], alone: dict[int, ModuleUpdate]
) -> float:
    inner = inner_product((first[1].A, first[1].B), (second[1].A, second[1].B))
    for part, _ in (first, second):  # each by itself: the product of the norms could underflow
        inner *= part.factor / (alone[part.i].indices["frobenius"] or math.inf)
    return max(-1.0, min(1.0, inner))


def _nonfinite(parts: Sequence[SummedPart]) -> NonFiniteError:
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


def _warnings(
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    sources: Sequence[Source],
    modules: Sequence[ModuleComposition],
) -> list[str]:
    told = shared_notes(
        [adapter.name for adapter in adapters],
        [
            (*adapter.warnings, *_own(adapter, weight, [module.alone[i] for module in modules]))
            for i, (adapter, weight) in enumerate(zip(adapters, weights, strict=True))
        ],
    )
    total = len(modules)
    lone = sum(sum(rank is not None for rank in module.ranks) < 2 for module in modules)
    cancelled = sum(module.together is None and any(module.alone) for module in modules)
    if lone:
        told.append(f"{lone} of {total} modules are in one adapter only: nothing is added there")
    if cancelled:
        told.append(
            f"{cancelled} of {total} modules cancel: their sum is a zero update but for rounding, and has no index"
        )
    return [*told, *other_bases(sources, "a sum of updates of different models means little")]


def _own(adapter: Adapter, weight: float, updates: Sequence[ModuleUpdate | None]) -> list[str]:
    """Return what of one adapter a reader of the sum must know."""
    total = len(adapter.modules)
    if weight == 0:
        return ["the weight is 0, so it adds nothing"]
    told = []
    zeros = total - sum(update is not None for update in updates)
    if zeros:
        told.append(f"{zeros} of {total} modules are zero updates (B = 0: never trained, or pruned) and add nothing")
    if any(module.dora for module in adapter.modules):
        told.append("DoRA rescales base weight and update by a magnitude vector, which no sum of updates describes")
    if any(module.scaling.origin in ("unknown", "ambiguous") for module in adapter.modules):
        told.append("its scaling is not known for sure, and so neither is its share in the sum")
    return told
