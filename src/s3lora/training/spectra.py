"""The spectra of `s3lora.spectrum` once more, in torch and with gradients, for stacks of modules of one shape.

Singular vectors are found without gradients and then held. With them σ_k = u_kᵀ·X·v_k, which has the value of σ_k and,
since ∂σ_k/∂X = u_k·v_kᵀ, its gradient. No difference of two singular values is divided by: where some coincide, their
sum and every other symmetric function still have the right gradient. What is zero but for rounding gets no gradient.

Write A = L·Qᵀ with orthonormal columns of Q. Norms of rows and singular values of X·Qᵀ are those of X, so that all is
done on ΔW·Q = s·B·L (m × r) and, for the columns, on Q_BᵀΔW (r × n).
"""

from __future__ import annotations

from typing import Any

from s3lora.needs import need

#: A singular value below this times the largest, or a norm below this times the longest, is zero but for rounding.
TINY = 1e-13


def spectra(A: Any, B: Any, scaling: Any, method: str) -> Any:
    """Return σ̃ (k × q) of k updates s·B·A in float64, descending, with q = min(r, m, n).

    Parameters:
        A: (k × r × n) lora_A.
        B: (k × m × r) lora_B; no update is zero.
        scaling: (k) s.
        method: `mas-svd` or `svd`.
    """
    torch = need("torch")
    A, B = A.double(), B.double()
    scaling = scaling.double().abs()[:, None]
    with torch.no_grad():
        right = torch.linalg.qr(A.mT).Q  # (k, n, q)
    by_rows = B @ (A @ right)  # (k, m, q): ΔW·Q / s
    count = min(A.shape[1], B.shape[1], A.shape[2])
    if method == "svd":
        return scaling * _values(torch, by_rows)[:, :count]
    with torch.no_grad():
        left = torch.linalg.qr(B).Q  # (k, m, q)
    by_columns = ((left.mT @ B) @ A).mT  # (k, n, q): ΔWᵀ·Q_B / s
    rows, columns = _norms(torch, by_rows), _norms(torch, by_columns)
    product = _values(torch, _unit(torch, by_rows, rows))[:, :count]
    product = product * _values(torch, _unit(torch, by_columns, columns))[:, :count]
    # METHOD: σ̃_k = √(ρ̄·s^r_k·γ̄·s^c_k), with the mean norms of the rows and of the columns of ΔW itself.
    scale = scaling * torch.sqrt(rows.mean(1, keepdim=True) * columns.mean(1, keepdim=True))
    positive = product > 0
    return scale * torch.where(positive, torch.where(positive, product, 1.0).sqrt(), 0.0)


def _norms(torch: Any, tall: Any) -> Any:
    """Return the norms (k × N) of the rows of k × N × q; that of a zero row has no gradient."""
    norms = torch.linalg.vector_norm(tall, dim=2)
    return torch.where(norms > TINY * norms.detach().amax(1, keepdim=True), norms, 0.0)


def _unit(torch: Any, tall: Any, norms: Any) -> Any:
    """Return the rows set to length 1; a zero row stays zero."""
    some = (norms > 0)[..., None]
    return torch.where(some, tall / torch.where(some, norms[..., None], 1.0), 0.0)


def _values(torch: Any, tall: Any) -> Any:
    """Return the singular values (k × q) of k × N × q, descending."""
    with torch.no_grad():
        q, r = torch.linalg.qr(tall)
        u, sigma, vh = torch.linalg.svd(r)
        u, v = q @ u, vh.mT
        found = sigma > TINY * sigma[:, :1]
    count = sigma.shape[1]
    values = (u[..., :count] * (tall @ v[..., :count])).sum(1)
    return torch.where(found, values, 0.0)
