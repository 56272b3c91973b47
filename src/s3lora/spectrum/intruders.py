"""Intruder dimensions: directions among the largest of W + ΔW that W has not.

Shuttleworth, Andreas, Torralba & Sharma, LoRA vs Full Fine-tuning: An Illusion of Equivalence (arXiv 2410.21228,
algorithm 1): of the k left singular vectors y of W + ΔW with the largest singular values, those are counted that have
|cos(y, x)| < ε with every left singular vector x of W. Their released code, and PEFT's, take k = 10 and ε = 0.5, and so
does this. All x are known of a small matrix; of a large one the `COMPARED` largest are, which can only count more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from s3lora.spectrum.dense import DenseMatrix
from s3lora.spectrum.leading import LeadingDirections, is_exact, leading
from s3lora.spectrum.tall import Float

__all__ = ["COMPARED", "INTRUDER_COSINE", "INTRUDER_DIRECTIONS", "Intruders", "base_directions", "intruders"]

#: k and ε as published.
INTRUDER_DIRECTIONS, INTRUDER_COSINE = 10, 0.5
#: Directions of a large W that are looked for.
COMPARED = 64


class Intruders(NamedTuple):
    """How many intruders were found among the `directions` largest of W + ΔW, and with how many of W compared."""

    found: int
    directions: int
    compared: int


def base_directions(weight: DenseMatrix, seed: int = 0) -> LeadingDirections:
    """Return the directions of W that others are compared with: all of a small matrix."""
    return leading(weight, min(weight.shape) if is_exact(weight.shape) else COMPARED, seed)


def intruders(base: LeadingDirections, tuned: DenseMatrix, seed: int = 0) -> Intruders:
    """Count the intruders in W + ΔW.

    >>> from s3lora.spectrum.dense import dense
    >>> weight, update = np.diag([3.0, 2.0, 1.0]), np.zeros((3, 3))
    >>> update[0, 0] = 0.1
    >>> intruders(base_directions(dense(weight)), dense(weight + update)).found
    0
    """
    found = leading(tuned, INTRUDER_DIRECTIONS, seed)
    cosines: Float = np.abs(base.left.T @ found.left)  # (compared, k)
    count = int(np.sum(np.max(cosines, axis=0) < INTRUDER_COSINE))
    return Intruders(count, found.left.shape[1], base.left.shape[1])
