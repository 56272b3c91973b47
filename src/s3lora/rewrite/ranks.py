"""Another rank for a module: how its tensors are stored then, how it keeps its scaling, and where it has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from s3lora.adapter import peft_config
from s3lora.adapter.factors import Factor
from s3lora.adapter.formats.header import DIFFUSERS
from s3lora.adapter.loaders import Loader
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.tensor import as_stored
from s3lora.errors import UnsupportedAdapterError, printable

#: Where the scaling does not depend on the rank.
_FIXED = ("config scale", "default", "unknown", "always 1")
#: Where it is alpha / r.
_DIVIDED = ("alpha tensor", "metadata", "alpha/r")
_ONE_RANK = "let all of them have one rank"
_KOHYA_DIM = "ss_network_dim"


def stored_shape(factor: Factor, wanted: tuple[int, int]) -> tuple[int, ...] | None:
    """Return the shape of the stored tensor whose matrix has this shape, None if no other rank gives one."""
    shape = factor.tensor.shape
    for axis, size in enumerate(shape):
        for rank in set(wanted):
            changed = (*shape[:axis], rank, *shape[axis + 1 :])
            if size in factor.shape and factor.view(np.broadcast_to(np.float32(0), changed)).shape == wanted:
                return changed
    return None


def folded(adapter: Adapter, module: LoraModule, rank: int) -> float:
    """Return what lora_B is multiplied by where a module of another rank is read with another scaling.

    The configuration of PEFT is written so that no scaling changes; of other formats alpha / r does.
    """
    if adapter.format == "peft" and adapter.config is not None:
        return 1.0
    return rank / module.rank if module.scaling.origin in _DIVIDED else 1.0


def refuse_ranks(
    adapter: Adapter, after: Adapter, changed: Sequence[LoraModule], rules: Loader, fix: str, *, others: bool
) -> None:
    """Raise UnsupportedAdapterError where modules cannot get the ranks that they would get.

    Only with `others` may an adapter be of another format than PEFT's.
    """
    paths = {module.path for module in changed}
    if not others and (adapter.format != "peft" or adapter.config is None):
        what = "gets another rank, which only a PEFT adapter with its adapter_config.json can be written with"
        raise UnsupportedAdapterError(what, file=adapter.name, module=changed[0].path, fix=fix)
    tensors = Counter(part.tensor.name for module in adapter.modules for part in module.parts)
    for old, new in zip(adapter.modules, after.modules, strict=True):
        if old.path in paths and not (_storable(old, new, tensors) and (others or _plain(old))):
            raise _stored_otherwise(old, fix)
        if old.path in paths and adapter.config is None and old.scaling.origin not in (*_FIXED, *_DIVIDED):
            what = "has a scaling that another rank would change"
            raise UnsupportedAdapterError(what, module=old.path, shape=(old.m, old.n), fix=fix)
    ranks = {module.rank for module in after.modules}
    if adapter.format == "peft":
        refuse_unequal_ranks(after.modules, adapter.name, paths)
    mlx = adapter.format == "mlx" and adapter.config is not None
    if mlx and any(module.scaling.origin == "ambiguous" for module in adapter.modules):
        what = "has a scaling that versions of MLX read otherwise, by its rank"
        raise UnsupportedAdapterError(what, file=adapter.name, fix=fix)
    if any(DIFFUSERS in file.metadata for file in adapter.files):
        what = f"tells its ranks in the header, in `{DIFFUSERS}`"
        raise UnsupportedAdapterError(what, file=adapter.name, fix=fix)
    if (rules.one_rank or mlx) and len(ranks) > 1:
        who = "MLX" if mlx else rules.name
        what = f"{who} loads modules of one rank, and these would have ranks {min(ranks)} to {max(ranks)}"
        raise UnsupportedAdapterError(what, file=adapter.name, fix=fix)


def refuse_unequal_ranks(modules: Sequence[LoraModule], name: str, changed: Collection[str] | None = None) -> None:
    """Raise UnsupportedAdapterError where updates that loaders build together would have several ranks.

    These are experts with an update each, which loaders stack, and the two updates of an `nn.MultiheadAttention`. Where
    none of them is among the `changed` they are as they were.
    """
    experts = peft_config.one_each(modules)
    ranks = {module.rank for module in experts}
    if len(ranks) > 1 and (changed is None or any(module.path in changed for module in experts)):
        what = "has one update an expert, which newer loaders stack, and these would have ranks"
        raise UnsupportedAdapterError(f"{what} {min(ranks)} to {max(ranks)}", file=name, fix=_ONE_RANK)
    first: dict[str, LoraModule] = {}
    for module in modules:
        other = first.setdefault(peft_config.place_of(module), module)
        if other.rank != module.rank and module.group is None:
            what = f"is built with {printable(other.path, 80)}, and would have rank {module.rank} beside {other.rank}"
            raise UnsupportedAdapterError(what, file=name, module=module.path, fix=_ONE_RANK)


def refuse_form(module: LoraModule, fix: str) -> None:
    """Raise UnsupportedAdapterError if a module is no product of two stored factors, and so can get no other rank."""
    if not (isinstance(module.A, Factor) and isinstance(module.B, Factor)):
        raise _stored_otherwise(module, fix)


def _stored_otherwise(module: LoraModule, fix: str) -> UnsupportedAdapterError:
    what = "gets another rank, which only factors can that are stored as one matrix each"
    return UnsupportedAdapterError(what, module=module.path, shape=(module.m, module.n), fix=fix)


def _plain(module: LoraModule) -> bool:
    parts = (module.A, module.B)
    return module.group is None and all(isinstance(part, Factor) and part.view is as_stored for part in parts)


def _storable(old: LoraModule, new: LoraModule, tensors: Mapping[str, int]) -> bool:
    return all(
        isinstance(before, Factor)
        and not before.shared
        and tensors[before.tensor.name] == 1
        and stored_shape(before, after.shape) is not None
        for before, after in ((old.A, new.A), (old.B, new.B))
    )


def other_config(adapter: Adapter, modules: Sequence[LoraModule]) -> Mapping[str, Any] | None:
    """Return the configuration of MLX with the rank that its modules have now; any other stays as it is."""
    config = adapter.config
    if adapter.format != "mlx" or config is None:
        return config
    rank = modules[0].rank
    made = dict(config)
    if isinstance(made.get("lora_parameters"), Mapping):
        made["lora_parameters"] = {**made["lora_parameters"], "rank": rank}
    elif "rank" in made:
        made["rank"] = rank
    return made


def other_metadata(adapter: Adapter, modules: Sequence[LoraModule]) -> dict[str, str]:
    """Return what changes in the header: the rank that kohya's scripts tell."""
    ranks = {module.rank for module in modules}
    told = any(_KOHYA_DIM in file.metadata for file in adapter.files)
    return {_KOHYA_DIM: str(max(ranks))} if told else {}


__all__ = [
    "folded",
    "other_config",
    "other_metadata",
    "refuse_form",
    "refuse_ranks",
    "refuse_unequal_ranks",
    "stored_shape",
]
