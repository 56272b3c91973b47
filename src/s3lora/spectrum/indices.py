"""Indices: one number a module, from σ̃ or from the singular values of ΔW.

To add one, write a function and name it in `INDICES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from s3lora.spectrum.factored import FactoredUpdate, Float
from s3lora.spectrum.moments import kurtosis

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


def ssi(sigma: Float, epsilon: float = 0.0) -> float:
    """Return the Spectral Sharpness Index σ̃_1 / Σσ̃ in [1/M, 1] (arXiv 2508.15068); NaN for a zero update.

    `epsilon` is added to the denominator, as the paper's released script does.
    """
    total = float(np.sum(sigma)) + epsilon if len(sigma) else 0.0
    return float(sigma[0]) / total if total > 0 else math.nan


def normalised_ssi(sigma: Float) -> float:
    """Return (SSI − 1/M) / (1 − 1/M) in [0, 1]; NaN where M = 1, since SSI is then 1 whatever the update."""
    count = len(sigma)
    if count < 2:
        return math.nan
    value = (ssi(sigma) - 1 / count) / (1 - 1 / count)
    return 0.0 if value < 0 else value  # rounding below 1/M; NaN stays NaN


def weighted_ssi(sigma: Float, epsilon: float = 0.0) -> float:
    """Return σ̃_1 · SSI = σ̃_1² / Σσ̃, in the unit of ΔW."""
    return float(sigma[0]) * ssi(sigma, epsilon) if len(sigma) else math.nan


def magnitude(sigma: Float) -> float:
    """Return σ̃_1, in the unit of ΔW."""
    return float(sigma[0]) if len(sigma) else math.nan


def _shares(values: Float) -> Float:
    shares: Float = values / np.sum(values)
    return shares[shares > 0]  # a share may underflow to zero


def spectral_entropy(values: Float) -> float:
    """Return −Σ p·ln p in nats, p = σ / Σσ, in [0, ln r]."""
    if not len(values) or values[0] <= 0:
        return math.nan
    p = _shares(values)
    return max(0.0, -float(np.sum(p * np.log(p))))


def effective_rank(values: Float) -> float:
    """Return exp(spectral entropy), in [1, r]."""
    return math.exp(spectral_entropy(values)) if len(values) else math.nan


def stable_rank(values: Float) -> float:
    """Return Σσ² / σ_1², in [1, r]."""
    if not len(values) or values[0] <= 0:
        return math.nan
    return float(np.sum((values / values[0]) ** 2))


def energy(values: Float) -> float:
    """Return σ_1² / Σσ², in [1/r, 1]."""
    return 1.0 / stable_rank(values)


class Measured(NamedTuple):
    """What an index may look at: σ̃ of the method, the update itself, and the method's own ε in the denominator."""

    sigma: Float
    update: FactoredUpdate
    epsilon: float = 0.0

    @property
    def plain(self) -> Float:
        """Return the singular values of ΔW, none for a zero update."""
        return np.zeros(0) if self.update.is_zero else self.update.singular_values


@dataclass(frozen=True, slots=True)
class Index:
    """An index: how it is computed, and what a ranking must know of it.

    `sharp` tells which end is the suspicious one; `scale_free` whether multiplying ΔW by a factor leaves the index
    unchanged; `costly` whether it is computed only on request.
    """

    name: str
    meaning: str
    of: Callable[[Measured], float]
    sharp: Literal["high", "low"] = "high"
    scale_free: bool = True
    costly: bool = False


def _frobenius(measured: Measured) -> float:
    return 0.0 if measured.update.is_zero else measured.update.frobenius


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
        Index("kurtosis", "excess kurtosis of the entries of ΔW", lambda x: kurtosis(x.update), costly=True),
    )
}
