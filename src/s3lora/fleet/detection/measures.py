"""How well probabilities tell two classes apart: rates, ROC-AUC and Brier score, each with its n and 95 % interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3lora.statistics import Z, bootstrap_mean, wilson

Float = NDArray[np.float64]
Flags = NDArray[np.bool_]

RESAMPLES = 2000
#: Halvings of [0, 1] that leave nothing to find in float64.
HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `n` with Wilson's interval."""

    count: int
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Area:
    """ROC-AUC: the chance that an adapter labelled 1 has a higher probability than one labelled 0; ties count half.

    `low` and `high` are the outer ends of a stratified percentile bootstrap and of Newcombe's score interval, because
    a bootstrap of an AUC of 1 knows no error at all, however few the adapters are.
    """

    positive: int
    negative: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Brier:
    """Mean of (probability − label)², with its bootstrap interval; `constant` is that of the training's share of 1."""

    n: int
    value: float
    low: float
    high: float
    constant: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured on some adapters; None where the class that it takes has none among them."""

    auc: Area | None
    false_positives: Rate | None
    recall: Rate | None
    brier: Brier | None


def figures(probabilities: Float, labels: NDArray[Any], flagged: Flags, constant: Float, seed: int) -> Figures:
    """Return what (n,) probabilities and flags say of (n,) labels, 0 or 1.

    `constant` is, for each adapter, the share of 1 among those that its model was trained on.
    """
    positive = labels == 1
    brier = None
    if len(labels):
        mean = bootstrap_mean((probabilities - labels) ** 2, seed=seed, resamples=RESAMPLES)
        brier = Brier(len(labels), *mean, constant=float(np.mean((constant - labels) ** 2)))
    return Figures(
        auc=area(probabilities[positive], probabilities[~positive], seed),
        false_positives=rate(flagged[~positive]),
        recall=rate(flagged[positive]),
        brier=brier,
    )


def rate(flags: Flags) -> Rate | None:
    """Return the share of what is flagged, None of nothing."""
    count, n = int(np.sum(flags)), len(flags)
    return Rate(count, n, *wilson(count, n)) if n else None


def area(positive: Float, negative: Float, seed: int, resamples: int = RESAMPLES) -> Area | None:
    """Return the ROC-AUC of two lists of probabilities with its interval, None where one of them is empty."""
    m, n = len(positive), len(negative)
    if not m or not n:
        return None
    _, level = np.unique(np.concatenate((positive, negative)), return_inverse=True)
    ones, zeros = level[:m], level[m:]
    random = np.random.default_rng(seed)
    value = _area(ones, zeros)
    drawn = [_area(ones[random.integers(m, size=m)], zeros[random.integers(n, size=n)]) for _ in range(resamples)]
    low, high = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
    score = _score_interval(value, m, n)
    return Area(m, n, value, min(low, score[0]), max(high, score[1]))


def _area(ones: NDArray[np.int64], zeros: NDArray[np.int64]) -> float:
    """Return the AUC of two lists of ranks."""
    count = int(max(ones.max(), zeros.max())) + 1
    at = np.bincount(zeros, minlength=count)
    below = np.cumsum(at) - at / 2
    return float(np.mean(below[ones]) / len(zeros))


def _score_interval(value: float, m: int, n: int) -> tuple[float, float]:
    """Return Newcombe's interval of an AUC, his method 5 (2006, Statistics in Medicine 25, 559).

    Its ends are the θ with |θ − AUC| = z·√V(θ), where V is Hanley and McNeil's variance with both of its sample sizes
    replaced by their mean.
    """
    half = (m + n) / 2 - 1

    def beyond(theta: float) -> bool:
        spread = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(theta - value) > Z * math.sqrt(theta * (1 - theta) * spread / (m * n))

    def end(outer: float) -> float:
        inner = value
        for _ in range(HALVINGS):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if beyond(middle) else (middle, outer)
        return (inner + outer) / 2

    return end(0.0), end(1.0)
