"""A penalty on sharp updates: an index of every module of a PEFT model, with gradients, and its mean."""

from __future__ import annotations

from typing import Any

from s3lora.adapter.memory import factor_tensors, lora_layers
from s3lora.adapter.model import natural_key
from s3lora.errors import NonFiniteError, UnsupportedAdapterError, UsageError
from s3lora.needs import need
from s3lora.training.spectra import spectra

#: Methods that have a differentiable form here.
METHODS = ("mas-svd", "svd")
#: Index → whether it is of the singular values of ΔW, whatever the method.
PENALTIES = {"ssi": False, "weighted_ssi": False, "energy": True}


def spectral_penalty(model: Any, index: str = "ssi", method: str = "mas-svd", *, adapter: str | None = None) -> Any:
    """Return the mean of an index over the modules of the adapter, a scalar that gradients pass through.

    It is added to a loss with a weight of one's own. Modules with ΔW = 0 are left out: at the start B is 0, and an
    index is not defined. Without any other module it is 0.

    SSI and energy do not change when ΔW is multiplied by a number, so their gradient grows as ΔW gets smaller: it is
    largest in the first steps.

    Examples:
        >>> from s3lora.training import spectral_penalty
        >>> loss = loss + 0.1 * spectral_penalty(model)  # doctest: +SKIP

    Parameters:
        model: a PEFT model with LoRA layers.
        index: `ssi`, in [1/r, 1]; `energy`, σ_1² / Σσ² in [1/r, 1]; or `weighted_ssi`, in the unit of ΔW.
        method: `mas-svd` or `svd`, for `ssi` and `weighted_ssi`.
        adapter: PEFT's name of the adapter; by default the active one.

    Raises:
        UsageError: no such index, method or adapter, no PEFT model, or weights that are sharded.
        NothingToAuditError: the model holds no LoRA layer.
        NonFiniteError: a factor holds NaN or infinity.
        UnsupportedAdapterError: fused experts or AdaLoRA.
    """
    torch = need("torch")
    found = list(spectral_values(model, index, method, adapter=adapter).values())
    if not found:
        return torch.zeros((), dtype=torch.float64)
    return torch.stack([one.to(found[0].device) for one in found]).mean()  # a model may lie on several devices


def spectral_values(
    model: Any, index: str = "ssi", method: str = "mas-svd", *, adapter: str | None = None
) -> dict[str, Any]:
    """Return the index of every module by its path, as scalars in float64 that gradients pass through.

    Modules with ΔW = 0 are left out. The values are those of `s3lora.scan`. Parameters and errors are those of
    `spectral_penalty`.
    """
    if index not in PENALTIES:
        raise UsageError(f"no penalty {index!r}", fix=f"choose one of {', '.join(PENALTIES)}")
    if method not in METHODS:
        raise UsageError(f"no differentiable method {method!r}", fix=f"choose one of {', '.join(METHODS)}")
    torch = need("torch")
    stacks: dict[tuple[Any, ...], list[Any]] = {}
    for path, a, b, scaling in _factors(model, adapter):
        stacks.setdefault((tuple(a.shape), tuple(b.shape), a.device), []).append((path, a, b, scaling))
    found: dict[str, Any] = {}
    for stack in stacks.values():
        paths = [one[0] for one in stack]
        A, B = (torch.stack([one[i].double() for one in stack]) for i in (1, 2))
        _check_finite(torch, paths, A, B)
        used = [i for i, moves in enumerate(_not_zero(torch, A, B).tolist()) if moves and stack[i][3]]
        if used:
            scaling = torch.tensor([stack[i][3] for i in used], dtype=torch.float64, device=A.device)
            values = _index(spectra(A[used], B[used], scaling, "svd" if PENALTIES[index] else method), index)
            found.update(zip([paths[i] for i in used], values, strict=True))
    return {path: found[path] for path in sorted(found, key=natural_key)}


def _index(sigma: Any, index: str) -> Any:
    """Return the index of each row of σ̃ (k × q), by the formulas of `s3lora.spectrum.indices`."""
    first = sigma[:, 0]
    if index == "energy":
        return first**2 / (sigma**2).sum(1)
    return (first if index == "ssi" else first**2) / sigma.sum(1)


def _factors(model: Any, adapter: str | None) -> list[tuple[str, Any, Any, float]]:
    """Return path, A (r × n), B (m × r) and s of every module, the tensors being those that are trained."""
    chosen, layers = lora_layers(model, adapter)
    found = []
    for name, layer in layers:
        pair = factor_tensors(name, layer, chosen)
        if pair is None:
            continue
        path, a, b = pair
        if chosen in getattr(layer, "lora_E", {}) or chosen in getattr(layer, "qalora_group_size", {}):
            raise UnsupportedAdapterError("the penalty is for plain LoRA and DoRA", module=path)
        if not a.numel() or not b.numel():
            raise UsageError("the weights are sharded over several processes", fix="train without sharding the adapter")
        # Of convolutions, as they are saved: the kernel lies in A.
        found.append((path, a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1), float(layer.scaling[chosen])))
    return found


def _check_finite(torch: Any, paths: list[str], A: Any, B: Any) -> None:
    finite = torch.isfinite(A).flatten(1).all(1) & torch.isfinite(B).flatten(1).all(1)
    for path, fine in zip(paths, finite.tolist(), strict=True):
        if not fine:
            raise NonFiniteError("holds NaN or infinity, so it has no spectrum", module=path)


def _not_zero(torch: Any, A: Any, B: Any) -> Any:
    """Return which updates are not zero, also where B and A cancel but for rounding."""
    with torch.no_grad():
        right = torch.linalg.qr(A.mT).Q
        product = torch.linalg.matrix_norm(B @ (A @ right))
        apart = torch.linalg.matrix_norm(A) * torch.linalg.matrix_norm(B)
        return product > 1e-14 * apart
