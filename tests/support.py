"""What several tests need: the folder of real adapters, and writers of small made-up ones."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

Tensors = Mapping[str, np.ndarray[Any, Any]]

#: NumPy or ml_dtypes name → safetensors name, written out here so that the tests do not believe the code's table.
CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
    "int64": "I64",
    "int32": "I32",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def shared() -> Path:
    """Return the folder with the real adapters, or skip the test."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("S3LORA_SHARED", default))
    if not (folder / "adapters").is_dir():
        pytest.skip("the real adapters are not here; set S3LORA_SHARED to the folder that holds adapters/")
    return folder


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype called `name`, of ml_dtypes where NumPy has none."""
    return np.dtype(getattr(ml_dtypes, name, name))


def safetensors_bytes(tensors: Tensors, metadata: Mapping[str, str] | None = None, pad: int = 8) -> bytes:
    """Return a safetensors file; the header's length is a multiple of `pad` (1: wherever it ends)."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = {
            "dtype": CODES[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % pad)
    return struct.pack("<Q", len(text)) + text + data


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None, *, pad: int = 8) -> Path:
    """Write a safetensors file by hand and return its path."""
    path.write_bytes(safetensors_bytes(tensors, metadata, pad))
    return path


def factors(m: int, n: int, r: int, *, dtype: str = "float32", seed: int = 0) -> tuple[Any, Any]:
    """Return random (A, B) of shapes (r, n) and (m, r)."""
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(r, n)).astype(dtype_of(dtype)),
        generator.normal(size=(m, r)).astype(dtype_of(dtype)),
    )


def make_adapter(
    folder: Path,
    modules: Mapping[str, tuple[int, int, int]],
    *,
    dtype: str = "float32",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    zero_b: Iterable[str] = (),
    heads: Tensors | None = None,
) -> Path:
    """Write a PEFT adapter folder with random factors for `modules`, {path: (m, n, r)}.

    `config` overrides fields of the configuration, `zero_b` names modules that were never trained, and `heads` are
    further tensors, without `base_model.model.`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    untrained = set(zero_b)
    for i, (path, (m, n, r)) in enumerate(modules.items()):
        a, b = factors(m, n, r, dtype=dtype, seed=seed * 100_003 + i)
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = np.zeros_like(b) if path in untrained else b
    tensors.update({f"base_model.model.{name}": values for name, values in (heads or {}).items()})
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    rank = next(iter(modules.values()))[2] if modules else 8
    fields: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base-model",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted({path.rpartition(".")[2] for path in modules}),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps({**fields, **(config or {})}))
    return folder
