"""ΔW of every module as a whole matrix, for tests of what is written anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s3lora import open_adapter

#: Of one rounding of each factor, relative to ‖ΔW‖_F; in float64, of the arithmetic of two decompositions.
ROUNDING = {"float64": 2**-42, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}


def updates(folder: Path) -> dict[str, np.ndarray]:
    """Return ΔW of every module, dense and in float64."""
    with open_adapter(folder) as adapter:
        return {
            one.path: one.scaling.value * one.B.array().astype(np.float64) @ one.A.array().astype(np.float64)
            for one in adapter.modules
        }


def best(whole: np.ndarray, rank: int) -> np.ndarray:
    u, sigma, vt = np.linalg.svd(whole, full_matrices=False)
    return (u[:, :rank] * sigma[:rank]) @ vt[:rank]
