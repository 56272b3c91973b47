"""Adapter → adapter of lower rank: of each module the nearest update of that rank, and what that loses."""

from __future__ import annotations

import os

import numpy as np
from threadpoolctl import threadpool_limits

from s3lora.adapter import peft_config
from s3lora.adapter.digest import source_of
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.open import open_adapter
from s3lora.adapter.tensor import Array
from s3lora.adapter.write import Written
from s3lora.arguments import checked
from s3lora.errors import NonFiniteError, UsageError
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import MAX_COST, afford, scan_cost
from s3lora.measure.scan import Progress, scan_module
from s3lora.rewrite.edits import refuse_dora
from s3lora.rewrite.factors import NewFactor, NewFactors, rounded
from s3lora.rewrite.provenance import write_recorded
from s3lora.rewrite.ranks import folded, refuse_form
from s3lora.rewrite.repaired import repaired
from s3lora.rewrite.resize_record import ResizedModule, ResizeProvenance, relative
from s3lora.spectrum.nearest import CoreSvd, core_svd, distance, rank_for
from s3lora.wording import worded

#: What leads to an adapter whose ranks can change: where a command does, and where none does.
FIX = "make it LoRA of PEFT's form first: s3lora convert PATH --to peft -o OUT"
_NO_FIX = "no command makes it LoRA: merge it, or train it again as LoRA"
_FUSED = (
    "experts that are fused by `target_parameters` keep their rank: give one that is no lower, or write them one each "
    "first: s3lora convert PATH --to peft --base FOLDER -o OUT"
)


@checked
def resize(
    adapter: Adapter | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rank: int | None = None,
    energy: float | None = None,
    loader: str = "peft",
    bake: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    max_cost: float = MAX_COST,
) -> tuple[ResizeProvenance, Written]:
    """Write an adapter whose modules have lower ranks to the folder `out`, whole or not at all; return its record.

    Each module gets the update of its new rank that is nearest to ΔW by the Frobenius norm (Eckart and Young), from the
    r × r core of its factors in float64, rounded once to the dtypes of the file. Modules of no higher rank stay as they
    are, bit for bit. Each module keeps its scaling. What is dropped is nowhere in `out`: only the original has it.

    Examples:
        >>> import s3lora
        >>> record, written = s3lora.resize("my-adapter", "smaller", rank=4)
        >>> record.done, record.modules[0].rank
        ('120 from rank 8 to 4', 4)

    Parameters:
        adapter: a path, or an adapter that was opened, which stays open.
        out: the folder to write; new or empty, unless `force`.
        rank: the highest rank that a module has then, 1 or more.
        energy: or the share of ‖ΔW‖_F² that each module keeps, in (0, 1]: it gets the least rank that holds it, 1 at
            least; 1 drops what is rounding.
        loader: the loader to write for: `peft`, `vllm`, `sglang` or `llamacpp`.
        bake: multiply every lora_B by its scaling, and write one uniform `lora_alpha` = `r`.
        force: replace an adapter folder, the input included.
        progress: called with (modules done, modules in all).
        max_cost: operations that it may take, as for `scan`.

    Raises:
        CostError: it would take more operations than `max_cost`.
        UsageError: not one of `rank` and `energy` is given, or it is out of its range.
        UnsupportedAdapterError: DoRA, an adapter whose base weights change at load, a form or a format in which another
            rank cannot be written, or one that the loader rejects.
        NonFiniteError: a module holds NaN or infinity, or its update exceeds float64.
        OutputError: `out` exists (without `force`), cannot be written, or does not verify.
        AdapterFileError, NothingToAuditError: as `open_adapter`.
    """
    check_wish(rank, energy)
    if not isinstance(adapter, Adapter):
        with open_adapter(adapter) as opened:
            return resize(
                opened, out, rank=rank, energy=energy, loader=loader, bake=bake, force=force, progress=progress,
                max_cost=max_cost,
            )  # fmt: skip
    peft_config.refuse_changed_base(adapter)
    refuse_dora(adapter.modules, "merge it, or train it again without use_dora")
    afford(scan_cost(adapter.modules, [Configuration("svd")]), max_cost, "resizing", adapter.name)
    factors, modules, error = _resized(adapter, rank, energy, progress)
    made = repaired(adapter, factors, loader=loader, bake=bake, others=True, fix=_fix(adapter))
    record = ResizeProvenance(
        source=source_of(adapter),
        rank=rank,
        energy=energy,
        loader=loader,
        bake=bake,
        modules=modules,
        error=error,
        warnings=tuple(dict.fromkeys((*adapter.warnings, *made.warnings, *_notes(modules, rank)))),
        written=(),
    )
    return write_recorded(record, made.rewrite, out, force=force)


def _fix(adapter: Adapter) -> str:
    """Return what to do where ranks cannot change as the adapter is."""
    if any(module.form in ("LoHa", "LoKr", "VeRA") for module in adapter.modules):
        return _NO_FIX
    return _FUSED if (adapter.config or {}).get("target_parameters") else FIX


def check_wish(rank: int | None, energy: float | None) -> None:
    """Raise UsageError unless one of a rank and a share of the energy is given, each within its range."""
    if (rank is None) == (energy is None):
        raise UsageError("one of rank and energy says how small", fix=worded("give {rank} or {energy}, and not both"))
    if rank is not None and rank < 1:
        raise UsageError(f"rank {rank} is none", fix="give 1 or more")
    if energy is not None and not 0 < energy <= 1:
        raise UsageError(f"an energy of {energy:g} is no share", fix="give more than 0% and at most 100%")


def _resized(
    adapter: Adapter, rank: int | None, energy: float | None, progress: Progress | None
) -> tuple[NewFactors, tuple[ResizedModule, ...], float | None]:
    """Return the new factors, what became of each module, and the error of all together."""
    made: dict[str, NewFactor] = {}
    told: list[ResizedModule] = []
    lost = total = 0.0
    with threadpool_limits(limits=1, user_api="blas"):
        for module in adapter.modules:
            new, whole, missed = _module(adapter, module, rank, energy)
            if new is not None:
                made[module.path] = new
            scale = module.scaling.value**2
            lost, total = lost + scale * missed, total + scale * whole
            after = module.rank if new is None else new.rank
            told.append(ResizedModule(module.path, module.rank, after, relative(missed, whole)))
            if progress:
                progress(len(told), len(adapter.modules))
    return NewFactors(made), tuple(told), relative(lost, total)


def _module(
    adapter: Adapter, module: LoraModule, rank: int | None, energy: float | None
) -> tuple[NewFactor | None, float, float]:
    """Return the new factors, None where the module stays; ‖BA‖_F² and how much of it is lost."""
    a, b = module.A.array(), module.B.array()
    svd = decomposed(a, b)
    if svd is None:
        scan_module(module, Configuration("svd"), adapter.name)  # it tells which tensor is to blame
        raise NonFiniteError("its update exceeds float64", module=module.path, shape=(module.m, module.n))
    whole = float(np.square(svd.sigma).sum())
    wanted = new_rank(svd, rank, energy)
    if wanted >= module.rank:
        return None, whole, 0.0
    refuse_form(module, _fix(adapter))
    new_a, new_b = svd.balanced(svd.sigma, wanted)
    fold = folded(adapter, module, wanted)
    new = rounded(module, new_a, new_b * fold)
    return new, whole, distance((a, b), (new.A, new.B.astype(np.float64) / fold)) ** 2


def decomposed(a: Array, b: Array) -> CoreSvd | None:
    """Return the singular value decomposition of B·A, None if anything in it is no number that float64 has."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            svd = core_svd(a, b)
            return svd if np.isfinite(np.square(svd.sigma).sum()) else None
    except np.linalg.LinAlgError:
        return None


def new_rank(svd: CoreSvd, rank: int | None, energy: float | None) -> int:
    """Return the rank that an update gets: the one asked for, or the least that holds a share of its energy."""
    if energy is not None:
        return rank_for(svd.sigma, energy)
    return len(svd.sigma) if rank is None else rank


def _notes(modules: tuple[ResizedModule, ...], rank: int | None) -> list[str]:
    notes = []
    lower = sum(module.rank < rank for module in modules) if rank is not None else 0
    if lower:
        notes.append(f"{lower} of {len(modules)} modules have a lower rank than {rank} and stay as they are")
    if any(module.rank != module.before for module in modules):
        notes.append("what was dropped is in the original alone: keep it, as `restore` cannot bring it back")
    return notes


__all__ = ["resize"]
