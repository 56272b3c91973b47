"""The index of random Gaussian updates: what sharpness chance alone gives, for each shape and rank."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from s3lora.choose.ranking import Context
from s3lora.errors import SelectionError
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import Spectra
from s3lora.spectrum.methods import METHODS, Options

#: Numbers drawn at a time, 4 MB.
TOGETHER = 1 << 19


def null_sharpness(shape: tuple[int, int, int], context: Context, q: float, draws: int, seed: int) -> float:
    """Return the q-quantile of the sharpness (index, signed so that sharp is high) of seeded Gaussian factors.

    `shape` is (m, n, rank). Each shape has a stream of random numbers of its own, so that the result for one shape
    does not depend on which others are asked for.
    """
    method = METHODS[context.method]
    if context.index is None or method.dense:
        cheap = [name for name, one in METHODS.items() if not one.dense]
        raise SelectionError(f"the null rule needs a spectral index of {' or '.join(', '.join(cheap).rsplit(', ', 1))}")
    if method.fits and context.fit != "l2":
        raise SelectionError(f"the null rule is not simulated for the fit {context.fit}", fix="scan with the fit l2")
    m, n, rank = shape
    random = np.random.default_rng((seed, m, n, rank))
    options = Options(rank=context.components)
    values = np.zeros(draws)
    with threadpool_limits(limits=1, user_api="blas"):
        together = max(1, TOGETHER // (rank * (m + n)))
        for start in range(0, draws, together):
            count = min(together, draws - start)
            pairs = [(random.standard_normal((rank, n)), random.standard_normal((m, rank))) for _ in range(count)]
            stack = FactoredUpdate([a for a, _ in pairs], [b for _, b in pairs], [1.0] * count)
            values[start : start + count] = context.index.values(Spectra(method.of(stack, options), stack))
    sign = 1.0 if context.index.sharp == "high" else -1.0
    # "higher" takes a value that was drawn: no interpolation towards what was not seen.
    return float(np.quantile(sign * values, q, method="higher"))
