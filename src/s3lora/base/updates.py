"""What a module really adds to the weight of its base: ΔW, where s·B·A alone is not it.

DoRA (arXiv 2402.09353, eq. 5; the same in PEFT's `dora.py`, MLX and LyCORIS) scales the rows of the merged weight to
given lengths μ, or its columns in older files of LyCORIS:

    ΔW = D(μ / ‖W + s·B·A‖_row)·(W + s·B·A) − W

PiSSA (arXiv 2404.02948) and OLoRA (arXiv 2406.01775) begin with factors taken from W, and take their product out of W
when they are loaded. With these first factors B₀, A₀

    ΔW = s·B·A − s·B₀·A₀,   s·B₀·A₀ = the best approximation of W of rank r (PiSSA),
                                      s·(its first r columns' projection of W) (OLoRA, W as it is stored)

which is of rank 2r. What CorDA, LoRA-GA and LoftQ begin with depends on data or on a quantisation, and the randomised
start of `pissa_niter_N` on a draw: of these it is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from s3lora.adapter.formats.peft_notes import changed_base, takes_out
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.tensor import Tensor
from s3lora.base.weights import BaseWeights, transposed
from s3lora.errors import UnsupportedAdapterError
from s3lora.spectrum.dense import DenseMatrix, dense, plus_product
from s3lora.spectrum.leading import LeadingDirections, leading
from s3lora.spectrum.tall import Float

__all__ = [
    "KNOWN_STARTS",
    "TrueFactors",
    "by_columns",
    "dora_delta",
    "is_magnitude",
    "known_start",
    "magnitudes_of",
    "true_update",
    "upright",
]

#: Ends of the names under which tools store the lengths μ.
_MAGNITUDE = (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".dora_scale", ".m")
_PARTS = ("lora_magnitude_vector.",)
#: Passes over a large weight for what PiSSA took out of it, and the largest angle that is taken for none.
PASSES, ANGLE = 40, 1e-4
#: Initialisations whose first factors W alone determines.
KNOWN_STARTS = ("pissa", "olora")


@dataclass(frozen=True, slots=True)
class TrueFactors:
    """An update that is a product: ΔW = scaling·B·A."""

    A: Any
    B: Any
    scaling: float


def known_start(config: Mapping[str, Any] | None) -> str | None:
    """Return the initialisation whose first factors the base weight determines, None for any other.

    >>> known_start({"init_lora_weights": "pissa"}), known_start({"init_lora_weights": "pissa_niter_16"})
    ('pissa', None)
    """
    method = changed_base(config)
    return method if method is not None and method.lower() in KNOWN_STARTS else None


def magnitudes_of(adapter: Adapter) -> dict[str, Tensor]:
    """Return for the path of each DoRA module the tensor that holds its lengths μ."""
    tensors = {name: tensor for file in adapter.files for name, tensor in file.tensors.items()}
    found: dict[str, Tensor] = {}
    for module in adapter.modules:
        for name in module.extras if module.dora else ():
            if name in tensors and is_magnitude(name):
                found[module.path] = tensors[name]
    return found


def is_magnitude(name: str) -> bool:
    """Return whether a tensor that belongs to a module holds its lengths μ, by its name."""
    return name.endswith(_MAGNITUDE) or any(part in name for part in _PARTS)


def true_update(
    module: LoraModule, base: BaseWeights, magnitude: Tensor | None, start: str | None
) -> DenseMatrix | TrueFactors | None:
    """Return ΔW of a module whose s·B·A is not it; None where s·B·A is ΔW.

    It is transposed where `upright` gives the weight so. Raises UnsupportedAdapterError where the base has no such
    weight, or the magnitudes fit neither rows nor columns.
    """
    if start is not None and takes_out(start, module):
        return _from_start(module, base, start)
    if magnitude is None:
        return None
    values = magnitude.array().astype(np.float64)
    columns = by_columns(module, magnitude)
    weight, factors, turned = upright(module, base)
    return dora_delta(weight, factors.A, factors.B, factors.scaling, values.ravel(), columns=columns != turned)


def upright(module: LoraModule, base: BaseWeights) -> tuple[DenseMatrix, TrueFactors, bool]:
    """Return the weight, the factors s·B·A, and whether both are transposed.

    They are where the weight is stored so, as embeddings are: of a long one, rows of its transpose would each cost a
    pass over the file. Singular values, norms and sizes are the same.
    """
    tensor, view = base.located(module)
    a, b = module.A.matrix(), module.B.matrix()
    if view is transposed:
        return dense(tensor.matrix()), TrueFactors(b.T, a.T, module.scaling.value), True
    return dense(tensor.matrix(view)), TrueFactors(a, b, module.scaling.value), False


def dora_delta(
    weight: DenseMatrix, A: Any, B: Any, scaling: float, magnitudes: Float, *, columns: bool = False
) -> DenseMatrix:
    """Return ΔW of DoRA (m × n): the lengths (m) are those of the rows of W + s·B·A, or (n) of its columns.

    A row that is zero has no direction; a length other than zero then gives infinity, as it does in PEFT.
    """
    merged = plus_product(weight, A, B, scaling)

    def by_rows(start: int, stop: int) -> Float:
        part = merged.part(start, stop)
        lengths = np.sqrt(np.einsum("ij,ij->i", part, part))
        changed: Float = part * (magnitudes[start:stop] / lengths)[:, None] - weight.part(start, stop)
        return changed

    if not columns:
        return DenseMatrix(weight.shape, by_rows)
    factors: list[Float] = []

    def by_columns(start: int, stop: int) -> Float:
        if not factors:
            factors.append(magnitudes / merged.norms.columns)
        return merged.part(start, stop) * factors[0] - weight.part(start, stop)

    return DenseMatrix(weight.shape, by_columns)


def by_columns(module: LoraModule, magnitude: Tensor) -> bool:
    """Return whether the lengths are those of columns: the axis of a tensor tells that has more than one.

    PEFT's are of rows always, in (1, m, 1, 1) for a convolution.
    """
    shape, name = magnitude.shape, magnitude.name
    size = int(np.prod(shape))
    if name.endswith(".m") and module.kind == "embedding" and size == module.n:
        return True  # mlx-lm has one for each word
    if name.endswith(".dora_scale") and len(shape) > 1 and shape[0] == 1 and size == module.n and shape[1] == size:
        return True
    if size == module.m:
        return False
    raise UnsupportedAdapterError(
        f"its {size:,} DoRA magnitudes fit neither its {module.m:,} rows nor its {module.n:,} columns",
        file=magnitude.name,
        module=module.path,
        shape=shape,
        fix="convolutions with magnitudes by input channel are not read",
    )


def _from_start(module: LoraModule, base: BaseWeights, start: str) -> TrueFactors:
    """Return ΔW = s·B·A − s·B₀·A₀ as factors of rank 2r."""
    weight, rank, scaling = dense(base.matrix(module)), module.rank, module.scaling.value
    first_b, first_a = _STARTS[start.lower()](weight, rank, scaling)
    a = np.vstack((np.asarray(module.A.matrix()[:]).astype(np.float64), first_a))
    b = np.hstack((np.asarray(module.B.matrix()[:]).astype(np.float64), -first_b))
    return TrueFactors(a, b, scaling)


def _pissa(weight: DenseMatrix, rank: int, scaling: float) -> tuple[Float, Float]:
    """Return B₀ and A₀ with s·B₀·A₀ = the best approximation of W of this rank.

    Its space has to be known, not the singular values alone: where they lie close, only a whole decomposition tells it.
    """
    found = leading(weight, rank, passes=PASSES)
    if found.angle > ANGLE:
        u, s, vt = np.linalg.svd(weight.whole(), full_matrices=False)
        found = LeadingDirections(s[:rank], 0.0, u[:, :rank], vt[:rank].T, complete=False)
    root = np.sqrt(found.values / scaling)
    return found.left * root, (found.right * root).T


def _olora(weight: DenseMatrix, rank: int, scaling: float) -> tuple[Float, Float]:
    """Return the first columns of Q and rows of R of W = Q·R: W projected on the span of its first columns.

    PEFT takes s·B₀·A₀ out of W, B₀ and A₀ being these whatever s is.
    """
    m, n = weight.shape
    first = np.empty((m, min(rank, n)))
    for rows, piece in weight.pieces():
        first[rows] = piece[:, :rank]
    basis = np.linalg.qr(first)[0]  # (m, r)
    projected = np.zeros((basis.shape[1], n))
    for rows, piece in weight.pieces():
        projected += basis[rows].T @ piece
    return basis, projected


_STARTS: dict[str, Callable[[DenseMatrix, int, float], tuple[Float, Float]]] = {"pissa": _pissa, "olora": _olora}
