"""Made-up scans and plans, and an oracle: the dense updates of an adapter folder, read without the code under test."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load_file

from s3lora import Choice, Mode, ModuleScan, Plan, Remove, Scan, open_adapter, prune, scan, write_pruned
from s3lora.adapter.digest import Source
from s3lora.adapter.model import path_parts
from s3lora.choose.select import Share, share_of
from s3lora.measure.configuration import Configuration
from s3lora.rewrite.modes import MODES
from s3lora.rewrite.provenance import Provenance
from s3lora.spectrum.factored import EPSILON
from tests.spectrum.cases import gaussian
from tests.support import make_adapter, write_safetensors

PREFIX = "base_model.model."


def record(path: str, value: float | None = 0.5, *, rank: int = 4, zero: bool = False, **indices: float) -> ModuleScan:
    """Return a module's record whose SSI is `value`, with further indices by name."""
    layer, projection, expert = path_parts(path)
    return ModuleScan(
        path=path,
        layer=layer,
        projection=projection,
        expert=expert,
        kind="linear",
        shape=(16, 12),
        rank=rank,
        dtype="float32",
        scaling=1.0,
        scaling_origin="alpha/r",
        dora=False,
        parameters=rank * 28,
        zero=zero,
        sigma=() if zero else (1.0,) * rank,
        indices={"ssi": None if zero else value, "frobenius": 0.0 if zero else 1.0, **indices},
    )


def scan_of(records: Iterable[ModuleScan], **configuration: Any) -> Scan:
    """Return a scan of these records."""
    return Scan(
        configuration=Configuration(**configuration),
        source=Source("made-up", "peft", None, (), None),
        warnings=(),
        modules=tuple(records),
    )


def plan_of(measured: Scan, paths: Iterable[str], *, flat: bool = False) -> Plan:
    """Return a plan that chooses `paths`, for whatever reason."""
    chosen = tuple(Choice(path, 0.5, i + 1, "by hand") for i, path in enumerate(paths))
    return Plan(
        index="ssi",
        rule="by hand",
        unit="module",
        combine="mean",
        only="",
        seed=0,
        candidates=len(measured.modules),
        flat=flat,
        chosen=chosen,
        share=share_of(measured, {choice.path for choice in chosen}),
        warnings=(),
    )


def provenance_of(
    source: Source,
    paths: Iterable[str],
    action: str = "removed",
    *,
    zeroed: Iterable[str] = (),
    warnings: Iterable[str] = (),
    configuration: Configuration | None = None,
    **plan: Any,
) -> Provenance:
    """Return a made-up record of a pruning; `plan` holds fields of its plan."""
    chosen = tuple(Choice(path, 0.5, i + 1, "sharp") for i, path in enumerate(paths))
    share = Share(len(chosen), 10, 20, 100, 0.3, 0.2)
    fields = {"index": "ssi", "rule": "top 2", "unit": "module", "combine": "mean", "only": "", "seed": 0}
    fields |= {"candidates": 10, "flat": False, "chosen": chosen, "share": share, "warnings": ()}
    mode = next(mode for mode in MODES.values() if mode.action == action)()
    return Provenance(
        configuration=configuration or Configuration(),
        source=source,
        plan=Plan(**{**fields, **plan}),
        mode=mode.name,
        settings=msgspec.to_builtins(mode),
        loader="peft",
        bake=False,
        zeroed=dict.fromkeys(zeroed, "is needed"),
        warnings=tuple(warnings),
        written=(),
    )


def prune_to(
    source: Path,
    out: Path,
    paths: Iterable[str],
    mode: Mode | None = None,
    *,
    loader: str = "peft",
    bake: bool = False,
    drop: Sequence[Any] = (),
    **keywords: Any,
) -> Path:
    """Prune `paths` from the adapter at `source` into the folder `out` and return it."""
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        pruned = prune(adapter, plan_of(measured, paths), mode or Remove(), loader=loader, bake=bake, drop=drop)
        write_pruned(pruned, measured, out, **keywords)
    return out


def tensors_of(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return all tensors of a folder's safetensors files, read by the safetensors library."""
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def config_of(folder: Path) -> dict[str, Any]:
    """Return the configuration of an adapter folder."""
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return config


def dense(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return ΔW = s·B·A by module path in float64, the scaling computed as PEFT documents it."""
    config, tensors = config_of(folder), tensors_of(folder)
    updates = {}
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        path = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        b = tensors[name.replace("lora_A", "lora_B")]
        rank = _matching(config.get("rank_pattern"), path, config["r"])
        alpha = _matching(config.get("alpha_pattern"), path, config["lora_alpha"])
        scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        if len(a) != rank:
            raise ValueError(f"PEFT would not load {path}: rank {len(a)}, configured {rank}")
        updates[path] = scaling * b.astype(np.float64) @ a.astype(np.float64)
    return updates


def _matching(table: Mapping[str, float] | None, path: str, default: float) -> float:
    return next((value for key, value in (table or {}).items() if re.match(rf"(.*\.)?({key})$", path)), default)


def shaken(measured: Scan, seed: int, ulps: int = 1000) -> Scan:
    """Return a scan with every index off by so many units in the last place, as other kernels might give it."""
    random = np.random.default_rng(seed)

    def off(value: float | None) -> float | None:
        return None if value is None else value * (1 + int(random.integers(-ulps, ulps + 1)) * EPSILON)

    modules = [dataclasses.replace(m, indices={n: off(v) for n, v in m.indices.items()}) for m in measured.modules]
    return dataclasses.replace(measured, modules=tuple(modules))


def alike(folder: Path, kinds: int = 3, copies: int = 6) -> Path:
    """Write an adapter of modules that are the same but for the order of their rows, columns and components."""
    path = make_adapter(folder, {f"model.layers.{i}.q_proj": (48, 40, 6) for i in range(kinds * copies)})
    tensors = {}
    for i in range(kinds * copies):
        A, B = gaussian(48, 40, 6, seed=i % kinds)
        random = np.random.default_rng(i)
        rows, columns, inner = (random.permutation(size) for size in (48, 40, 6))
        name = f"base_model.model.model.layers.{i}.q_proj"
        tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(A[inner][:, columns]).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(B[rows][:, inner]).astype(np.float32)
    write_safetensors(path / "adapter_model.safetensors", tensors, {"format": "pt"})
    return path
