"""New factors of modules, rounded once to what the file can hold: what is measured is then what is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.adapter.tensor import Array
from s3lora.adapter.tensors import numpy_dtype
from s3lora.errors import OutputError


@dataclass(frozen=True, slots=True)
class NewFactor:
    """The new A (r′, n) and B (m, r′) of one module, in the dtypes they are stored in; r′ may differ from r.

    ΔW′ = s·B·A with the scaling s that the module had. `bias` is what a trained bias of lora_B is multiplied by.
    """

    A: Array
    B: Array
    bias: float = 1.0

    @property
    def rank(self) -> int:
        """Return r′."""
        return int(self.A.shape[0])


@dataclass(frozen=True, slots=True)
class NewFactors:
    """New factors by the path of their module; modules that are not named keep their tensors, bit for bit."""

    modules: Mapping[str, NewFactor] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Return a digest of all values; empty where nothing changes."""
        if not self.modules:
            return ""
        digest = hashlib.sha256()
        for path, new in sorted(self.modules.items()):
            for array in (new.A, new.B):
                digest.update(f"{path} {array.dtype} {array.shape} {new.bias!r} ".encode("utf-8", "surrogatepass"))
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


#: Nothing changes.
NO_FACTORS = NewFactors()


def rounded(module: LoraModule, a: Array, b: Array, bias: float = 1.0) -> NewFactor:
    """Return new factors as the file can hold them; raise OutputError where its dtype cannot.

    Parameters:
        module: whose factors they are.
        a: (r′, n), float64.
        b: (m, r′), float64.
        bias: what a trained bias of lora_B is multiplied by.
    """
    return NewFactor(_rounded(module, "A", a), _rounded(module, "B", b), bias)


def _rounded(module: LoraModule, side: str, values: Array) -> Array:
    stored = (module.A if side == "A" else module.B).parts[0].tensor.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(numpy_dtype(stored))
    if np.isfinite(result.astype(np.float64)).all():
        return result
    fix = "save the adapter in float32 or bfloat16 first"
    problem = f"the new lora_{side} does not fit into {stored}"
    raise OutputError(problem, module=module.path, shape=values.shape, fix=fix)


__all__ = ["NO_FACTORS", "NewFactor", "NewFactors", "rounded"]
