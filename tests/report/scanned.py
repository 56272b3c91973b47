"""Adapters that tests make or find, as a page shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import s3lora
from s3lora.choose.rankings import survey
from s3lora.choose.rules import DEFAULT_RULE
from s3lora.choose.select import Filter, select
from s3lora.measure.published import among_published
from s3lora.measure.scan import Scan, scan
from s3lora.report.documents import scan_document
from s3lora.report.scan_page import Reported, scan_page
from s3lora.spectrum.methods import METHODS
from tests.support import factors, make_adapter, write_safetensors

DEMO = Path(s3lora.__file__).parent / "data" / "demo-adapter"
PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")


def mixed(folder: Path, layers: int = 8) -> Path:
    """Write an adapter with modules of several shapes and ranks, untrained ones, and one without a layer."""
    modules = {
        f"model.layers.{layer}.{name}": (24 + 4 * (i % 2), 24, 4 + 2 * (layer % 2))
        for layer in range(layers)
        for i, name in enumerate(PROJECTIONS)
    }
    modules["lm_head"] = (40, 24, 4)
    return make_adapter(folder, modules, zero_b=("model.layers.2.self_attn.q_proj", "model.layers.3.mlp.down_proj"))


def comparable(folder: Path) -> Path:
    """Write an adapter whose modules are compared with published ones, all but the last; one role has another rank."""
    names = {"self_attn.q_proj": 8, "self_attn.v_proj": 8, "mlp.down_proj": 6, "mlp.gate": 8}
    modules = {
        f"model.layers.{layer}.{name}": (1536, 1536, rank) if name == "mlp.down_proj" else (768, 768, rank)
        for layer in range(3)
        for name, rank in names.items()
    }
    tensors = {}
    for seed, (name, (m, n, r)) in enumerate(modules.items()):
        a, b = factors(m, n, r, seed=seed)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        # Some sharper than others.
        tensors[f"base_model.model.{name}.lora_B.weight"] = (b * (0.4 + 0.05 * seed) ** np.arange(r)).astype(np.float32)
    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "rank_pattern": {"down_proj": 6}}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def wide(folder: Path, layers: int, rank: int) -> Path:
    """Write an adapter with seven projections a layer, as people train them, but narrow."""
    names = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    return make_adapter(
        folder, {f"model.layers.{i}.{name}": (rank, rank, rank) for i in range(layers) for name in names}
    )


def many(folder: Path, rank: int, experts: int = 256, layers: int = 48) -> Reported:
    """Return an adapter of 3 × `experts` × `layers` modules, by three methods, out of a few that are measured."""
    names = ("gate_proj", "up_proj", "down_proj")
    few = make_adapter(
        folder, {f"model.layers.0.mlp.experts.{i}.{name}": (64, 48, rank) for i in range(4) for name in names}
    )
    random = np.random.default_rng(7)

    def grown(measured: Scan) -> Scan:
        modules = []
        for layer in range(layers):
            for expert in range(experts):
                for name in names:
                    model = measured.modules[(3 * expert + names.index(name)) % len(measured.modules)]
                    sigma = np.sort(random.uniform(0.2, 1.0, rank) * random.uniform(5, 9))[::-1]
                    ssi, norm, largest = sigma[0] / sigma.sum(), float(np.sqrt((sigma**2).sum())), float(sigma[0])
                    indices = {
                        "ssi": float(ssi),
                        "magnitude": largest,
                        "frobenius": norm,
                        "weighted_ssi": float(ssi) * norm,
                        "stable_rank": (norm / largest) ** 2,
                        "normalised_ssi": None if rank == 1 else float((rank * ssi - 1) / (rank - 1)),
                    }
                    modules.append(
                        replace(
                            model,
                            path=f"model.layers.{layer}.mlp.experts.{expert}.{name}",
                            layer=layer,
                            expert=expert,
                            projection=name,
                            sigma=tuple(sigma.tolist()),
                            indices=model.indices | indices,
                        )
                    )
        return replace(measured, modules=tuple(modules))

    scans = [grown(scan(few, name)) for name, method in METHODS.items() if not method.dense]
    plan = select(scans[0])
    return Reported(document=scan_document(scans[0], plan), ranked=survey(scans), path="many")  # fmt: skip


def reported(path: Path, rule: Any = DEFAULT_RULE, *, index: str = "ssi", only: Filter | None = None,
             unit: Any = "module", combine: Any = "mean", change: Callable[[Scan], Scan] = lambda scan: scan,
             against: bool = False, **more: Any) -> Reported:  # fmt: skip
    """Return an adapter with all its rankings, by every method that is fast; `change` is done to its scans.

    With `against` it is compared with published ones.
    """
    scans = [change(scan(path, name)) for name, method in METHODS.items() if not method.dense]
    plan = select(scans[0], rule, index=index, only=only, unit=unit, combine=combine)
    ranked = survey(scans, index=index, only=only, unit=unit, combine=combine)
    values = {"path": path.name, "command": f"s3lora prune {path.name} -o PRUNED", **more}
    published = among_published(scans[0]) if against else None
    return Reported(document=scan_document(scans[0], plan, published=published), ranked=ranked, **values)


def page(path: Path, rule: Any = DEFAULT_RULE, **more: Any) -> str:
    """Return the page of one adapter."""
    return scan_page([reported(path, rule, **more)])
