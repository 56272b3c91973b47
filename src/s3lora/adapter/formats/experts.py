"""Fused mixture-of-experts LoRA: one tensor pair holds the factors of all experts.

PEFT's `target_parameters` stores, for E experts, lora_A as (r·E, n), expert by expert, and lora_B as (m, r·E) with
the expert running fastest (`peft.tuners.lora.layer.ParamWrapper.get_delta_weight`). Other writers store (E, r, n)
and (E, m, r), and Tinker (1, r, n) or (1, m, r) where all experts share that factor. Each expert becomes a module of
its own, with the same path whoever wrote it; all modules of one container share a `group`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from s3lora.adapter.factors import Factor
from s3lora.adapter.formats.base import check_pair, require_floating
from s3lora.adapter.formats.parts import Parts, Scalings
from s3lora.adapter.formats.patterns import layer_of
from s3lora.adapter.model import LoraModule, Scaling, path_parts
from s3lora.adapter.tensor import Array, Tensor
from s3lora.errors import AdapterFileError, UnsupportedAdapterError

BASE = ".base_layer"
#: Most parameters of one module that are targeted at once; models have three or fewer.
MAX_NESTING = 8
#: Most experts of a layer; models have some hundreds.
MAX_EXPERTS = 4096
#: Most entries of `target_parameters`; configurations have two or three.
MAX_TARGETS = 1000


def fused(
    part: Parts, parts: Mapping[str, Parts], config: Mapping[str, Any], scaling: Scalings, label: str, nested: bool
) -> list[LoraModule] | None:
    """Return one module for each expert if `part` holds several, else None.

    `nested` tells whether any of the `parts` lies under `BASE`: looking for them costs where modules are many.
    """
    assert part.A is not None
    assert part.B is not None
    container = _container(part.path)
    targets = _parameters(container, config)
    name = _which(part, parts, targets, nested)
    configured = f"{container}.{name}" if name else container
    rank = scaling.rank(configured)
    factors = _factors(part.A, part.B, container, rank, bool(targets), label)
    if factors is None:
        return None
    modules = []
    for expert, (a, b) in enumerate(factors):
        path = f"{container}.{expert}.{name}" if name else _within(container, expert)
        check_pair(path, a, b, label)
        modules.append(
            LoraModule(
                path=path,
                A=a,
                B=b,
                scaling=scaling.of(configured, a.shape[0]),
                layer=path_parts(container)[0],
                projection=name or path_parts(container)[1],
                expert=expert,
                extras=tuple(part.extras),
                group=_group(container),
            )
        )
    return modules


def configured(part: Parts, parts: Mapping[str, Parts], config: Mapping[str, Any], nested: bool) -> str:
    """Return the path that patterns of the configuration match: that of a targeted parameter, as a router's weight."""
    container = _container(part.path)
    targets = _parameters(container, config)
    return f"{container}.{_which(part, parts, targets, nested)}" if targets else layer_of(part.path)


def _factors(
    a: Tensor, b: Tensor, container: str, rank: int | None, targeted: bool, label: str
) -> list[tuple[Factor, Factor]] | None:
    """Return the factors of each expert, None where the pair is of one matrix; `rank` is the configured one."""
    for tensor in (a, b):
        require_floating(tensor, label)
    if len(a.shape) == 3 and len(b.shape) == 3 and _is_moe(container):
        return _slabs(a, b, container, label)
    if len(a.shape) != 2 or rank == a.shape[0]:
        return None
    if rank and (targeted or (container.endswith(".experts") and a.shape[0] % rank == 0)):
        return _interleaved(a, b, rank, container, label)
    if container.endswith(".experts"):
        raise UnsupportedAdapterError(
            "holds the factors of several experts, and nothing says how many",
            file=label,
            module=container,
            shape=a.shape,
            fix="put the adapter_config.json with `target_parameters` and `r` beside it",
        )
    return None


def of_experts(
    path: str, a: Tensor, b: Tensor, scaling: Scaling, label: str, extras: tuple[str, ...], *, dora: bool
) -> list[LoraModule]:
    """Return one module for each expert of a layer that has B as (E, m, r) and A as (E, r, n) or (E·r, n).

    Raises AdapterFileError where they do not fit.
    """
    for tensor in (a, b):
        require_floating(tensor, label)
    if len(a.shape) == 2 and len(b.shape) == 3 and 0 < a.shape[0] == b.shape[0] * b.shape[2]:
        count, rank = b.shape[0], b.shape[2]
        _refuse_many(count, path, label)
        factors = [
            (
                Factor(a, (rank, a.shape[1]), partial(_rows, rank=rank, expert=expert)),
                Factor(b, (b.shape[1], rank), partial(_slab, expert=expert)),
            )
            for expert in range(count)
        ]
    elif len(a.shape) == len(b.shape) == 3:
        factors = _slabs(a, b, path, label)
    else:
        raise AdapterFileError("its experts do not fit", file=label, module=path, shape=(*b.shape, *a.shape))
    layer, projection, _ = path_parts(path)
    head, dot, name = path.rpartition(".")
    made = []
    for expert, (first, second) in enumerate(factors):
        within = f"{head}{dot}{expert}.{name}"
        check_pair(within, first, second, label)
        made.append(
            LoraModule(within, first, second, scaling, layer, projection, expert, "linear", dora, extras, head or path)
        )
    return made


def _refuse_many(count: int, path: str, label: str) -> None:
    """Raise AdapterFileError for a number of experts that no model has: each becomes a module, however small."""
    if count > MAX_EXPERTS:
        what = f"claims {count:,} experts, and no model has more than {MAX_EXPERTS:,}"
        raise AdapterFileError(what, file=label, module=path)


def notes(modules: Iterable[LoraModule]) -> tuple[str, ...]:
    """Return what the user should know about fused experts."""
    if any(module.group and module.expert is not None for module in modules):
        return ("experts are fused: an expert pruned by itself is zeroed in place, only a whole container is removed",)
    return ()


def _is_moe(container: str) -> bool:
    return "experts" in container.split(".")


def _group(container: str) -> str:
    """Return the path up to `experts`: loaders that read one projection of it fused read all of them so."""
    names = container.split(".")
    return ".".join(names[: names.index("experts") + 1]) if "experts" in names else container


def _parameters(container: str, config: Mapping[str, Any]) -> list[str]:
    """Return the parameters of `container` that the configuration targets, in the order PEFT sorts them."""
    targets = config.get("target_parameters") or ()
    if not isinstance(targets, list | tuple):
        return []
    if len(targets) > MAX_TARGETS:  # each is held against each module
        what = f"`target_parameters` names {len(targets):,} parameters, and no model has more than {MAX_TARGETS:,}"
        raise AdapterFileError(what, file="adapter_config.json")
    found = []
    for target in sorted(str(target) for target in targets):
        owner, _, name = target.rpartition(".")
        if container == owner or container.endswith(f".{owner}") or (not owner and _is_moe(container)):
            found.append(name)
    return list(dict.fromkeys(found))


def _which(part: Parts, parts: Mapping[str, Parts], names: list[str], nested: bool) -> str:
    """Return which targeted parameter `part` belongs to, "" where none is targeted and none lies in another.

    Two parameters of one module are told apart by nesting only: the one wrapped first, in the order the model
    defines them, lies under `.base_layer`. Models define the gate and up projections before the down projection.
    """
    root = _container(part.key)
    siblings = [part.key]
    if nested:
        siblings = [key for key in (root + BASE * depth for depth in range(MAX_NESTING, -1, -1)) if key in parts]
    if len(names) <= 1 and len(siblings) == 1:
        return names[0] if names else ""
    ordered = sorted(names, key=lambda name: ("down" in name or "w2" in name, name))
    position = siblings.index(part.key) if part.key in siblings else len(siblings)
    return ordered[position] if position < len(ordered) else f"parameter_{position}"


def _container(path: str) -> str:
    while path.endswith(BASE):
        path = path.removesuffix(BASE)
    return path


def _interleaved(a: Tensor, b: Tensor, rank: int, path: str, label: str) -> list[tuple[Factor, Factor]]:
    if len(b.shape) != 2 or a.shape[0] != b.shape[1] or a.shape[0] % rank:
        raise AdapterFileError(
            f"fused experts of rank {rank} do not fit", file=label, module=path, shape=(*b.shape, *a.shape)
        )
    count = a.shape[0] // rank
    _refuse_many(count, path, label)
    return [
        (
            Factor(a, (rank, a.shape[1]), partial(_rows, rank=rank, expert=expert)),
            Factor(b, (b.shape[0], rank), partial(_strided_columns, rank=rank, expert=expert)),
        )
        for expert in range(count)
    ]


def _within(container: str, expert: int) -> str:
    """Return the path of an expert in a container that may be one of its projections, `….experts.w1`.

    >>> _within("model.layers.0.mlp.experts.w1", 3), _within("model.layers.0.mlp.experts", 3)
    ('model.layers.0.mlp.experts.3.w1', 'model.layers.0.mlp.experts.3')
    """
    head, middle, name = container.rpartition(".experts.")
    return f"{head}.experts.{expert}.{name}" if middle else f"{container}.{expert}"


def _slabs(a: Tensor, b: Tensor, path: str, label: str) -> list[tuple[Factor, Factor]]:
    """Return the factors of each expert out of (E, r, n) and (E, m, r), where a first size of 1 is for all experts."""
    if 0 in (*a.shape, *b.shape):
        raise AdapterFileError("a factor is empty", file=label, module=path, shape=(*b.shape, *a.shape))
    count = max(a.shape[0], b.shape[0])
    _refuse_many(count, path, label)
    if {a.shape[0], b.shape[0]} - {1, count}:
        raise AdapterFileError("holds two numbers of experts", file=label, module=path, shape=(*b.shape, *a.shape))
    return [(_slab_of(a, expert, count), _slab_of(b, expert, count)) for expert in range(count)]


def _slab_of(tensor: Tensor, expert: int, count: int) -> Factor:
    size, *shape = tensor.shape
    view = partial(_slab, expert=min(expert, size - 1))
    return Factor(tensor, (shape[0], shape[1]), view, shared=size < count)


def _rows(stored: Array, *, rank: int, expert: int) -> Array:
    rows: Array = stored[expert * rank : (expert + 1) * rank]  # (r·E, n) -> (r, n)
    return rows


def _strided_columns(stored: Array, *, rank: int, expert: int) -> Array:
    by_expert: Array = stored.reshape(stored.shape[0], rank, -1)  # (m, r·E) -> (m, r, E)
    columns: Array = by_expert[:, :, expert]  # (m, r)
    return columns


def _slab(stored: Array, *, expert: int) -> Array:
    slab: Array = stored[expert]  # (E, a, b) -> (a, b)
    return slab
