"""DoRA from one format into another: the lengths μ of the rows of W + s·B·A, under the name that the target has.

PEFT, LyCORIS and MLX mean the same by them: the weight that is used is D(μ / ‖W + s·B·A‖)·(W + s·B·A). Files of LyCORIS
may have lengths of columns instead, which no other tool reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.new_tensors import NewTensor
from s3lora.adapter.tensor import Tensor
from s3lora.base.updates import by_columns, magnitudes_of
from s3lora.errors import UnsupportedAdapterError
from s3lora.rewrite.convert.target import NewUpdate, refuse


def lengths_of(adapter: Adapter, to: str, *, lycoris: bool = False) -> dict[str, Tensor]:
    """Return the tensor of the lengths μ of each DoRA module by its path.

    Parameters:
        adapter: any.
        to: the target.
        lycoris: whether the target is LyCORIS's, where some modules may have them, and some those of columns.

    Raises UnsupportedAdapterError where the target cannot have them.
    """
    found = magnitudes_of(adapter)
    reasons = {}
    for module in adapter.modules:
        if not module.dora:
            continue
        if module.path not in found or module.kind == "embedding" or module.group is not None:
            reasons[module.path] = "has a DoRA magnitude of another kind than that of a layer's rows"
        elif not (lycoris or _of_rows(module, found[module.path])):
            reasons[module.path] = "has DoRA magnitudes of columns, which only LyCORIS has"
        elif not lycoris and len(found) < len(adapter.modules):
            reasons[module.path] = "has a DoRA magnitude, and other modules have none, where it is all or none"
    refuse(to, reasons)
    return found


def _of_rows(module: LoraModule, magnitude: Tensor) -> bool:
    try:
        return not by_columns(module, magnitude)
    except UnsupportedAdapterError:  # they fit neither
        return False


def lengths(
    updates: Sequence[NewUpdate], found: dict[str, Tensor], name: Callable[[str], str], *, lycoris: bool = False
) -> list[NewTensor]:
    """Return μ of each module as it is written, in (m); for LyCORIS in (m, 1), or (1, n) of columns.

    `name` makes the name of the tensor out of the module's new path.
    """
    made = []
    for update in updates:
        tensor, module = found.get(update.module.path), update.module
        if tensor is None:
            continue
        ones = (1,) * (len(module.A.parts[0].tensor.shape) - 1)
        if lycoris:
            shape = (module.m, *ones) if _of_rows(module, tensor) else tensor.shape
        else:
            shape = (1, module.m, *ones[1:]) if module.kind == "conv" else (module.m,)
        made.append(NewTensor(name(update.path), update.dtype or tensor.dtype, shape, tensor.array))
    return made


__all__ = ["lengths", "lengths_of"]
