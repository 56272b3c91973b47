"""The spectral methods: each turns a module's update into a descending list σ̃_1 ≥ … ≥ σ̃_M ≥ 0.

    svd       singular values of ΔW
    spsvd     spherically normalised SVD (Han, Kim & Jung 2024, arXiv 2402.09754)
    mas-svd   magnitude-aware spherically normalised SVD (Ao & Rumchurn 2025, arXiv 2508.15068), the default
    released  what the paper's released script computes; dense, for reproducing its numbers only

To add one, write a function with the signature of `svd` and name it in `METHODS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from s3lora.spectrum.factored import FactoredUpdate, Float
from s3lora.spectrum.released import released_value
from s3lora.spectrum.robust import robust_scales

__all__ = ["METHODS", "Options", "mas_svd", "released", "spsvd", "svd"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the methods can be told.

    rank: M, the number of components; None takes all r. Must be at least 1.
    fit: how `spsvd` fits a pair of directions, by least squares or by least absolute deviations.
    sample: rows and columns drawn for `fit="l1"`, which needs entries of ΔW; None uses all of them.
    seed: of that draw.

    Raises ValueError where rank or sample is below 1.
    """

    rank: int | None = None
    fit: Literal["l2", "l1"] = "l2"
    sample: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a number of components or of samples that would mean nothing."""
        for name, value in (("rank", self.rank), ("sample", self.sample)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")


DEFAULT = Options()


def svd(update: FactoredUpdate, options: Options = DEFAULT) -> Float:
    """Return the first M singular values of ΔW (the first baseline of arXiv 2508.15068)."""
    return np.zeros(0) if update.is_zero else update.singular_values[: options.rank]


def mas_svd(update: FactoredUpdate, options: Options = DEFAULT) -> Float:
    """Return σ̃_k = √((ρ̄·s^r_k)·(γ̄·s^c_k)) for k ≤ M.

    s^r and s^c are the singular values of the row- and the column-normalised ΔW, ρ̄ and γ̄ the mean row and column
    norm of ΔW itself. arXiv 2508.15068 fixes these ingredients and not this last formula: it is our reading, chosen
    because it equals `svd` exactly where all rows have one norm and all columns have one norm.
    """
    if update.is_zero:
        return np.zeros(0)
    rows, columns = update.row_normalised, update.column_normalised  # min(m, n, r) each
    with np.errstate(over="raise"):
        # Roots first: ρ̄·γ̄ leaves the range of float64 long before σ̃ does.
        scale = math.sqrt(update.mean_row_norm) * math.sqrt(update.mean_column_norm)
        return (scale * np.sqrt(rows * columns))[: options.rank]


def spsvd(update: FactoredUpdate, options: Options = DEFAULT) -> Float:
    """Return the scales |d| that greedy fitting finds on spherically normalised directions, descending.

    V holds the top M right singular vectors of the row-normalised ΔW, U the top M left ones of the column-normalised
    ΔW (arXiv 2402.09754). M times, the pair (u, v) not yet used and the scale d that fit best what is left of ΔW are
    recorded and deflated. With `fit="l2"`, d = uᵀΔWv; since U and V are orthonormal, deflating a pair touches no
    other entry of C = UᵀΔWV, so the loop is a greedy matching on |C|. Where singular values coincide, U and V, and
    with them the result, depend on the basis that LAPACK returns.
    """
    if update.is_zero:
        return np.zeros(0)
    left, right = update.column_normalised_basis(), update.row_normalised_basis()
    count = min(left.shape[1], right.shape[1], options.rank or update.rank)
    left, right = left[:, :count], right[:, :count]
    if options.fit == "l1":
        return robust_scales(update, left, right, options.sample, options.seed)
    remaining = np.abs(left.T @ update.core @ right)  # (M, M)
    found = np.zeros(count)
    for k in range(count):
        i, j = np.unravel_index(int(np.argmax(remaining)), remaining.shape)
        found[k] = remaining[i, j]
        remaining[i, :] = -1.0
        remaining[:, j] = -1.0
    return update.scaled(found)


def released(update: FactoredUpdate, options: Options = DEFAULT) -> Float:
    """Return the one non-zero singular value that the paper's released script arrives at; see `released_value`."""
    return np.zeros(0) if update.is_zero else np.array([released_value(update)])


Method = Callable[[FactoredUpdate, Options], Float]

METHODS: dict[str, Method] = {"mas-svd": mas_svd, "svd": svd, "spsvd": spsvd, "released": released}
