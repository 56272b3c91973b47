"""New factors of higher rank → factors of the rank that the module had: what `--keep-rank` does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.model import Adapter, LoraModule
from s3lora.rewrite.factors import NewFactor, NewFactors, rounded


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
        (a, b), sigma = _nearest(module, new)
        dropped += scale * float(np.square(sigma[module.rank :]).sum())
        total += scale * float(np.square(sigma).sum())
        kept[module.path] = rounded(module, a, b, new.bias)
    return NewFactors(kept), dropped / total if total else 0.0


def _energy(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return ‖B·A‖² from two r × r matrices."""
    return float(np.vdot(b.T @ b, a @ a.T))


def _nearest(
    module: LoraModule, new: NewFactor
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """Return the balanced A (r, n) and B (m, r) nearest to B′·A′, and its singular values, without ever forming it."""
    q_b, r_b = np.linalg.qr(new.B.astype(np.float64))  # (m, k), (k, r′)
    q_a, r_a = np.linalg.qr(new.A.astype(np.float64).T)  # (n, l), (l, r′)
    left, sigma, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    size = min(module.rank, len(sigma))
    root = np.sqrt(sigma[:size])
    a, b = np.zeros((module.rank, module.n)), np.zeros((module.m, module.rank))
    a[:size], b[:, :size] = (right[:size].T * root).T @ q_a.T, q_b @ (left[:, :size] * root)
    return (a, b), sigma


__all__ = ["truncate"]
