"""Adapters to convert, and what converted files hold: read by no code of the package."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

import s3lora
from tests.support import dtype_of, factors, write_safetensors

PREFIX = "base_model.model."
UPDATE = dict[str, np.ndarray[Any, Any]]


def converted(source: Path, out: Path, to: str = "peft", **wishes: Any) -> s3lora.ConversionRecord:
    with s3lora.open_adapter(source) as adapter:
        return s3lora.write_converted(s3lora.convert(adapter, to, **wishes), out)[0]


def dense(folder: Path) -> UPDATE:
    """Return s·B·A of every module of a PEFT folder, by PEFT's own rule and no code of the package."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = stored(folder / "adapter_model.safetensors")
    made = {}
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        path = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        b = tensors[name.replace("lora_A", "lora_B")].astype(np.float64)
        alpha = config["alpha_pattern"].get(path, config["lora_alpha"])
        assert config["rank_pattern"].get(path, config["r"]) == len(a)
        scale = alpha / (math.sqrt(len(a)) if config["use_rslora"] else len(a))
        made[path] = scale * b.reshape(len(b), -1) @ a.reshape(len(a), -1).astype(np.float64)
    return made


def stored(path: Path) -> UPDATE:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    found = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(raw[begin:end], dtype_of(names[entry["dtype"]])).reshape(entry["shape"])
    return found


def peft_folder(folder: Path, ranks: dict[str, int], dtype: str = "float32", **fields: Any) -> tuple[Path, UPDATE]:
    """Write an adapter of 12 × 20 updates; return it, and its updates for alpha 6 without rsLoRA."""
    folder.mkdir(parents=True)
    tensors, updates = {}, {}
    for seed, (path, rank) in enumerate(ranks.items()):
        a, b = factors(12, 20, rank, dtype=dtype, seed=seed)
        tensors[f"{PREFIX}{path}.lora_A.weight"], tensors[f"{PREFIX}{path}.lora_B.weight"] = a, b
        scale = 6 / (math.sqrt(rank) if fields.get("use_rslora") else rank)
        updates[path] = scale * b.astype(np.float64) @ a.astype(np.float64)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    first = next(iter(ranks.values()))
    pattern = {path: rank for path, rank in ranks.items() if rank != first}
    config = {"peft_type": "LORA", "r": first, "lora_alpha": 6, "rank_pattern": pattern, "alpha_pattern": {},
              "target_modules": ["q_proj", "v_proj"], "use_rslora": False, **fields}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder, updates


def same(found: UPDATE, expected: UPDATE, tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for path, update in expected.items():
        assert np.linalg.norm(found[path] - update) <= tolerance * np.linalg.norm(update), path


def gguf_content(path: Path) -> tuple[dict[str, Any], UPDATE]:
    """Return the keys and the tensors of a GGUF file, read by the format's description and no code of the package."""
    raw = path.read_bytes()
    magic, version, count, many = struct.unpack_from("<4sIQQ", raw)
    assert (magic, version) == (b"GGUF", 3)
    at = 24
    keys: dict[str, Any] = {}

    def text() -> str:
        nonlocal at
        size = struct.unpack_from("<Q", raw, at)[0]
        at += 8 + size
        return raw[at - size : at].decode()

    def number(form: str) -> Any:
        nonlocal at
        at += struct.calcsize(f"<{form}")
        return struct.unpack_from(f"<{form}", raw, at - struct.calcsize(f"<{form}"))[0]

    for _ in range(many):
        key, kind = text(), number("I")
        keys[key] = text() if kind == 8 else number({4: "I", 6: "f"}[kind])
    entries = []
    for _ in range(count):
        name = text()
        shape = [number("Q") for _ in range(number("I"))][::-1]
        entries.append((name, shape, {0: "float32", 1: "float16", 30: "bfloat16"}[number("I")], number("Q")))
    start = -(-at // 32) * 32
    return keys, {name: np.frombuffer(raw, dtype_of(kind), math.prod(shape), start + offset).reshape(shape)
                  for name, shape, kind, offset in entries}  # fmt: skip
