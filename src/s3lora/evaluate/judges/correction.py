"""How far a rate of attacks can be off because of the judge: its confusion with people, a band, and a corrected rate.

With sensitivity Se (share of refusals that the judge calls refusals) and specificity Sp (share of other answers that it
does not), a share r of refusals is seen as `Se r + (1 − Sp)(1 − r)`. Solved for r that is the estimate of Rogan and
Gladen (1978, American Journal of Epidemiology 107, 71). Both differ so much from model to model that numbers of other
models give a band and no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from s3lora.statistics import Interval, Z, wilson


@dataclass(frozen=True, slots=True)
class Confusion:
    """How a judge and people agree on the answers of one model: counts of answers.

    `refused` of `refusals` answers that people call a full refusal are refusals to the judge, and `complied` of
    `compliances` answers that people call none are none to it. Partial refusals are counted apart, for they are
    neither: the judge calls `partly_refused` of `partial` refusals.
    """

    refused: int
    refusals: int
    complied: int
    compliances: int
    partly_refused: int = 0
    partial: int = 0

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        for part, whole in (
            (self.refused, self.refusals),
            (self.complied, self.compliances),
            (self.partly_refused, self.partial),
        ):
            if not 0 <= part <= whole:
                raise ValueError("a confusion needs counts with 0 ≤ part ≤ whole")

    @property
    def sensitivity(self) -> Interval | None:
        """Return the share of refusals that the judge sees, with Wilson's interval; None without any."""
        return wilson(self.refused, self.refusals) if self.refusals else None

    @property
    def specificity(self) -> Interval | None:
        """Return the share of other answers that the judge does not call refusals; None without any."""
        return wilson(self.complied, self.compliances) if self.compliances else None


def corrected(rate: float, sensitivity: float, specificity: float) -> float | None:
    """Return the rate of answers that are no refusals, from the rate that a judge saw, in [0, 1].

    None where sensitivity + specificity ≤ 1: such a judge tells no more than chance.

    >>> corrected(0.5, sensitivity=0.8, specificity=1.0)
    0.375
    """
    youden = sensitivity + specificity - 1
    if youden <= 0:
        return None
    return min(1.0, max(0.0, (rate + sensitivity - 1) / youden))


def band(rate: Interval, confusions: Iterable[Confusion]) -> tuple[float, float] | None:
    """Return between what the true rate of attacks lies if the judge errs here as on any of these models.

    From the ends of the rate's interval, under the lowest and the highest sensitivity and specificity that were
    measured. (0, 1) where the worst pair tells no more than chance. None where no model has both.
    """
    known = [c for c in confusions if c.sensitivity is not None and c.specificity is not None]
    if not known:
        return None
    sensitivities = [c.refused / c.refusals for c in known]
    specificities = [c.complied / c.compliances for c in known]
    # The corrected rate moves one way in each of the three numbers, so its extremes are at corners.
    corners = [
        corrected(end, se, sp)
        for end in (rate.low, rate.high)
        for se in (min(sensitivities), max(sensitivities))
        for sp in (min(specificities), max(specificities))
    ]
    if any(corner is None for corner in corners):
        return 0.0, 1.0
    found = [corner for corner in corners if corner is not None]
    return min(found), max(found)


def rogan_gladen(attacks: int, n: int, confusion: Confusion) -> Interval | None:
    """Return the corrected rate of attacks, with a 95 % interval that carries both uncertainties.

    `attacks` of `n` answers were no refusals to the judge, and `confusion` comes from labels of *the same* model. The
    interval is that of Lang and Reiczigel (2014, Preventive Veterinary Medicine 113, 13). None where nothing was
    labelled on one side, or sensitivity + specificity ≤ 1.
    """
    if n < 1 or not 0 <= attacks <= n:
        raise ValueError("rogan_gladen needs 0 ≤ attacks ≤ n and n ≥ 1")
    if not confusion.refusals or not confusion.compliances:
        return None
    value = corrected(attacks / n, confusion.refused / confusion.refusals, confusion.complied / confusion.compliances)
    # Pseudo-counts: an estimate at 0 or 1 would claim to have no error.
    se = (confusion.refused + 1) / (confusion.refusals + 2)
    sp = (confusion.complied + 1) / (confusion.compliances + 2)
    size = n + Z * Z
    seen = (n - attacks + Z * Z / 2) / size
    youden = se + sp - 1
    if value is None or youden <= 0:
        return None
    refusing = (seen + sp - 1) / youden
    of_se, of_sp = se * (1 - se) / (confusion.refusals + 2), sp * (1 - sp) / (confusion.compliances + 2)
    shift = 2 * Z * Z * (refusing * of_se - (1 - refusing) * of_sp)
    spread = seen * (1 - seen) / size + refusing**2 * of_se + (1 - refusing) ** 2 * of_sp
    half = Z * math.sqrt(spread) / youden
    low, high = (min(1.0, max(0.0, 1 - refusing - shift + side * half)) for side in (-1, 1))
    return Interval(value, min(low, value), max(high, value))
