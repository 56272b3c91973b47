"""Indices: one number a module, from σ̃ or from the singular values of ΔW, along the last axis of an array.

To add one, write a function and name it in `INDICES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.moments import kurtosis
from s3lora.spectrum.tall import Float

__all__ = [
    "INDICES",
    "Index",
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

    >>> ssi(np.array([3.0, 1.0])), ssi(np.array([[3.0, 1.0], [0.0, 0.0]]))
    (np.float64(0.75), array([0.75,  nan]))
    """
    return _ratio(_first(sigma), np.sum(sigma, axis=-1) + epsilon)


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


class Measured(NamedTuple):
    """What an index may look at: σ̃ of the method, the update itself, and the method's own ε in the denominator.

    Of one module σ̃ are M numbers, none of a zero update; of a stack of k modules they are k × M, with
    zeros for a zero update.
    """

    sigma: Float
    update: FactoredUpdate
    epsilon: float = 0.0

    @property
    def plain(self) -> Float:
        """Return the singular values of ΔW; of a zero update none, or zeros in a stack."""
        if self.update.stacked:
            return np.where(self.update.is_zero[:, None], 0.0, self.update.singular_values)
        return np.zeros(0) if self.update.is_zero else self.update.singular_values


@dataclass(frozen=True, slots=True)
class Index:
    """An index: how it is computed, and what a ranking must know of it.

    `sharp` tells which end is the suspicious one; `scale_free` whether multiplying ΔW by a factor leaves the index
    unchanged; `costly` whether it is computed only on request.
    """

    name: str
    meaning: str
    of: Callable[[Measured], Float]
    sharp: Literal["high", "low"] = "high"
    scale_free: bool = True
    costly: bool = False


def _frobenius(measured: Measured) -> Float:
    return np.where(measured.update.is_zero, 0.0, measured.update.frobenius)[()]


def _kurtosis(measured: Measured) -> Float:
    update = measured.update
    return np.array([kurtosis(one) for one in update] if update.stacked else kurtosis(update))[()]


INDICES: dict[str, Index] = {
    index.name: index
    for index in (
        Index("ssi", "Spectral Sharpness Index, σ̃_1 / Σσ̃, in [1/M, 1]", lambda x: ssi(x.sigma, x.epsilon)),
        Index(
            "normalised_ssi",
            "(SSI − 1/M) / (1 − 1/M), in [0, 1], for modules of different rank",
            lambda x: normalised_ssi(x.sigma),
        ),
        Index(
            "weighted_ssi", "σ̃_1 · SSI: sharp and large", lambda x: weighted_ssi(x.sigma, x.epsilon), scale_free=False
        ),
        Index("magnitude", "σ̃_1", lambda x: magnitude(x.sigma), scale_free=False),
        Index("frobenius", "‖ΔW‖_F", _frobenius, scale_free=False),
        Index("stable_rank", "‖ΔW‖_F² / σ_1², in [1, r]", lambda x: stable_rank(x.plain), sharp="low"),
        Index(
            "effective_rank",
            "exp of the spectral entropy, in [1, r]",
            lambda x: effective_rank(x.plain),
            sharp="low",
        ),
        Index(
            "spectral_entropy",
            "−Σ p·ln p with p = σ / Σσ, in nats",
            lambda x: spectral_entropy(x.plain),
            sharp="low",
        ),
        Index("energy", "σ_1² / Σσ², the share of the first direction, in [1/r, 1]", lambda x: energy(x.plain)),
        Index("kurtosis", "excess kurtosis of the entries of ΔW", _kurtosis, costly=True),
    )
}
