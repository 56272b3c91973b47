"""What a format is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from s3lora.adapter.model import AnyFactor, Factor, LoraModule, Scaling
from s3lora.adapter.tensor import Array, Tensor
from s3lora.adapter.tensors import FLOATING
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

#: The least alpha or scaling: anything smaller is no setting of anybody, and its quotients vanish.
SMALLEST = 1e-12
#: Most modules; the largest mixtures of experts have 50,000.
MAX_MODULES = 500_000
#: What to do about tensors that DeepSpeed ZeRO-3 has saved empty, since their values lay on other processes.
GATHER = (
    "DeepSpeed ZeRO-3 saves this where parameters were not gathered: run zero_to_fp32.py on its checkpoint, or set "
    "stage3_gather_16bit_weights_on_model_save and save again"
)


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """All tensors of an adapter by name, with its configuration if it has one.

    `label` and `config_label` name the weights file and the configuration in messages. `model` is the base model's
    `config.json`, where it lies beside an adapter whose format needs it.
    """

    label: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] | None
    config_label: str
    metadata: Mapping[str, str]
    model: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The modules found, the tensors that are none of theirs, and what the user should be told."""

    modules: tuple[LoraModule, ...]
    other_tensors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """A key scheme: `recognises` looks at names and configuration only, `read` may look at shapes.

    `removable` is False where loaders of this format fail when a module is missing.
    """

    name: str
    recognises: Callable[[StoredAdapter], bool]
    read: Callable[[StoredAdapter], Reading]
    removable: bool = True


def transposed(stored: Array) -> Array:
    """Layout (a, b) as (b, a)."""
    return stored.T


def flattened(stored: Array) -> Array:
    """Layout a convolution kernel (a, b, h, w) as the matrix (a, b·h·w)."""
    return stored.reshape(stored.shape[0], -1)


def upright(stored: Array) -> Array:
    """Layout the vector (r) as the column (r, 1)."""
    return stored.reshape(-1, 1)


def require_floating(tensor: Tensor, label: str) -> None:
    """Raise UnsupportedAdapterError unless the tensor holds floating-point numbers."""
    if tensor.dtype not in FLOATING:
        raise UnsupportedAdapterError(
            f"a LoRA factor of dtype {tensor.dtype} has no spectrum by itself (quantised factors are stored so)",
            file=label,
            module=tensor.name,
            shape=tensor.shape,
            fix="give the adapter in a floating-point dtype",
        )


def matrix(tensor: Tensor, label: str, *, transpose: bool = False) -> Factor:
    """Return the tensor as a factor: 2-D as it is (or transposed), 4-D flattened.

    Raises UnsupportedAdapterError for any other number of dimensions (what a 3-D factor means differs by its writer)
    and for numbers that are not floating-point.
    """
    require_floating(tensor, label)
    shape = tensor.shape
    if shape == (0,):
        raise AdapterFileError("a factor is empty", file=label, module=tensor.name, shape=shape, fix=GATHER)
    if len(shape) == 2:
        if transpose:
            return Factor(tensor, (shape[1], shape[0]), transposed)
        return Factor(tensor, (shape[0], shape[1]))
    if len(shape) >= 4 and not transpose:
        columns = 1
        for size in shape[1:]:
            columns *= size
        return Factor(tensor, (shape[0], columns), flattened)
    raise UnsupportedAdapterError(
        f"a LoRA factor with {len(shape)} dimensions is not one matrix (merged or grouped projections are stored so)",
        file=label,
        module=tensor.name,
        shape=shape,
        fix="split it into one lora_A and lora_B for each projection",
    )


def column(tensor: Tensor, label: str) -> Factor:
    """Return a vector of r numbers, stored as (r) or (r, 1), as a column (r, 1): a part of a derived factor.

    Raises UnsupportedAdapterError for another number of dimensions, and for numbers that are not floating-point.
    """
    require_floating(tensor, label)
    if len(tensor.shape) == 2 and tensor.shape[1] == 1:
        return Factor(tensor, (tensor.shape[0], 1))
    if len(tensor.shape) != 1:
        raise UnsupportedAdapterError("is no vector", file=label, module=tensor.name, shape=tensor.shape)
    return Factor(tensor, (tensor.shape[0], 1), upright)


def check_pair(path: str, a: AnyFactor, b: AnyFactor, label: str) -> None:
    """Raise AdapterFileError unless B·A is defined and not empty, UnsupportedAdapterError for one in groups."""
    if 0 in a.shape or 0 in b.shape:
        raise AdapterFileError("a factor is empty", file=label, module=path, shape=(*b.shape, *a.shape))
    if a.shape[0] != b.shape[1]:
        fix = "the inner sizes must be equal; the file is damaged or of another format"
        # Sharding cuts the rows of every tensor, those of A being the rank.
        if b.shape[1] % a.shape[0] == 0 and a.shape[1] != b.shape[0]:
            fix = (
                "A may have been cut: one rank of a sharded (FSDP) save holds a slice of the rows of each tensor, so "
                "gather the full state before saving (state_dict_type FULL_STATE_DICT, or get_model_state_dict with "
                "full_state_dict=True)"
            )
        spatial = any(len(part.tensor.shape) > 2 for factor in (a, b) for part in factor.parts)
        if spatial and a.shape[0] % b.shape[1] == 0:
            raise UnsupportedAdapterError(
                f"looks like a convolution in {a.shape[0] // b.shape[1]} groups, which are not read: A is "
                f"{a.shape[0]} × {a.shape[1]}, B is {b.shape[0]} × {b.shape[1]}",
                file=label,
                module=path,
                fix="take it out of the file, or merge it into the base model",
            )
        raise AdapterFileError(
            f"the factors do not fit: A is {a.shape[0]} × {a.shape[1]}, B is {b.shape[0]} × {b.shape[1]}",
            file=label,
            module=path,
            fix=fix,
        )


def positive(config: Mapping[str, Any], field: str, label: str) -> float | None:
    """Return the positive number that `config` gives for `field`, None where it gives nothing.

    Raises AdapterFileError if what it gives is no positive number.
    """
    value = config.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not SMALLEST <= value < 1e12:
        what = f"the text {printable(value, 40)!r}" if isinstance(value, str) else printable(value, 40)
        raise AdapterFileError(f"`{field}` is {what}, not a positive number from {SMALLEST:g} to 1e12", file=label)
    return float(value)


def alpha_scaling(alpha: Tensor, rank: int, label: str) -> Scaling:
    """Return alpha / r from a tensor that holds alpha (0-d, or one element)."""
    if any(size != 1 for size in alpha.shape) or alpha.dtype == "complex64":
        raise AdapterFileError("alpha must be one number", file=label, module=alpha.name, shape=alpha.shape)
    value = float(alpha.array().reshape(()))
    if not SMALLEST <= value < 1e12:
        raise AdapterFileError(f"alpha is {value:g}, not a positive number", file=label, module=alpha.name)
    return Scaling(value / rank, "alpha tensor")


def refuse_too_many(count: int, label: str) -> None:
    """Raise AdapterFileError for more modules than any model has: fused experts make many of a small file."""
    if count > MAX_MODULES:
        raise AdapterFileError(f"claims more than {MAX_MODULES:,} modules", file=label, fix="no model has so many")


def refuse_equal_paths(modules: Iterable[LoraModule], label: str) -> None:
    """Raise AdapterFileError if two modules have one path."""
    seen: set[str] = set()
    for module in modules:
        if module.path in seen:
            raise AdapterFileError("appears twice under different keys", file=label, module=module.path)
        seen.add(module.path)


def missing_half(path: str, has: str, lacks: str, label: str) -> AdapterFileError:
    """Return the error for a module with only one of its two factors."""
    return AdapterFileError(f"has {has} but no {lacks}", file=label, module=path, fix="the file is incomplete")


def rank_warning(
    modules: tuple[LoraModule, ...], configured: Mapping[str, int], stored: Mapping[str, int] | None = None
) -> tuple[str, ...]:
    """Return a warning if the shapes contradict the configured ranks (by module path).

    `stored` are the ranks of the tensors where they are not those of the updates.
    """
    ranks = {module.path: module.rank for module in modules} if stored is None else stored
    wrong = [module for module in modules if configured.get(module.path, 0) not in (0, ranks.get(module.path))]
    if not wrong:
        return ()
    first = wrong[0]
    return (
        f"the configuration says rank {configured[first.path]} where the tensors have {ranks[first.path]} "
        f"({len(wrong)} of {len(modules)} modules, first {first.path}); the shapes decide",
    )
