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

from threadpoolctl import threadpool_limits

from s3lora.adapter.digest import Source, source_of
from s3lora.adapter.model import Adapter, natural_key
from s3lora.adapter.open import opening
from s3lora.arguments import checked
from s3lora.errors import UnsupportedAdapterError, UsageError, printable
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import MAX_COST, afford, compose_cost
from s3lora.measure.modules import ByModule
from s3lora.measure.notes import other_bases, shared_notes
from s3lora.measure.scan import SCHEMA_VERSION, Progress, Tool
from s3lora.measure.summing import ModuleComposition, ModuleUpdate, SummedPart, measured_sums, stacks
from s3lora.spectrum.methods import METHODS

#: Methods that can measure a sum.
SUMMED = tuple(name for name, method in METHODS.items() if method.scales)


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
        opened = [stack.enter_context(opening(one)) for one in adapters]
        parts = parts_of(opened, chosen)
        shapes = {path: [(part.module.m, part.module.n, part.module.rank) for part in of] for path, of in parts.items()}
        estimate = compose_cost(shapes, Configuration(method))
        afford(estimate, max_cost, f"adding up {len(opened)} adapters by {method}")
        made: dict[str, ModuleComposition] = {}
        for alike in stacks(parts):
            for module in measured_sums(alike, len(opened), method):
                made[module.path] = module
                if progress:
                    progress(len(made), len(parts))
        modules = [made[path] for path in sorted(made, key=natural_key)]
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
