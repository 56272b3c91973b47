"""What is known of a spectral method, and what it can be told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.tall import Float


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A spectral method, with all that anyone needs to know of it.

    Parameters:
        name: in results and options; lower-case letters, digits and hyphens.
        of: turns the update of one module into M numbers, or those of k modules into k × M, in descending order.
        scales: whether multiplying ΔW by a factor multiplies σ̃ by it; else a sum of adapters has no value by it.
        dense: whether it forms ΔW. It is then used only where it is asked for by name, and not for thousands of draws
            or adapters: no fleet, no null rule, and no page beside the method that was asked for.
        fits: whether the options `fit` and `sample` make a difference.
        epsilon: what it adds to the denominator of an index.
        undefined: for which shapes (m, n) it gives nothing; None where it is defined for all.
        undefined_for: those shapes in words, with the reason.

    Raises ValueError for a name that cannot be an option.
    """

    name: str
    of: Callable[[FactoredUpdate, Options], Float]
    scales: bool = True
    dense: bool = False
    fits: bool = False
    epsilon: float = 0.0
    undefined: Callable[[int, int], bool] | None = None
    undefined_for: str = ""

    def __post_init__(self) -> None:
        """Check the name."""
        if re.fullmatch(r"[a-z][a-z0-9-]*", self.name) is None:
            raise ValueError(f"{self.name!r} cannot be the name of a method")

    def defined(self, m: int, n: int) -> bool:
        """Return whether it gives something for an update of this shape.

        >>> from s3lora.spectrum.methods import METHODS
        >>> METHODS["svd"].defined(8, 4), METHODS["released"].defined(8, 4)
        (True, False)
        """
        return self.undefined is None or not self.undefined(m, n)
