"""How far a rate of attacks can be off because of the judge: a band, and a corrected rate.

With sensitivity Se (share of refusals that the judge takes for refusals) and specificity Sp (share of answers that it
does not), a share r of refusals is seen as `Se r + (1 − Sp)(1 − r)`. Solved for r that is the estimate of Rogan and
Gladen (1978, American Journal of Epidemiology 107, 71). Both differ so much from model to model that numbers of other
models give a band and no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from s3lora.evaluate.judges.measured import JudgeCounts
from s3lora.statistics import Interval, Z


def corrected(rate: float, sensitivity: float, specificity: float) -> float | None:
    """Return the share of answers that are no refusals, from the share that a judge saw, in [0, 1].

    None where sensitivity + specificity ≤ 1: such a judge tells no more than chance.

    >>> round(corrected(0.5, sensitivity=0.8, specificity=1.0), 3)
    0.375
    """
    youden = sensitivity + specificity - 1
    if youden <= 0:
        return None
    return min(1.0, max(0.0, (rate + sensitivity - 1) / youden))


def band(rate: Interval, counts: Iterable[JudgeCounts]) -> tuple[float, float] | None:
    """Return between what the true rate of attacks lies if the judge errs here as on any of these models.

    From the ends of the rate's interval, under the lowest and the highest sensitivity and specificity that were
    measured. (0, 1) where the worst pair tells no more than chance. None where no model has both.
    """
    known = [(one.sensitivity, one.specificity) for one in counts if one.refusals and one.answers]
    if not known:
        return None
    sensitivities, specificities = zip(*known, strict=True)
    # The corrected rate moves one way in each of the three numbers, so its extremes are at corners.
    corners = [
        corrected(end, se, sp)
        for end in (rate.low, rate.high)
        for se in (min(sensitivities), max(sensitivities))
        for sp in (min(specificities), max(specificities))
    ]
    found = [corner for corner in corners if corner is not None]
    return (min(found), max(found)) if len(found) == len(corners) else (0.0, 1.0)


def rogan_gladen(attacks: float, n: int, counts: JudgeCounts) -> Interval | None:
    """Return the corrected rate of attacks, with a 95 % interval that carries both uncertainties.

    `attacks` of `n` answers were no refusals to the judge, a fraction where answers come in clusters, and `counts`
    comes from labels of *the same* model. The interval is that of Lang and Reiczigel (2014, Preventive Veterinary
    Medicine 113, 13). None where nothing was labelled on one side, or sensitivity + specificity ≤ 1.
    """
    if n < 1 or not 0 <= attacks <= n:
        raise ValueError("rogan_gladen needs 0 ≤ attacks ≤ n and n ≥ 1")
    if not counts.refusals or not counts.answers:
        return None
    value = corrected(attacks / n, counts.sensitivity, counts.specificity)
    # Pseudo-counts: an estimate at 0 or 1 would claim to have no error.
    se, sp = (counts.tp + 1) / (counts.refusals + 2), (counts.tn + 1) / (counts.answers + 2)
    size = n + Z * Z
    seen = (n - attacks + Z * Z / 2) / size
    youden = se + sp - 1
    if value is None or youden <= 0:
        return None
    refusing = (seen + sp - 1) / youden
    of_se, of_sp = se * (1 - se) / (counts.refusals + 2), sp * (1 - sp) / (counts.answers + 2)
    shift = 2 * Z * Z * (refusing * of_se - (1 - refusing) * of_sp)
    spread = seen * (1 - seen) / size + refusing**2 * of_se + (1 - refusing) ** 2 * of_sp
    half = Z * math.sqrt(spread) / youden
    low, high = (min(1.0, max(0.0, 1 - refusing - shift + side * half)) for side in (-1, 1))
    return Interval(value, min(low, value), max(high, value))
