"""AdaLoRA: ΔW = s·B·diag(E)·A with `lora_E` (r, 1), and s = alpha / (r₀ + 1e-5) as PEFT computes it.

r₀ is the rank that the training began with: `ranknum` where it is stored, else `init_r` of the configuration. PEFT
keeps it when it cuts a module down to the directions that are left (`AdaLoraModel.resize_modules_by_rank_pattern`).
Directions whose number in E is zero are no part of the update, and leave its rank, unless they hold NaN or infinity.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.factors import AnyFactor, DerivedFactor, Factor
from s3lora.adapter.formats.base import check_pair, column, positive
from s3lora.adapter.formats.parts import Parts
from s3lora.adapter.model import Scaling
from s3lora.adapter.tensor import Array, Tensor
from s3lora.errors import AdapterFileError

#: Added to the rank.
EPSILON = 1e-5


def is_empty(part: Parts) -> bool:
    """Return whether nothing is left of a module: PEFT builds it without parameters, and adds nothing."""
    stored = (part.A, part.B, part.values)
    return all(tensor is not None and len(tensor.shape) == 2 and 0 in tensor.shape for tensor in stored)


def with_values(path: str, a: Factor, b: Factor, values: Tensor, label: str) -> tuple[AnyFactor, AnyFactor]:
    """Return diag(E)·A (k, n) and B (m, k), k being how many of the r numbers in `values` are not zero.

    Where all of them are zero, none is left out.
    """
    diagonal = column(values, label)
    check_pair(path, diagonal, b, label)
    check_pair(path, a, b, label)
    used = values.array().reshape(-1).astype(np.float64) != 0
    if used.all() or not used.any():
        return DerivedFactor((diagonal, a), a.shape, np.multiply, _split), b
    kept = np.flatnonzero(used)
    left, right = (len(kept), a.shape[1]), (b.shape[0], len(kept))
    rows = DerivedFactor((diagonal, a), left, partial(_joined, kept=kept), partial(_split, kept=kept, rank=a.shape[0]))
    columns = DerivedFactor((b,), right, partial(_columns, kept=kept), partial(_spread, kept=kept, rank=a.shape[0]))
    return rows, columns


def scaling_of(config: Mapping[str, Any] | None, stored: Tensor | None, rank: int, label: str) -> Scaling:
    """Return the scaling; `stored` is `ranknum`, `rank` that of the tensors, which counts where nothing else is known.

    Raises AdapterFileError for numbers that cannot be meant.
    """
    if config is None:
        return Scaling(1.0, "unknown")
    began = positive(config, "init_r", label) or float(rank)
    if stored is not None:
        if any(size != 1 for size in stored.shape) or stored.dtype == "complex64":
            raise AdapterFileError("ranknum must be one number", module=stored.name, shape=stored.shape)
        began = float(stored.array().reshape(()))
        if not 0 < began < 1e12:
            raise AdapterFileError(f"ranknum is {began:g}, not a positive number", module=stored.name)
    alpha = positive(config, "lora_alpha", label) or 8.0  # PEFT's default
    return Scaling(alpha / (began + EPSILON), "alpha/r")


def _joined(diagonal: Array, rows: Array, *, kept: NDArray[np.intp]) -> Array:
    everything: Array = diagonal * rows
    made: Array = everything[kept]
    if np.isnan(everything).any():  # of a direction that is left out too: 0 · NaN, which PEFT adds
        made[0, 0] = np.nan
    return made


def _split(matrix: Array, *, kept: NDArray[np.intp] | None = None, rank: int = 0) -> tuple[Array, Array]:
    """Return E of ones, and A: whatever E was is in A then."""
    if kept is None:
        return np.ones((len(matrix), 1)), matrix
    diagonal, rows = np.zeros((rank, 1)), np.zeros((rank, matrix.shape[1]))
    diagonal[kept], rows[kept] = 1.0, matrix
    return diagonal, rows


def _columns(stored: Array, *, kept: NDArray[np.intp]) -> Array:
    made: Array = stored[:, kept]
    if not np.isfinite(stored).all():
        made[0, 0] = np.nan
    return made


def _spread(matrix: Array, *, kept: NDArray[np.intp], rank: int) -> tuple[Array]:
    columns = np.zeros((len(matrix), rank))
    columns[:, kept] = matrix
    return (columns,)
