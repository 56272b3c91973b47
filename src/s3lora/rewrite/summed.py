"""Adapters of one base → one adapter of PEFT: Σ wᵢ·sᵢ·BᵢAᵢ as it is, of rank Σr, or resized."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from s3lora.adapter import peft_config
from s3lora.adapter.digest import source_of
from s3lora.adapter.folder import check_target
from s3lora.adapter.model import Adapter, Factor, LoraModule, Scaling, natural_key, path_parts
from s3lora.adapter.new_tensors import NewTensor, write_new_tensors
from s3lora.adapter.open import open_adapter, opening
from s3lora.adapter.tensor import Array, ArrayTensor
from s3lora.adapter.tensors import numpy_dtype
from s3lora.adapter.weights import CONFIG, PROVENANCE
from s3lora.arguments import checked
from s3lora.errors import NonFiniteError, OutputError, S3LoRAError, UnsupportedAdapterError, UsageError, printable
from s3lora.files import replacing, write_json
from s3lora.measure.composition import parts_of, weights_of
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import MAX_COST, afford, compose_cost
from s3lora.measure.notes import other_bases
from s3lora.measure.summing import SummedPart
from s3lora.rewrite.convert.experts import are_fused
from s3lora.rewrite.edits import refuse_dora
from s3lora.rewrite.ranks import refuse_unequal_ranks
from s3lora.rewrite.resize import check_wish, decomposed, new_rank
from s3lora.rewrite.resize_record import relative
from s3lora.rewrite.sum_record import SummedModule, SumProvenance
from s3lora.spectrum.nearest import distance
from s3lora.wording import worded

WEIGHTS = "adapter_model.safetensors"
#: Of ‖B‖·‖A‖ in float64: a sum below it is none.
ROUNDING = 1e-14
PREFIX = "base_model.model."
#: Formats whose modules have the paths of the base model.
NAMED = ("peft", "mlx")
#: Fields of a configuration by which PEFT finds modules otherwise than by `target_modules` alone.
_NARROWING = ("exclude_modules", "layers_to_transform", "layers_pattern", "layer_replication")
#: Sizes of a weight that is written, and up to which power of two a weighted scaling goes into lora_B.
LEAST, MOST, NEAR = 1e-6, 1e6, 6
#: Fields that stay where all adapters agree.
_SHARED = ("base_model_name_or_path", "task_type", "fan_in_fan_out", "layer_replication")


@checked
def write_sum(
    adapters: Sequence[Adapter | str | os.PathLike[str]],
    out: str | os.PathLike[str],
    weights: Sequence[float] | None = None,
    *,
    rank: int | None = None,
    energy: float | None = None,
    force: bool = False,
    max_cost: float = MAX_COST,
) -> SumProvenance:
    """Write the sum of adapters of one base model to the folder `out`, whole or not at all; return its record.

    Each module gets the factors of all adapters side by side, of rank Σr, in the widest of their dtypes. Where all
    weighted scalings are one number, it becomes that of the sum, and no factor changes; else each is multiplied into
    its lora_B, which rounds that once, and the scaling is 1, or a power of two where all are small or large. With
    `rank` or `energy` each module then gets the nearest update of lower rank, as `resize` makes it.

    Examples:
        >>> import s3lora
        >>> record = s3lora.write_sum(["my-adapter", "pruned"], "both", [1.0, 0.5])
        >>> record.done
        'the sum of 2 adapters: 120 modules of ranks 8 to 16'

    Parameters:
        adapters: two or more, as paths or opened; those that were opened stay open.
        out: the folder to write; new or empty, unless `force`.
        weights: as for `compose`; each 0, or of a size in [1e-6, 1e6].
        rank: the highest rank that a module has then, 1 or more.
        energy: or the share of ‖ΔW‖_F² that each module keeps, in (0, 1].
        force: replace an adapter folder.
        max_cost: operations that it may take, as for `scan`.

    Raises:
        CostError: it would take more operations than `max_cost`.
        UsageError: as `compose`, a weight of another size, or both `rank` and `energy`.
        UnsupportedAdapterError: an adapter is more than a sum can say: DoRA, base weights that change at load, trained
            biases, heads, fused experts, embeddings, convolutions, or a format whose names are not those of the base.
        NonFiniteError: a module holds NaN or infinity, or the sum exceeds float64.
        OutputError: `out` exists (without `force`), cannot be written, does not verify, or its dtype cannot hold it.
        AdapterFileError, NothingToAuditError: as `open_adapter`.
    """
    chosen = weights_of(len(adapters), weights)
    if beyond := [weight for weight in chosen if weight and not LEAST <= abs(weight) <= MOST]:
        raise UsageError(f"a weight of {beyond[0]:g} is not written", fix=f"give 0, or {LEAST:g} to {MOST:g} in size")
    if rank is not None or energy is not None:
        check_wish(rank, energy)
    with ExitStack() as stack, threadpool_limits(limits=1, user_api="blas"):
        opened = [stack.enter_context(opening(one)) for one in adapters]
        for adapter in opened:
            _refuse(adapter)
            check_target(Path(out), adapter.path, force=force)
        _refuse_other_layers(opened)
        parts = {path: [p for p in of if p.factor] for path, of in parts_of(opened, chosen).items()}
        parts = {path: parts[path] for path in sorted(parts, key=natural_key) if parts[path]}
        if not parts:
            raise UsageError("with all weights 0 there is no sum", fix="give another weight")
        shapes = {path: [(p.module.m, p.module.n, p.module.rank) for p in of] for path, of in parts.items()}
        afford(compose_cost(shapes, Configuration("svd")), max_cost, f"adding up {len(opened)} adapters")
        scaling = _scaling({part.factor for of in parts.values() for part in of})
        modules, told, error = _added(parts, scaling, len(opened), rank, energy)
        refuse_unequal_ranks(modules, Path(out).name)
        sources = tuple(source_of(adapter) for adapter in opened)
        notes = [f"{one.name}: {note}" for one in opened for note in one.warnings]
        notes += other_bases(sources, "a sum of updates of different models means little")
        record = SumProvenance(
            sources=sources,
            weights=chosen,
            rank=rank,
            energy=energy,
            modules=told,
            error=error,
            warnings=tuple(dict.fromkeys(notes)),
            written=(),
        )
        used = [adapter for adapter, weight in zip(opened, chosen, strict=True) if weight]
        return _write(opened, _config(used, modules), modules, record, Path(out), force=force)


def _scaling(factors: set[float]) -> float:
    """Return the scaling of the sum, whose lora_B has the rest of each weighted scaling.

    It is their own where they are one, else 1; a power of two near the largest where that is far from 1, so that
    numbers of half precision neither vanish nor overflow.
    """
    largest = max(map(abs, factors))
    if factors == {largest}:
        return largest
    exponent = math.frexp(largest)[1]
    return 1.0 if abs(exponent) <= NEAR else 2.0**exponent


def _refuse_other_layers(adapters: Sequence[Adapter]) -> None:
    """Raise UnsupportedAdapterError where they repeat layers of the base otherwise: one path is two layers then."""
    first, *others = [((one.config or {}).get("layer_replication") or None, one.name) for one in adapters]
    for order, name in others:
        if order != first[0]:
            raise UnsupportedAdapterError(f"repeats other layers of its base than {first[1]}", file=name)


def _refuse(adapter: Adapter) -> None:
    """Raise UnsupportedAdapterError if an adapter does more than add B·A to weights of linear layers."""
    peft_config.refuse_changed_base(adapter)
    refuse_dora(adapter.modules, "merge it, or train it again without use_dora")
    config = adapter.config or {}
    if adapter.format not in NAMED:
        what = f"is in the format {adapter.format}, whose names are not those of the base model"
        raise UnsupportedAdapterError(what, file=adapter.name, fix="s3lora convert PATH --to peft -o OUT first")
    if config.get("alora_invocation_tokens"):
        what = "is an aLoRA, which acts on some tokens only, and a sum acts on all"
        raise UnsupportedAdapterError(what, file=adapter.name)
    if adapter.other_tensors:
        what = f"holds {len(adapter.other_tensors)} tensors that are no LoRA, and do not add up"
        fix: str = worded("leave them out first: {prune_all}")
        raise UnsupportedAdapterError(what, file=adapter.name, module=adapter.other_tensors[0], fix=fix)
    base = "--base FOLDER " if are_fused(adapter) else ""
    for module in adapter.modules:
        if (special := _special(module, fused=bool(config.get("target_parameters")))) is not None:
            what, fix = special
            fix = fix or f"write them one each first: s3lora convert PATH --to peft {base}-o OUT"
            where = (module.m, module.n)
            raise UnsupportedAdapterError(what, file=adapter.name, module=module.path, shape=where, fix=fix)


def _special(module: LoraModule, *, fused: bool) -> tuple[str, str] | None:
    """Return why a module is more than a linear layer's update and what to do, None for one that is not.

    What to do with experts is not the module's to say.
    """
    if any(name.endswith("bias") for name in module.extras):
        return (
            "has a trained bias, which is no product of factors",
            "leave biases out first: s3lora prune PATH --drop bias --top 0 -o OUT",
        )
    if module.group is not None or fused:
        what = (
            "is one of several modules whose factors are stored together" if module.group else "is beside fused experts"
        )
        return what, ""
    if module.kind == "linear":
        return None
    name = printable(module.path.rpartition(".")[2], 60)
    what = "is an embedding" if module.kind == "embedding" else "is a convolution"
    fix = f"leave it out first: s3lora prune PATH --only '{name}$' --fraction 1 --force-flat -o OUT"
    return f"{what}, and only updates of linear layers are written as a sum", fix


def _added(
    parts: Mapping[str, Sequence[SummedPart]], scaling: float, count: int, rank: int | None, energy: float | None
) -> tuple[list[LoraModule], tuple[SummedModule, ...], float | None]:
    """Return the modules of the sum, what is told of each, and the error of all together."""
    modules, told = [], []
    lost = total = 0.0
    for path, of in parts.items():
        exact_a = np.vstack([part.module.A.array().astype(np.float64) for part in of])  # (Σr, n)
        with np.errstate(over="ignore", invalid="ignore"):
            columns = [(part.module.B.array().astype(np.float64), part.factor) for part in of]
            exact_b = np.hstack([b * factor for b, factor in columns])  # (m, Σr)
            a, b = exact_a, np.hstack([b * (factor / scaling) for b, factor in columns])
        svd = decomposed(exact_a, exact_b)
        if svd is None:
            what = "holds NaN or infinity, or its weighted sum exceeds float64"
            raise NonFiniteError(what, module=path, shape=(len(exact_b), exact_a.shape[1]))
        if rank is not None or energy is not None:
            wanted = new_rank(svd, rank, energy)
            if wanted < len(exact_a):
                a, b = svd.balanced(svd.sigma / scaling, wanted)
        dtype = _widest([part.module for part in of])
        new_a, new_b = (_cast(path, one, dtype) for one in (a, b))
        whole, missed = float(np.square(svd.sigma).sum()), 0.0
        if math.sqrt(whole) <= ROUNDING * float(np.linalg.norm(exact_a) * np.linalg.norm(exact_b)):
            whole = 0.0  # all cancels but for rounding, and there is nothing to compare with
        else:
            missed = distance((exact_a, exact_b), (new_a, scaling * new_b.astype(np.float64))) ** 2
        lost, total = lost + missed, total + whole
        ranks = {part.i: part.module.rank for part in of}
        each = tuple(ranks.get(i) for i in range(count))
        told.append(SummedModule(path, each, len(new_a), relative(missed, whole)))
        new = [Factor(ArrayTensor(side, one), one.shape) for side, one in (("A", new_a), ("B", new_b))]
        layer, projection, expert = path_parts(path)
        summed = LoraModule(path, new[0], new[1], Scaling(scaling, "memory"))
        modules.append(dataclasses.replace(summed, layer=layer, projection=projection, expert=expert))
    return modules, tuple(told), relative(lost, total)


def _widest(modules: Sequence[LoraModule]) -> str:
    """Return a dtype that holds the numbers of all modules, of two bytes at least."""
    names = {part.tensor.dtype for module in modules for part in module.parts}
    if len(names) == 1 and (name := next(iter(names))) in ("float64", "float32", "float16", "bfloat16"):
        return name
    return "float64" if "float64" in names else "float32"


def _cast(path: str, values: Array, dtype: str) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(numpy_dtype(dtype))
    if np.isfinite(result.astype(np.float64)).all() and result.any() >= values.any():
        return result
    fix = "save the adapters in float32 or bfloat16 first"
    raise OutputError(f"the sum does not fit into {dtype}", module=path, shape=values.shape, fix=fix)


def _write(
    adapters: Sequence[Adapter],
    config: Mapping[str, Any],
    modules: Sequence[LoraModule],
    record: SumProvenance,
    out: Path,
    *,
    force: bool,
) -> SumProvenance:
    tensors = [
        NewTensor(f"{PREFIX}{module.path}.lora_{side}.weight", factor.dtype, factor.shape, factor.array)
        for module in modules
        for side, factor in (("A", module.A), ("B", module.B))
    ]
    with replacing(out, force=force) as partial:
        digest = write_new_tensors(partial / WEIGHTS, tensors, {"format": "pt", **record.story})
        write_json(partial / CONFIG, config)
        record = dataclasses.replace(record, written=(digest,))
        write_json(partial / PROVENANCE, record)
        _verify(partial, modules)
        for adapter in adapters:
            adapter.check_unchanged()
    return record


def _config(adapters: Sequence[Adapter], modules: Sequence[LoraModule]) -> dict[str, Any]:
    configs = [adapter.config or {} for adapter in adapters]
    known = [config for adapter, config in zip(adapters, configs, strict=True) if adapter.format == "peft"]
    shared = {
        name: known[0][name]
        for name in _SHARED
        if known and name in known[0] and all(config.get(name) == known[0][name] for config in known)
    }
    fields = {"peft_type": "LORA", "base_model_name_or_path": None, "inference_mode": True, "bias": "none", **shared}
    fields["target_modules"] = _targets(adapters, configs, modules)
    return peft_config.with_ranks(fields, modules)


def _targets(
    adapters: Sequence[Adapter], configs: Sequence[Mapping[str, Any]], modules: Sequence[LoraModule]
) -> list[str]:
    """Return `target_modules`: what the adapters name where that is a list and all, else the path of every module."""
    plain = all(
        adapter.format == "peft"
        and isinstance(config.get("target_modules"), list)
        and not any(config.get(name) for name in _NARROWING)
        for adapter, config in zip(adapters, configs, strict=True)
    )
    names = dict.fromkeys(str(name) for config in configs for name in config.get("target_modules") or () if plain)
    if all(any(m.path == name or m.path.endswith(f".{name}") for name in names) for m in modules):
        return [*names]
    return [module.path for module in modules]


def _verify(folder: Path, modules: Sequence[LoraModule]) -> None:
    """Open what was written; raise OutputError unless it holds just these modules, bit for bit."""
    try:
        with open_adapter(folder) as result:
            there = {module.path: module for module in result.modules}
            if there.keys() != {module.path for module in modules} or result.other_tensors:
                raise OutputError("did not verify: it holds other modules than it should")
            for module in modules:
                found = there[module.path]
                same = np.isclose(found.scaling.value, module.scaling.value, rtol=1e-12, atol=0)
                pairs = ((found.A, module.A), (found.B, module.B))
                if not same or any(one.array().tobytes() != two.array().tobytes() for one, two in pairs):
                    raise OutputError("did not verify: it is not what was made", module=module.path)
    except OutputError:
        raise
    except S3LoRAError as error:
        raise OutputError(f"did not verify: {error.problem}", module=error.module, file=folder.name) from None


__all__ = ["write_sum"]
