"""An adapter in a loaded model, with parts that gradients reach: gates on its directions, and a patch beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.adapter.tensor import Array
from s3lora.evaluate.attach import Attached, State
from s3lora.evaluate.local import LocalModel
from s3lora.needs import need
from s3lora.repair.canonical import Directions, canonical, factors_of
from s3lora.rewrite.factors import NewFactor, NewFactors


@dataclass
class LiveAdapter:
    """What can be learned of each module, by its path: `gates` (q,), `down` (ρ, n) and `up` (m, ρ) of a patch.

    `directions` are those of s·B·A. All tensors are leaves in float32 on the model's device.
    """

    model: LocalModel
    directions: Mapping[str, Directions]
    gates: dict[str, Any]
    down: dict[str, Any] = field(default_factory=dict)
    up: dict[str, Any] = field(default_factory=dict)

    @property
    def leaves(self) -> list[Any]:
        """Return all tensors that can be learned: gates, then patches."""
        return [leaf for part in (self.gates, self.down, self.up) for leaf in part.values()]

    def set_gates(self, value: float | Mapping[str, Sequence[float]]) -> None:
        """Give all gates one value, or each module its own."""
        torch = need("torch")
        for path, gate in self.gates.items():
            new = value[path] if isinstance(value, Mapping) else [value] * len(gate)
            gate.data.copy_(torch.tensor(new, dtype=gate.dtype))

    def gate_values(self) -> dict[str, tuple[float, ...]]:
        """Return the gates as they are now."""
        return {path: tuple(map(float, gate.detach().cpu())) for path, gate in self.gates.items()}


@contextmanager
def live(
    model: LocalModel, attached: Attached, modules: Sequence[LoraModule], *, patch: int = 0, seed: int = 0
) -> Iterator[LiveAdapter]:
    """Switch the adapter on with its factors as B = U√Σ, A = √ΣVᵀ, so that nothing depends on how it was factored.

    Parameters:
        model: the model it is attached to; afterwards the adapter is on as it was loaded.
        attached: the adapter.
        modules: those that gates and patches stand at.
        patch: the rank ρ of a patch beside each module; its `up` begins at 0, its `down` is drawn with `seed`.
    """
    torch = need("torch")
    directions = {module.path: canonical(module) for module in modules}
    scaling = {module.path: module.scaling.value for module in modules}
    whole = {path: _factor(one, scaling[path]) for path, one in directions.items()}
    model.adapters.use(State(attached, factors=NewFactors(whole)))
    device = model.device

    def leaf(values: Array) -> Any:
        return torch.tensor(values, dtype=torch.float32, device=device).requires_grad_(True)

    found = LiveAdapter(model, directions, {path: leaf(np.ones(len(one.sigma))) for path, one in directions.items()})
    rng = np.random.default_rng(seed)
    for module in modules if patch else ():
        found.down[module.path] = leaf(rng.standard_normal((patch, module.n)) / np.sqrt(module.n))
        found.up[module.path] = leaf(np.zeros((module.m, patch)))
    hooks = []
    try:
        for path in directions:
            layer = model.adapters.layer(path)
            hooks += _hooked(torch, found, path, layer.lora_A[attached.key], layer.lora_B[attached.key])
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        model.use(attached)


def _factor(directions: Directions, scaling: float) -> NewFactor:
    a, b = factors_of(directions, scaling)
    return NewFactor(a.astype(np.float32), b.astype(np.float32))


def _hooked(torch: Any, found: LiveAdapter, path: str, a: Any, b: Any) -> list[Any]:
    """Multiply what A gives by the gates, and add to what B gives what the patch makes of A's input."""
    seen: list[Any] = []

    def after_a(_: Any, given: Any, out: Any) -> Any:
        seen[:] = given
        gate = found.gates[path]
        return out * torch.nn.functional.pad(gate, (0, out.shape[-1] - len(gate))).to(out.dtype)

    def after_b(_: Any, __: Any, out: Any) -> Any:
        if path not in found.down:
            return out
        linear = torch.nn.functional.linear
        down, up = found.down[path].to(out.dtype), found.up[path].to(out.dtype)
        return out + linear(linear(seen[0], down), up)

    return [a.register_forward_hook(after_a), b.register_forward_hook(after_b)]
