"""Repairs with random factors, and what must be in the folder then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3lora import open_adapter
from s3lora.adapter.model import LoraModule
from s3lora.rewrite.factors import NewFactor, NewFactors, rounded
from s3lora.rewrite.repair_record import RecordedData, RepairFields
from s3lora.rewrite.repaired import write_repaired
from tests.planning import PREFIX, tensors_of
from tests.support import factors

Q0, V0, Q1, V1 = (f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qv")
SHAPES = {Q0: (48, 32, 4), V0: (24, 32, 4), Q1: (48, 32, 4), V1: (24, 32, 4)}
HOW = RepairFields(
    method="patch",
    settings={"rank": 2},
    strength=0.5,
    gates={Q0: (1.0, 0.25, 0.0, 1.0), V0: (0.5, 1.0, 1.0, 1.0)},
    data={"learning": (RecordedData("harmful", 32, "a" * 64),), "test": ()},
    limits={"utility_loss": 0.1},
    warnings=("a user's own data make a better repair",),
)


def new_factor(module: LoraModule, rank: int, seed: int = 7, bias: float = 1.0) -> NewFactor:
    """Return random factors of this rank as the file can hold them."""
    a, b = factors(module.m, module.n, rank, dtype="float64", seed=seed)
    return rounded(module, a, b, bias)


def repair_to(
    source: Path, out: Path, ranks: Mapping[str, int], how: RepairFields = HOW, **keywords: Any
) -> tuple[Path, NewFactors]:
    """Repair modules with random factors of these ranks; a rank of 0 stands for the module's own."""
    with open_adapter(source) as adapter:
        modules = {module.path: module for module in adapter.modules}
        made = {path: new_factor(modules[path], rank or modules[path].rank) for path, rank in ranks.items()}
        write_repaired(adapter, NewFactors(made), how, out, **keywords)
    return out, NewFactors(made)


def matches(folder: Path, made: NewFactors, source: Path) -> None:
    """Check every tensor of a folder, bit for bit, against the new factors and the source."""
    expected = {name: value.tobytes() for name, value in tensors_of(source).items()}
    for path, new in made.modules.items():
        for letter, value in (("A", new.A), ("B", new.B)):
            expected[f"{PREFIX}{path}.lora_{letter}.weight"] = value.tobytes()
    assert {name: value.tobytes() for name, value in tensors_of(folder).items()} == expected
