"""Indices: one number a module, from σ̃ or from the singular values of ΔW, and all that is known of each.

To add one, write a function and `add` its `Index`: every command, document and page then has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from s3lora.spectrum.bins import RANKS, SHARES, SIZES, Bins
from s3lora.spectrum.factored import Float
from s3lora.spectrum.index import Index, Measured
from s3lora.spectrum.moments import kurtosis

__all__ = [
    "INDICES",
    "Index",
    "Measured",
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


def _frobenius(measured: Measured) -> float:
    return 0.0 if measured.update.is_zero else measured.update.frobenius


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
        of=_frobenius,
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
        of=lambda x: kurtosis(x.update),
        sharp="high",
        scale_free=True,
        by_rank=True,
        at_rank_one=None,
        bins=Bins("linear", -3.0, 2, 80),
        plain=True,
        costly=True,
    )
)
