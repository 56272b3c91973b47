"""New factors of higher rank → factors of the rank that the module had: what `--keep-rank` does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.model import Adapter
from s3lora.rewrite.factors import NewFactor, NewFactors, rounded
from s3lora.spectrum.nearest import core_svd


def truncate(factors: NewFactors, adapter: Adapter) -> tuple[NewFactors, float]:
    """Return factors in which no module has a higher rank than it had, and the share of energy that this lost.

    The nearest ΔW′ of the module's own rank: the largest singular values are kept, as B = U√Σ and A = √ΣVᵀ, computed
    in float64 and rounded once to the dtypes of the file. The share is Σ dropped σ² / Σ σ² over all modules, in
    [0, 1], before rounding; 0 where nothing was dropped. Modules of no higher rank stay as they are.

    Examples:
        >>> import numpy as np, s3lora
        >>> from s3lora.rewrite.factors import NewFactor, NewFactors
        >>> from s3lora.rewrite.truncate import truncate
        >>> with s3lora.open_adapter("my-adapter") as adapter:
        ...     first = adapter.modules[0]
        ...     twice = NewFactor(np.vstack([first.A.array()] * 2), np.hstack([first.B.array()] * 2))
        ...     kept, lost = truncate(NewFactors({first.path: twice}), adapter)
        >>> kept.modules[first.path].rank == first.rank, lost < 1e-9
        (True, True)

    Raises OutputError where the dtype of the file cannot hold the new factors.
    """
    kept: dict[str, NewFactor] = {}
    dropped = total = 0.0
    for module in adapter.modules:
        new = factors.modules.get(module.path)
        a, b = (module.A.array(), module.B.array()) if new is None else (new.A, new.B)
        scale = module.scaling.value**2
        if new is None or new.rank <= module.rank:
            total += scale * _energy(a.astype(np.float64), b.astype(np.float64))
            kept.update({} if new is None else {module.path: new})
            continue
        svd = core_svd(new.A, new.B)
        dropped += scale * float(np.square(svd.sigma[module.rank :]).sum())
        total += scale * float(np.square(svd.sigma).sum())
        kept[module.path] = rounded(module, *svd.balanced(svd.sigma, module.rank), new.bias)
    return NewFactors(kept), dropped / total if total else 0.0


def _energy(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return ‖B·A‖² from two r × r matrices."""
    return float(np.vdot(b.T @ b, a @ a.T))


__all__ = ["truncate"]
