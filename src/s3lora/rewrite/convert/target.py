"""What a conversion makes: updates with their new paths, ranks and scalings, and the files that hold them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s3lora.adapter.factors import AnyFactor, Factor
from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.new_tensors import NewTensor
from s3lora.adapter.tensor import Array
from s3lora.errors import UnsupportedAdapterError, printable
from s3lora.rewrite.convert.dotted import dotted
from s3lora.rewrite.convert.pipelines import of_pipeline
from s3lora.wording import worded

#: Reasons of one refusal, and the modules that it names for each besides the first.
REASONS, NAMED = 4, 3
#: Precision of float dtypes, the widest first: of two the first holds both, but for the two of 16 bits.
_WIDE = ("float64", "float32")
#: What MLX calls the experts of a layer.
_SWITCH = re.compile(r"\.switch_mlp\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class ConvertWish:
    """What was asked for.

    Parameters:
        to: the name of the target.
        bake: multiply every lora_B by its scaling, so that alpha = r.
        pad: the rank that every module gets, with zeros; 0 for the largest there is, None for each its own.
        dtype: of all floating tensors; None for that which each has.
        base: the configuration of the base model, None where it was not given.
        listed: write a regular expression in `target_modules` as the names that it stands for here.
    """

    to: str
    bake: bool = False
    pad: int | None = None
    dtype: str | None = None
    base: Mapping[str, Any] | None = None
    listed: bool = False


@dataclass(frozen=True, slots=True)
class NewUpdate:
    """One module as it is written.

    Parameters:
        path: in the target.
        module: where the factors come from.
        rank: r′, at least the module's own; what is added is zero.
        scaling: s′ of the target.
        dtype: asked for, None for that of the factors.
    """

    path: str
    module: LoraModule
    rank: int
    scaling: float
    dtype: str | None = None

    @property
    def times(self) -> float:
        """Return what lora_B is multiplied by, so that s′·B′·A′ is s·B·A."""
        scaling = self.module.scaling.value
        return 1.0 if scaling == self.scaling else scaling / self.scaling

    def as_module(self) -> LoraModule:
        """Return the module with the path, rank and scaling that are written: what makes a configuration."""
        module = self.module
        scaling = dataclasses.replace(module.scaling, value=self.scaling)
        # Only its shape counts.
        a = Factor(module.A.parts[0].tensor, (self.rank, module.n)) if self.rank != module.rank else module.A
        return dataclasses.replace(module, path=self.path, scaling=scaling, group=None, A=a)

    def a(self) -> Array:
        """Return A′ (r′, n)."""
        made = self.module.A.array()
        if self.rank == self.module.rank:
            return made
        padded = np.zeros((self.rank, self.module.n), made.dtype)
        padded[: self.module.rank] = made
        return padded

    def b(self) -> Array:
        """Return B′ (m, r′), in float64 where it is multiplied."""
        made = self.module.B.array()
        if self.times != 1.0:
            made = made.astype(np.float64) * self.times
        if self.rank == self.module.rank:
            return made
        padded = np.zeros((self.module.m, self.rank), made.dtype)
        padded[:, : self.module.rank] = made
        return padded

    def tensors(self, a: str, b: str, *, turned: bool = False) -> tuple[NewTensor, NewTensor]:
        """Return both factors under these names: as (r, n) and (m, r), or the other way round, `turned`.

        Convolutions get their kernels back.
        """
        first, second = self.module.A, self.module.B
        if turned:
            return (
                NewTensor(a, self._dtype(first), (self.module.n, self.rank), lambda: self.a().T),
                NewTensor(b, self._dtype(second), (self.rank, self.module.m), lambda: self.b().T),
            )
        shape_a, shape_b = (self.rank, self.module.n), (self.module.m, self.rank)
        if self.module.kind == "conv":
            stored_a, stored_b = self.module.A.parts[0].tensor.shape, self.module.B.parts[0].tensor.shape
            shape_a, shape_b = (self.rank, *stored_a[1:]), (self.module.m, self.rank, *stored_b[2:])  # type: ignore[assignment]
        return (
            NewTensor(a, self._dtype(first), shape_a, self.a),
            NewTensor(b, self._dtype(second), shape_b, self.b),
        )

    def _dtype(self, factor: AnyFactor) -> str:
        return self.dtype or wide_enough(factor.dtype)


def wide_enough(dtypes: str) -> str:
    """Return the dtype that holds all of those that are joined by `/`.

    >>> wide_enough("float16"), wide_enough("bfloat16/float16"), wide_enough("float16/float32")
    ('float16', 'float32', 'float32')
    """
    names = dtypes.split("/")
    if len(names) == 1:
        return names[0] or "float32"
    return next((name for name in _WIDE if name in names), "float32")


@dataclass(frozen=True, slots=True)
class TargetFiles:
    """What is written: one file of tensors, and its configuration.

    `paths` gives the new path of each module by its old one. `keys` are those of a GGUF file. `source` is the adapter
    with its modules as the target has them, where those are others: two for one fused weight.
    """

    name: str
    tensors: Sequence[NewTensor]
    paths: Mapping[str, str]
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    keys: Mapping[str, str | int | float] = field(default_factory=dict)
    source: Adapter | None = None


#: Makes the files of a target out of an adapter.
MakeTarget = Callable[[Adapter, ConvertWish], TargetFiles]


def updates_of(adapter: Adapter, wish: ConvertWish, paths: Mapping[str, str]) -> list[NewUpdate]:
    """Return what becomes of every module, with the path that `paths` gives it.

    Raises UnsupportedAdapterError where a module has a higher rank than it is to get.
    """
    largest = max(module.rank for module in adapter.modules)
    wanted = None if wish.pad is None else wish.pad or largest
    if wanted is not None:
        refuse(
            wish.to,
            {
                module.path: f"has rank {module.rank}, more than {wanted}"
                for module in adapter.modules
                if module.rank > wanted
            },
            worded("give {pad} a higher rank, or none for the largest"),
        )
    return [
        NewUpdate(
            path=paths[module.path],
            module=module,
            rank=wanted or module.rank,
            scaling=1.0 if wish.bake else module.scaling.value,
            dtype=wish.dtype,
        )
        for module in adapter.modules
    ]


def refuse(to: str, reasons: Mapping[str, str], fix: str | None = None) -> None:
    """Raise UnsupportedAdapterError if there are modules or tensors that the target cannot have.

    Parameters:
        to: the target.
        reasons: why, by path or name: a predicate of one of them. Those with one reason are told together.
        fix: what to do; by default another target, or to leave them out.
    """
    if not reasons:
        return
    alike: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        alike.setdefault(reason, []).append(printable(path, 120))
    told = [f"{paths[0]} {reason}{_and(paths[1:])}" for reason, paths in list(alike.items())[:REASONS]]
    more = [f"{len(alike) - REASONS} more reasons"] if len(alike) > REASONS else []
    fix = fix or worded("choose another {to}, or prune them first")
    raise UnsupportedAdapterError(f"cannot be written for {to}: {'; '.join([*told, *more])}", fix=fix)


def _and(others: Sequence[str]) -> str:
    if not others:
        return ""
    more = ", …" if len(others) > NAMED else ""
    return f" (and {len(others)} more: {', '.join(others[:NAMED])}{more})"


def base_name(adapter: Adapter) -> str | None:
    """Return what the configuration calls the base model, None where it says nothing."""
    config = adapter.config or {}
    base = config.get("base_model_name_or_path") or config.get("model")
    return base if isinstance(base, str) else None


def model_paths(adapter: Adapter, to: str) -> dict[str, str]:
    """Return the path that each module has in its model.

    Raises UnsupportedAdapterError where underscores cannot be undone, modules have no names, or are of several models.
    """
    if adapter.format == "kohya":
        places = {module.path: dotted(module.path) for module in adapter.modules}
        unknown = "has a name whose underscores cannot be turned into dots"
        refuse(to, {path: unknown for path, place in places.items() if not place})
        return _one_model({path: place for path, place in places.items() if place}, adapter, to)
    if not adapter.removable:
        what = f"its modules are only numbered ({printable(adapter.modules[0].path, 60)}), and {to} goes by names"
        raise UnsupportedAdapterError(what, file=adapter.name, fix="load it with the code that wrote it")
    if pipeline := of_pipeline(adapter):
        return _one_model(pipeline, adapter, to)
    plain = {module.path: unwrapped(module.path)[0] for module in adapter.modules}
    return {old: _SWITCH.sub(r".experts.\1.", path) for old, path in plain.items()}


def _one_model(places: Mapping[str, tuple[str, str]], adapter: Adapter, to: str) -> dict[str, str]:
    models = sorted({model or "a model that is not named" for model, _ in places.values()})
    if len(models) > 1:
        fix = (
            worded("convert it with {to} diffusers")
            if adapter.format == "kohya"
            else "prune those of all but one first"
        )
        what = f"holds updates of {' and '.join(models)}, and {to} has one model a file"
        raise UnsupportedAdapterError(what, file=adapter.name, fix=fix)
    return {path: inner for path, (_, inner) in places.items()}


def scaling_notes(adapter: Adapter) -> list[str]:
    """Return what to tell of scalings that are not known."""
    unknown = [module for module in adapter.modules if module.scaling.origin in ("unknown", "ambiguous")]
    if not unknown:
        return []
    of = "1 module" if len(unknown) == 1 else f"{len(unknown)} modules"
    values = sorted({module.scaling.value for module in unknown})
    told = ", ".join(f"{value:g}" for value in values[:3]) + (", …" if len(values) > 3 else "")
    return [f"the scaling of {of} is not known for certain: written as it was read, {told}"]
