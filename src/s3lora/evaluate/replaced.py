"""New factors of modules in a loaded model: put in place of those that PEFT loaded, and taken out again."""

from __future__ import annotations

from typing import Any

import numpy as np

from s3lora.adapter.tensor import Array
from s3lora.errors import UnsupportedAdapterError
from s3lora.needs import need
from s3lora.rewrite.factors import NewFactor


class ReplacedFactors:
    """The modules whose factors are not those of the file, and what they were before."""

    def __init__(self) -> None:
        """Start with none."""
        self._before: list[tuple[Any, Any]] = []

    def put(self, layer: Any, key: str, path: str, new: NewFactor) -> None:
        """Put new factors into a layer; raise UnsupportedAdapterError where PEFT built no pair of linear layers."""
        linear = need("torch").nn.Linear
        a, b = (layer.lora_A[key], layer.lora_B[key]) if key in layer.lora_A else (None, None)
        if not (isinstance(a, linear) and isinstance(b, linear)):
            raise UnsupportedAdapterError("it is no linear layer, whose factors alone can be changed", module=path)
        self._set(a.weight, _like(new.A, a.weight))
        self._set(b.weight, _like(new.B, b.weight))
        if b.bias is not None and new.bias != 1.0:
            self._set(b.bias, b.bias.data * new.bias)

    def undo(self) -> None:
        """Put all back as it was, bit for bit."""
        while self._before:
            parameter, values = self._before.pop()
            parameter.data = values

    def _set(self, parameter: Any, values: Any) -> None:
        self._before.append((parameter, parameter.data))
        parameter.data = values


def _like(values: Array, parameter: Any) -> Any:
    tensor = need("torch").from_numpy(np.array(values, dtype=np.float32))  # which holds each value of a shorter dtype
    return tensor.to(device=parameter.device, dtype=parameter.dtype)
