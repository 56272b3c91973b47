"""Ties: what differs by rounding alone is equal, so that a ranking does not depend on the machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s3lora.measure.scan import ModuleScan
from s3lora.spectrum.indices import INDICES

#: Adding and subtracting it rounds a number below 1 to a multiple of 2⁻²³.
_GRID = 1.5 * 2.0**29
#: The factor of a splitting that leaves 24 of 53 bits (Dekker 1971, equation 5.6).
_SPLIT = 2.0**29 + 1
#: Beyond this, `_SPLIT` times a number is too large.
_LARGEST = 1e290


def rounded(value: float, *, scale_free: bool) -> float:
    """Return a value of an index without the digits that rounding may have changed.

    A number below 1 of an index without a unit becomes a multiple of 2⁻²³ = 1.2e-7; all others keep 24 bits, so that
    the step is 2⁻²³ of the power of two below them. The page of a scan does the same in `rules.js`.

    The step is above what `factored` allows to be wrong. There, one Gram matrix costs a relative error of at most
    δ = c·ε / GRAM_CONDITION, which is 2.2e-9 for the c of 10 that it names. Relative errors of

        σ_k of ΔW         2δ, one for each factor
        ρ_i, γ_j          δ
        σ_k of X_r, X_c   3δ: X_r = D_ρ⁻¹·B·L is multiplied by what is off in ρ and in L, δ each, so that each σ_k is
                          off by no more (Ostrowski), and its own Gram matrix adds a third
        σ̃_k of mas-svd    3δ for √(s^r·s^c), and δ for √ρ̄·√γ̄
        ssi               6δ, twice that of a σ_k, since what all σ̃_k share cancels; 4δ by the method svd
        weighted_ssi      10δ
        stable_rank       8δ, and energy as much
        spectral_entropy  4δ·ln r, absolute

    are at most 10δ = 2.2e-8, or 11δ for an entropy at r = 16. These bounds are reached only where both factors have a
    condition near 1 / √GRAM_CONDITION = 1,000; of a condition up to 10 they are 2e-12, so that equal modules get one
    value unless theirs lies that close to the middle of a step. A larger condition leads to QR, whose errors are those
    of the products in float64, but where B and A all but cancel: what is left there may rank in any order.

    The steps are powers of two, since values that whole groups of modules share, as 1 / M, 1/2 or a whole rank, are
    then multiples of the step or far from the middle between two. Among decimals 1/256 would be such a middle.

    >>> rounded(0.3 + 1e-15, scale_free=True) == rounded(0.1 + 0.2, scale_free=True)
    True
    >>> rounded(0.3, scale_free=True) == rounded(0.3000003, scale_free=True)
    False
    """
    if scale_free and abs(value) < 1:
        return value + _GRID - _GRID
    if abs(value) > _LARGEST:
        return value
    wide = value * _SPLIT
    return wide - (wide - value)


def all_rounded(values: Sequence[float], *, scale_free: bool) -> list[float]:
    """Return `rounded` of each value."""
    given = np.asarray(values, np.float64)
    size = np.abs(given)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = given * _SPLIT
        cut = np.where(size > _LARGEST, given, wide - (wide - given))
    return list(np.where(size < 1, given + _GRID - _GRID, cut).tolist() if scale_free else cut.tolist())


def all_sharp(values: Sequence[float], index: str) -> list[float]:
    """Return `sharpness` of each value."""
    known = INDICES[index]
    return all_rounded(values if known.sharp == "high" else [-value for value in values], scale_free=known.scale_free)


def sharpness(value: float, index: str) -> float:
    """Return the rounded value of an index, with the sign that makes sharp modules high."""
    known = INDICES[index]
    return rounded(value if known.sharp == "high" else -value, scale_free=known.scale_free)


def sharpest(modules: Sequence[ModuleScan], index: str) -> list[ModuleScan]:
    """Return the modules that have an index, sharpest first; ties keep their order."""
    found = [(value, module) for module in modules if (value := module.indices.get(index)) is not None]
    return [module for _, module in sorted(found, key=lambda one: -sharpness(one[0], index))]
