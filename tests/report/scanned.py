"""Adapters that tests make or find, as a page shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import s3lora
from s3lora.choose.rankings import survey
from s3lora.choose.rules import DEFAULT_RULE
from s3lora.choose.select import Filter, select
from s3lora.measure.scan import Scan, scan
from s3lora.report.documents import scan_document
from s3lora.report.scan_page import Reported, scan_page
from s3lora.spectrum.methods import METHODS
from tests.support import make_adapter

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


def wide(folder: Path, layers: int, rank: int) -> Path:
    """Write an adapter with seven projections a layer, as people train them, but narrow."""
    names = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    return make_adapter(
        folder, {f"model.layers.{i}.{name}": (rank, rank, rank) for i in range(layers) for name in names}
    )


def reported(path: Path, rule: Any = DEFAULT_RULE, *, index: str = "ssi", only: Filter | None = None,
             unit: Any = "module", combine: Any = "mean", change: Callable[[Scan], Scan] = lambda scan: scan,
             **more: Any) -> Reported:  # fmt: skip
    """Return an adapter with all its rankings, by every method that is fast; `change` is done to its scans."""
    scans = [change(scan(path, name)) for name, method in METHODS.items() if not method.dense]
    plan = select(scans[0], rule, index=index, only=only, unit=unit, combine=combine)
    ranked = survey(scans, index=index, only=only, unit=unit, combine=combine)
    values = {"path": path.name, "command": f"s3lora prune {path.name} -o PRUNED", **more}
    return Reported(document=scan_document(scans[0], plan), ranked=ranked, **values)


def page(path: Path, rule: Any = DEFAULT_RULE, **more: Any) -> str:
    """Return the page of one adapter."""
    return scan_page([reported(path, rule, **more)])
