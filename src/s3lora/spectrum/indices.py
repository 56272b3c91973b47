"""Indices: one number a module, from σ̃ or the singular values of ΔW, along the last axis; and all known of each.

To add one, write a function and `add` its `Index`: every command, document and page then has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from s3lora.spectrum.bins import RANKS, SHARES, SIZES, Bins
from s3lora.spectrum.index import Index, Spectra
from s3lora.spectrum.moments import kurtosis
from s3lora.spectrum.tall import Float

__all__ = [
    "INDICES",
    "Index",
    "Spectra",
    "add",
    "any_costly",
    "effective_rank",
    "energy",
    "magnitude",
    "normalised_ssi",
    "spectral_entropy",
    "ssi",
    "stable_rank",
    "weighted_ssi",
]


def ssi(sigma: Float, epsilon: float = 0.0) -> Float:
    """Return the Spectral Sharpness Index σ̃_1 / Σσ̃ in [1/M, 1] (arXiv 2508.15068); NaN for a zero update.

    `epsilon` is added to the denominator, as the paper's released script does.

    >>> float(ssi(np.array([3.0, 1.0]))), ssi(np.array([[3.0, 1.0], [0.0, 0.0]]))
    (0.75, array([0.75,  nan]))
    """
    return _ratio(_first(sigma), np.sum(sigma, axis=-1) + (epsilon if sigma.shape[-1] else 0.0))


def normalised_ssi(sigma: Float) -> Float:
    """Return (SSI − 1/M) / (1 − 1/M) in [0, 1]; NaN where M = 1, since SSI is then 1 whatever the update."""
    count = sigma.shape[-1]
    if count < 2:
        return np.full(sigma.shape[:-1], math.nan)[()]
    return _least((ssi(sigma) - 1 / count) / (1 - 1 / count), 0.0)  # rounding below 1/M


def weighted_ssi(sigma: Float, epsilon: float = 0.0) -> Float:
    """Return σ̃_1 · SSI = σ̃_1² / Σσ̃, in the unit of ΔW."""
    return np.asarray(_first(sigma) * ssi(sigma, epsilon))[()]


def magnitude(sigma: Float) -> Float:
    """Return σ̃_1, in the unit of ΔW."""
    first = _first(sigma)
    return np.where(first > 0, first, math.nan)[()]


def spectral_entropy(values: Float) -> Float:
    """Return −Σ p·ln p in nats, p = σ / Σσ, in [0, ln r]."""
    p = _ratio(values, np.sum(values, axis=-1, keepdims=True)) if values.shape[-1] else values
    terms = p * np.log(p, out=np.zeros_like(p), where=~(p <= 0))  # a share may underflow to zero; NaN stays
    return _least(-_sum(terms), 0.0)


def effective_rank(values: Float) -> Float:
    """Return exp(spectral entropy), in [1, r]."""
    return np.asarray(np.exp(spectral_entropy(values)))[()]


def stable_rank(values: Float) -> Float:
    """Return Σσ² / σ_1², in [1, r]."""
    return _sum(_ratio(values, _first(values)[..., None]) ** 2)


def energy(values: Float) -> Float:
    """Return σ_1² / Σσ², in [1/r, 1]."""
    return np.asarray(1.0 / stable_rank(values))[()]


def _first(values: Float) -> Float:
    """Return σ_1 along the last axis, zero where there is none."""
    return np.asarray(values[..., 0] if values.shape[-1] else np.zeros(values.shape[:-1]))


def _ratio(part: Float, whole: Float) -> Float:
    """Return part / whole, NaN where the whole is not positive."""
    part, whole = np.broadcast_arrays(part, whole)
    ratio: Float = np.divide(part, whole, out=np.full(part.shape, math.nan), where=whole > 0)[()]
    return ratio


def _sum(values: Float) -> Float:
    """Return the sum along the last axis, NaN of nothing."""
    return np.asarray(np.sum(values, axis=-1) if values.shape[-1] else np.full(values.shape[:-1], math.nan))[()]


def _least(values: Float, least: float) -> Float:
    """Return the values, and `least` for those that rounding has put below it, −0 too; NaN stays NaN."""
    return np.where(values <= least, least, values)[()]


#: Name → index, in the order in which they are shown.
INDICES: dict[str, Index] = {}


def add(index: Index) -> None:
    """Put an index into `INDICES`; raise ValueError if its name is taken."""
    if index.name in INDICES:
        raise ValueError(f"there is an index {index.name} already")
    INDICES[index.name] = index


def any_costly(names: Iterable[str]) -> bool:
    """Return whether one of these indices is computed only on request; other names do not count."""
    return any(name in INDICES and INDICES[name].costly for name in names)


def _kurtosis(measured: Spectra) -> Float:
    update = measured.update
    return np.array([kurtosis(one) for one in update] if update.stacked else kurtosis(update))[()]


add(
    Index(
        name="ssi",
        title="SSI",
        meaning="Spectral Sharpness Index, σ̃_1 / Σσ̃",
        range="[1/M, 1]",
        of=lambda x: ssi(x.sigma, x.epsilon),
        sharp="high",
        scale_free=True,
        by_rank=True,
        at_rank_one="is 1 always",
        bins=SHARES,
        offered=True,
        surveyed=True,
        swept=True,
    )
)
add(
    Index(
        name="normalised_ssi",
        title="normalised SSI",
        meaning="(SSI − 1/M) / (1 − 1/M), for modules of different rank",
        range="[0, 1]",
        of=lambda x: normalised_ssi(x.sigma),
        sharp="high",
        scale_free=True,
        by_rank=False,
        at_rank_one="is not defined",
        bins=SHARES,
        offered=True,
        surveyed=True,
    )
)
add(
    Index(
        name="weighted_ssi",
        title="weighted SSI",
        meaning="σ̃_1 · SSI: sharp and large",
        range=None,
        of=lambda x: weighted_ssi(x.sigma, x.epsilon),
        sharp="high",
        scale_free=False,
        by_rank=True,
        at_rank_one=None,
        bins=SIZES,
        offered=True,
        surveyed=True,
        swept=True,
    )
)
add(
    Index(
        name="magnitude",
        title="magnitude",
        meaning="σ̃_1",
        range=None,
        of=lambda x: magnitude(x.sigma),
        sharp="high",
        scale_free=False,
        by_rank=False,
        at_rank_one=None,
        bins=SIZES,
        offered=True,
        surveyed=True,
        swept=True,
    )
)
add(
    Index(
        name="frobenius",
        title="Frobenius norm",
        meaning="‖ΔW‖_F",
        range=None,
        of=lambda x: np.asarray(x.update.frobenius)[()],
        at_zero=0.0,
        sharp="high",
        scale_free=False,
        by_rank=False,
        at_rank_one=None,
        bins=SIZES,
        plain=True,
        offered=True,
    )
)
add(
    Index(
        name="stable_rank",
        title="stable rank",
        meaning="‖ΔW‖_F² / σ_1²",
        range="[1, r]",
        of=lambda x: stable_rank(x.plain),
        sharp="low",
        scale_free=True,
        by_rank=True,
        at_rank_one="is 1 always",
        bins=RANKS,
        plain=True,
        offered=True,
        surveyed=True,
    )
)
add(
    Index(
        name="effective_rank",
        title="effective rank",
        meaning="exp of the spectral entropy",
        range="[1, r]",
        of=lambda x: effective_rank(x.plain),
        sharp="low",
        scale_free=True,
        by_rank=True,
        at_rank_one="is 1 always",
        bins=RANKS,
        plain=True,
    )
)
add(
    Index(
        name="spectral_entropy",
        title="spectral entropy",
        meaning="−Σ p·ln p in nats, p = σ / Σσ",
        range="[0, ln r]",
        of=lambda x: spectral_entropy(x.plain),
        sharp="low",
        scale_free=True,
        by_rank=True,
        at_rank_one="is 0 always",
        bins=Bins("linear", 0.0, 8, 72),
        plain=True,
    )
)
add(
    Index(
        name="energy",
        title="energy",
        meaning="σ_1² / Σσ², the share of the first direction",
        range="[1/r, 1]",
        of=lambda x: energy(x.plain),
        sharp="high",
        scale_free=True,
        by_rank=True,
        at_rank_one="is 1 always",
        bins=SHARES,
        plain=True,
    )
)
add(
    Index(
        name="kurtosis",
        title="kurtosis",
        meaning="excess kurtosis of the entries of ΔW",
        range="[−2, ∞)",
        of=_kurtosis,
        sharp="high",
        scale_free=True,
        by_rank=True,
        at_rank_one=None,
        bins=Bins("linear", -3.0, 2, 80),
        plain=True,
        costly=True,
    )
)
