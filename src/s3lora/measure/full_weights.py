"""Whole weights that an adapter brings along, as differences to those of its base."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator

from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.inventory.model import InventoryTensor
from s3lora.adapter.model import Adapter
from s3lora.adapter.tensors import StoredTensor
from s3lora.base.weights import READABLE, BaseWeights
from s3lora.errors import UnsupportedAdapterError
from s3lora.measure.against_base import WeightDelta
from s3lora.measure.base_reader import COMPONENTS
from s3lora.spectrum.dense import DenseMatrix, dense, plus_matrix
from s3lora.spectrum.dense_scores import dense_scores
from s3lora.wording import for_command

__all__ = ["full_weights", "weight_delta"]

#: What tools put into the name of a weight that they saved in full.
_SAVED = re.compile(r"\.(?:modules_to_save(?:\.[^.]+)?|base_layer|original_module)(?=\.)")
#: Ends under which the difference itself is stored → that of the weight it belongs to.
_DIFFERENCES = {".diff": ".weight", ".diff_b": ".bias"}
_INDICES = ("ssi", "frobenius", "stable_rank", "energy")


def full_weights(
    adapter: Adapter,
    tensors: Iterable[InventoryTensor],
    base: BaseWeights,
    components: int | None,
    seed: int,
    progress: Callable[[], None] | None = None,
) -> Iterator[WeightDelta]:
    """Yield a record for every whole weight of an adapter: heads, base weights, and differences."""
    stored = {name: tensor for file in adapter.files for name, tensor in file.tensors.items()}
    for one in tensors:
        if one.role not in ("head", "base weight") or one.name not in stored:
            continue
        name = _SAVED.sub("", unwrapped(one.name)[0])
        ending = next((end for end in _DIFFERENCES if name.endswith(end)), None)
        if ending is not None:
            name = name.removesuffix(ending) + _DIFFERENCES[ending]
        yield weight_delta(
            one.name, stored[one.name], name, base, components or COMPONENTS, seed, added=ending is not None
        )
        if progress is not None:
            progress()


def weight_delta(
    label: str, tensor: StoredTensor, name: str, base: BaseWeights, components: int, seed: int, *, added: bool = False
) -> WeightDelta:
    """Return what a tensor changes of the base's weight `name`, which it replaces or is `added` to.

    Of what is no matrix, or holds NaN, only that is told which can be.
    """
    try:
        weight = base.whole(name)
    except UnsupportedAdapterError as error:
        return WeightDelta(name=label, weight=None, shape=tensor.shape, note=for_command(error.problem))
    stored = None if weight is None else weight.name
    if tensor.dtype not in READABLE:
        return WeightDelta(name=label, weight=stored, shape=tensor.shape, note=f"is stored as {tensor.dtype}")
    if weight is None:
        return WeightDelta(name=label, weight=None, shape=tensor.shape, note="the base has no weight of this name")
    if weight.shape != tensor.shape:
        other = " × ".join(map(str, weight.shape))
        return WeightDelta(name=label, weight=stored, shape=tensor.shape, note=f"the base has one of {other} there")
    before, after = as_matrix(weight), as_matrix(tensor)
    change = after if added else plus_matrix(after, before, -1.0)
    try:
        scores = dense_scores(change, "svd", components, seed, _INDICES)
        size = before.norms.frobenius
    except FloatingPointError:
        return WeightDelta(name=label, weight=stored, shape=tensor.shape, note="one of both holds NaN or infinity")
    norm = scores.indices["frobenius"] or 0.0
    matrix = min(change.shape) > 1
    return WeightDelta(
        name=label,
        weight=stored,
        shape=tensor.shape,
        frobenius=norm,
        relative=norm / size if size else None,
        sigma=scores.sigma if matrix else (),
        sigma_error=scores.error,
        ssi=scores.indices["ssi"] if matrix else None,
        stable_rank=scores.indices["stable_rank"] if matrix else None,
        energy=scores.indices["energy"] if matrix else None,
    )


def as_matrix(tensor: StoredTensor) -> DenseMatrix:
    """Return a stored tensor as a matrix: of a convolution (m, n·k·k), of numbers in a row (1, n)."""
    shape = tensor.shape
    rows = shape[0] if len(shape) > 1 else 1
    flat = (rows, math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape))
    return dense(tensor.matrix(lambda stored: stored.reshape(flat)))
