"""The spectral methods: each turns the update of a module into a descending list σ̃_1 ≥ … ≥ σ̃_M ≥ 0.

Of one module a method returns M numbers, none of a zero update. Of a stack of k modules it returns k × M, with zeros
for a zero update.

    svd       singular values of ΔW
    spsvd     spherically normalised SVD (Han, Kim & Jung 2024, arXiv 2402.09754)
    mas-svd   magnitude-aware spherically normalised SVD (Ao & Rumchurn 2025, arXiv 2508.15068), the default
    released  what the paper's released script computes; dense, for reproducing its numbers only

A method is a function and an entry at the end of this file; `Method` in `method.py` says what there is to know of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.kronecker import KroneckerUpdate
from s3lora.spectrum.method import Method, Options
from s3lora.spectrum.released import INDEX_EPSILON, released_value
from s3lora.spectrum.robust import robust_scales
from s3lora.spectrum.tall import Float

__all__ = ["METHODS", "Method", "Options", "add", "mas_svd", "matched", "released", "spsvd", "svd"]


DEFAULT = Options()


def svd(update: FactoredUpdate, options: Options = DEFAULT) -> Float:
    """Return the first M singular values of ΔW (the first baseline of arXiv 2508.15068)."""
    if _nothing(update):
        return np.zeros(0)
    return _cleared(update.singular_values[..., : options.rank], update)


def mas_svd(update: FactoredUpdate, options: Options = DEFAULT) -> Float:
    """Return σ̃_k = √((ρ̄·s^r_k)·(γ̄·s^c_k)) for k ≤ M.

    s^r and s^c are the singular values of the row- and the column-normalised ΔW, ρ̄ and γ̄ the mean row and column
    norm of ΔW itself. arXiv 2508.15068 fixes these ingredients and not this last formula: it is our reading, chosen
    because it equals `svd` exactly where all rows have one norm and all columns have one norm.

    >>> mas_svd(FactoredUpdate([[3.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]))
    array([3.5, 3.5])
    """
    if _nothing(update):
        return np.zeros(0)
    rows, columns = update.row_normalised, update.column_normalised  # min(m, n, r) each
    with np.errstate(over="raise"):
        # Roots first: ρ̄·γ̄ leaves the range of float64 long before σ̃ does.
        scale = np.sqrt(update.mean_row_norm) * np.sqrt(update.mean_column_norm)
        return _cleared((scale[..., None] * np.sqrt(rows * columns))[..., : options.rank], update)


def spsvd(update: FactoredUpdate, options: Options = DEFAULT) -> Float:
    """Return the scales |d| that greedy fitting finds on spherically normalised directions, descending.

    V holds the top M right singular vectors of the row-normalised ΔW, U the top M left ones of the column-normalised
    ΔW (arXiv 2402.09754). M times, the pair (u, v) not yet used and the scale d that fit best what is left of ΔW are
    recorded and deflated. With `fit="l2"`, d = uᵀΔWv; since U and V are orthonormal, deflating a pair touches no
    other entry of C = UᵀΔWV, so the loop is a greedy matching on |C|. Where singular values coincide, U and V, and
    with them the result, depend on the basis that LAPACK returns.
    """
    if _nothing(update):
        return np.zeros(0)
    if options.fit == "l1" and update.stacked:
        return _one_by_one(spsvd, update, options)
    if options.fit == "l1" and isinstance(update, KroneckerUpdate):
        update = update.multiplied
    left, right = update.column_normalised_basis(), update.row_normalised_basis()
    count = min(left.shape[-1], right.shape[-1], options.rank or update.rank)
    left, right = left[..., :count], right[..., :count]
    if options.fit == "l1":
        return robust_scales(update, left, right, options.sample, options.seed)
    remaining = np.abs(left.swapaxes(-1, -2) @ update.core @ right)  # (…, M, M)
    found = matched(remaining if update.stacked else remaining[None])
    return _cleared(update.scaled(found if update.stacked else found[0]), update)


def matched(remaining: Float) -> Float:
    """Return the numbers (k × M) that are the greatest of each matrix (M × M) in turn, each row and column once."""
    k, count, _ = remaining.shape
    found, of = np.zeros((k, count)), np.arange(k)
    for step in range(count):
        i, j = np.divmod(np.argmax(remaining.reshape(k, -1), axis=1), count)
        found[:, step] = remaining[of, i, j]
        remaining[of, i, :] = -1.0
        remaining[of, :, j] = -1.0
    return found


def released(update: FactoredUpdate, options: Options = DEFAULT) -> Float:
    """Return the one non-zero singular value that the paper's released script arrives at; see `released_value`."""
    if update.stacked:
        return _one_by_one(released, update, options)
    return np.zeros(0) if update.is_zero else np.array([released_value(update)])


def _nothing(update: FactoredUpdate) -> bool:
    return not update.stacked and bool(update.is_zero)


def _cleared(values: Float, update: FactoredUpdate) -> Float:
    """Return the values with zeros for the zero updates of a stack."""
    return np.where(update.is_zero[:, None], 0.0, values) if update.stacked else values


def _one_by_one(method: Callable[[FactoredUpdate, Options], Float], stack: FactoredUpdate, options: Options) -> Float:
    """Return what a method that takes one module only gives for each."""
    rows = [method(one, options) for one in stack]
    values = np.zeros((len(rows), max(map(len, rows))))
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
    return values


#: Name → method, in the order in which they are shown; the first is the default.
METHODS: dict[str, Method] = {}


def add(method: Method) -> None:
    """Make a method known."""
    METHODS[method.name] = method


add(Method(name="mas-svd", of=mas_svd))
add(Method(name="svd", of=svd))
add(Method(name="spsvd", of=spsvd, fits=True))
add(
    Method(
        name="released",
        of=released,
        scales=False,
        dense=True,
        epsilon=INDEX_EPSILON,
        undefined=lambda m, n: m > n,
        undefined_for="m > n, as the script itself fails there",
    )
)
