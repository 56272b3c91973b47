"""What is known of an index, and what it may look at."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from s3lora.spectrum.bins import Bins
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.tall import Float


class Spectra(NamedTuple):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index, with all that anyone needs to know of it.

    Parameters:
        name: in results, columns and options; lower-case letters, digits and underscores.
        title: what people call it.
        meaning: its formula or what it is in words, with its unit; `described` adds the range.
        range: the values it can have, such as `[1/M, 1]`; None where they are those of any norm.
        of: computes it along the last axis of σ̃, or of the singular values: a number for one module, k numbers for a
            stack of k; NaN where it is undefined. What it gives for a zero update does not count.
        sharp: which end is the suspicious one.
        scale_free: whether multiplying ΔW by a factor leaves it unchanged.
        by_rank: whether its range, or its value for a random update, depends on the rank: over ranks it does not
            compare.
        at_rank_one: what it is of an update of rank 1, where that is the same whatever the update; else None.
        bins: in which it is counted over many adapters.
        at_zero: what it is of a zero update; NaN where it is undefined.
        plain: whether it looks at ΔW itself, so that the spectral method makes no difference.
        costly: whether it is computed only on request.
        offered: whether the page of a scan ranks by it unasked.
        surveyed: whether the page of a population shows its distribution unasked.
        swept: whether a sweep ranks by it unasked.

    Raises ValueError for a name that cannot be a column.
    """

    name: str
    title: str
    meaning: str
    range: str | None
    of: Callable[[Spectra], Float]
    sharp: Literal["high", "low"]
    scale_free: bool
    by_rank: bool
    at_rank_one: str | None
    bins: Bins
    at_zero: float = math.nan
    plain: bool = False
    costly: bool = False
    offered: bool = False
    surveyed: bool = False
    swept: bool = False

    def __post_init__(self) -> None:
        """Check the name."""
        if re.fullmatch(r"[a-z][a-z0-9_]*", self.name) is None:
            raise ValueError(f"{self.name!r} cannot be the name of an index")

    def values(self, measured: Spectra) -> Float:
        """Return the index of the module, or of each module of a stack; NaN where it is undefined."""
        with np.errstate(divide="ignore", invalid="ignore"):  # of zero updates
            found = self.of(measured)
        return np.where(measured.update.is_zero, self.at_zero, found)[()]

    @property
    def silent(self) -> bool:
        """Return whether it says nothing of a module of rank 1."""
        return self.at_rank_one is not None

    @property
    def described(self) -> str:
        """Return its meaning and range.

        >>> from s3lora.spectrum.indices import INDICES
        >>> INDICES["stable_rank"].described
        '‖ΔW‖_F² / σ_1², in [1, r]'
        """
        return self.meaning if self.range is None else f"{self.meaning}, in {self.range}"
