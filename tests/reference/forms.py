"""Dense updates of adapters that are no pair of factors, by their definitions, out of the stored tensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Stored = Mapping[str, NDArray[Any]]


def hadamard(first: Float, second: Float) -> Float:
    """Return the entrywise product, entry by entry."""
    rows = zip(first.tolist(), second.tolist(), strict=True)
    return np.array([[a * b for a, b in zip(*pair, strict=True)] for pair in rows])


def kronecker(first: Float, second: Float) -> Float:
    """Return the Kronecker product, block by block."""
    return np.vstack([np.hstack([entry * second for entry in row]) for row in first])


def product(stored: Stored, name: str) -> Float:
    """Return a matrix that is stored whole, a kernel as (out, in·h·w), or as two factors `_a` and `_b`."""
    if name in stored:
        whole = np.asarray(stored[name], np.float64)
        return whole.reshape(len(whole), -1)
    return np.asarray(stored[f"{name}_a"], np.float64) @ np.asarray(stored[f"{name}_b"], np.float64)


def update(stored: Stored, path: str, prefix: str = "") -> Float:
    """Return ΔW without its scaling of the module at `path`, of whatever form it is.

    `prefix` is what stands before the path in keys.
    """
    own = {
        name.removeprefix(f"{prefix}{path}."): x for name, x in stored.items() if name.startswith(f"{prefix}{path}.")
    }
    if any(name.startswith("hada_") for name in own):
        return hadamard(product(own, "hada_w1"), product(own, "hada_w2"))
    if any(name.startswith("lokr_") for name in own):
        return kronecker(product(own, "lokr_w1"), product(own, "lokr_w2"))
    wide = {name.removesuffix(".weight"): np.asarray(x, np.float64) for name, x in own.items()}
    if "lora_E" in wide:
        return wide["lora_B"] @ np.diag(wide["lora_E"].ravel()) @ wide["lora_A"]
    if "vera_lambda_b" in wide:
        a, b = (np.asarray(stored[f"base_model.vera_{side}"], np.float64) for side in "AB")
        scale = wide["vera_lambda_b"]
        return np.diag(scale) @ b[: len(scale)] @ np.diag(wide["vera_lambda_d"]) @ a
    up, down = ("lora_up", "lora_down") if "lora_up" in wide else ("lora_B", "lora_A")
    return wide[up] @ wide[down]
