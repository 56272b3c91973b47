"""What the released script of arXiv 2508.15068 computes, for reproducing its numbers only.

Three things follow from the script's own steps, and make it unfit for anything else. It walks over rows of U where
the left singular vectors are the columns, so its u depends on the basis that LAPACK happens to return for the null
space. It then builds a matrix of rank one, whose sharpness is 1 by construction, so that only the 1e-6 in its
denominator orders the modules, by the one singular value of that matrix. And where m > n the shapes do not fit and it
fails. docs/method.md has what follows from that, in figures.
"""

from __future__ import annotations

import numpy as np

from s3lora.spectrum.factored import FactoredUpdate

#: Added to row and column norms, and to the denominator of the index.
NORM_EPSILON = 1e-8
INDEX_EPSILON = 1e-6
#: Directions of either side that are tried.
DIRECTIONS = 5
#: Largest ΔW formed, in entries; the dense SVDs need some six times as much memory.
MAX_ENTRIES = 64 * 1024 * 1024


@np.errstate(over="raise", invalid="raise")
def released_value(update: FactoredUpdate) -> float:
    """Return the top singular value of the rescaled rank-one matrix: |d|·‖ρ ∘ u‖.

    The script leaves the scaling s out, and so does this. Cost O(m·n·min(m, n)).

    Raises ValueError where m > n, as the script does, and where ΔW is too large to be formed; FloatingPointError where
    a number exceeds float64.
    """
    m, n = update.shape
    if m > n:
        raise ValueError(f"the released script fails where m > n (here {m} × {n})")
    if m * n > MAX_ENTRIES:
        raise ValueError(f"the released script forms ΔW, and {m} × {n} is too large for that")
    delta = update.B.astype(np.float64) @ update.A.astype(np.float64)
    row_norms = np.linalg.norm(delta, axis=1, keepdims=True) + NORM_EPSILON
    column_norms = np.linalg.norm(delta, axis=0, keepdims=True) + NORM_EPSILON
    right = np.linalg.svd(delta / row_norms, full_matrices=False)[2][:DIRECTIONS]
    left = np.linalg.svd(delta / column_norms, full_matrices=False)[0][:DIRECTIONS]  # rows: the script's own slip
    best, value = np.inf, 0.0
    for u in left:
        for v in right:
            d = _lower_median((delta @ v) * u)
            cost = float(np.abs(delta - d * np.outer(u, v)).sum())
            if cost < best:
                best, value = cost, abs(d) * float(np.linalg.norm(row_norms[:, 0] * u)) * float(np.linalg.norm(v))
    return value


def _lower_median(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Return the lower of the two middle values, as torch.median does."""
    return float(np.sort(values)[(len(values) - 1) // 2])
