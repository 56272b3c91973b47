"""What the numbers of published adapters say, for `docs/normal.md`; each is computed here, and none is copied.

The numbers lie in a folder with `modules.parquet` and `sources.tsv`; see `docs/make_published.py`.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from docs.make_published import GRID, Module, cells, modules_of, quantiles, usable
from s3lora.measure.cells import band
from s3lora.measure.null_energy import null_energy
from s3lora.measure.roles import role_of
from s3lora.statistics import spearman

Float = NDArray[np.float64]
#: Index → its column.
COLUMNS = {"energy": "svd_energy", "normalised SSI": "mas_normalised_ssi", "SSI": "mas_ssi"}
#: What may explain the variance → the group of a module. Layers are tenths of the depth.
FACTORS: dict[str, Callable[[Module], Hashable]] = {
    "rank": lambda module: module["rank"],
    "role": lambda module: (module["role"], module["stack"]),
    "layer": lambda module: None if module["layer_share"] is None else min(int(10 * module["layer_share"]), 9),
    "architecture": lambda module: module["arch"],
}
OWNERS: dict[str, Callable[[Module], Hashable]] = {
    "repository": lambda module: module["source"],
    "adapter": lambda module: module["adapter"],
}


def measured(module: Module) -> bool:
    """Return whether a module has every index: it is of rank 2 or more, and was measured."""
    return module["rank"] > 1 and all(module[column] is not None for column in COLUMNS.values())


def all_modules(folder: Path) -> list[Module]:
    """Return the modules of all files that were read."""
    import pyarrow.parquet as pq

    rows: list[Module] = pq.read_table(folder / "modules.parquet").to_pylist()
    return rows


def all_files(folder: Path) -> list[dict[str, str]]:
    """Return a row for every file, those that could not be read among them."""
    with open(folder / "sources.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def bands(modules: Sequence[Module]) -> dict[str, dict[str, Any]]:
    """Return, for each band of ranks, the numbers of adapters and sources and quantiles of the indices, each alike."""
    found = {}
    for name in ("2-4", "5-8", "9-16"):
        own = [module for module in modules if measured(module) and band(module["rank"]) == name]
        owners = [module["adapter"] for module in own]
        found[name] = {
            "adapters": len(set(owners)),
            "sources": len({module["source"] for module in own}),
            **{
                index: quantiles([module[column] for module in own], owners, (0.05, 0.5, 0.95))
                for index, column in COLUMNS.items()
            },
        }
    return found


def explained(modules: Sequence[Module], column: str) -> dict[str, float]:
    """Return the share of the variance of an index that each factor explains, and several together.

    Each adapter weighs alike. A factor's share is that of the means of its groups; `together` adds those of `FACTORS`
    in a linear model, without interactions.
    """
    own = [module for module in modules if measured(module)]
    y = np.array([module[column] for module in own], dtype=float)
    owners = [module["adapter"] for module in own]
    _, place, counts = np.unique(owners, return_inverse=True, return_counts=True)
    weight = 1 / counts[place]
    groups = {name: _numbers([of(module) for module in own]) for name, of in {**FACTORS, **OWNERS}.items()}
    found = {name: _share(y, weight, _means(y, weight, group)) for name, group in groups.items()}
    design = np.hstack([np.eye(group.max() + 1)[group] for name, group in groups.items() if name in FACTORS])
    root = np.sqrt(weight)
    fit, *_ = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)
    return {**found, "together": _share(y, weight, design @ fit)}


def _numbers(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    known = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([known[key] for key in keys])


def _means(y: Float, weight: Float, group: NDArray[np.int64]) -> Float:
    return (np.bincount(group, weight * y) / np.bincount(group, weight))[group]


def _share(y: Float, weight: Float, fitted: Float) -> float:
    middle = np.average(y, weights=weight)
    return float(1 - np.average((y - fitted) ** 2, weights=weight) / np.average((y - middle) ** 2, weights=weight))


def training(folder: Path) -> list[dict[str, float]]:
    """Return, for each run with checkpoints of two steps or more, what the last is beside the first.

    A file without a step, beside others that have one, is that of the end.
    """
    runs: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for row in all_files(folder):
        if row["status"] == "trained":
            runs[row["run"]].append((float(row["step"]) if row["step"] else np.inf, int(row["n"])))
    modules: dict[int, list[Module]] = defaultdict(list)
    for module in all_modules(folder):
        modules[module["adapter"]].append(module)
    found = []
    for steps in runs.values():
        if len({step for step, _ in steps}) < 2:
            continue
        first, last = (modules[number] for number in (min(steps)[1], max(steps)[1]))
        keyed = [[(m["projection"], m["layer_share"], m["m"], m["n"]) for m in own] for own in (first, last)]
        if keyed[0] != keyed[1] or not all(map(measured, (*first, *last))) or first[0]["rank"] != last[0]["rank"]:
            continue
        before, after = ([module["svd_energy"] for module in own] for own in (first, last))
        norms = [np.median([module["svd_frobenius"] for module in own]) for own in (first, last)]
        order = spearman(before, after) if len(set(before)) > 2 and len(set(after)) > 2 else None
        found.append(
            {
                "before": float(np.median(before)),
                "after": float(np.median(after)),
                "ssi": float(np.median([m["mas_ssi"] for m in last]) - np.median([m["mas_ssi"] for m in first])),
                "norm": float(norms[1] / norms[0]),
                "order": float("nan") if order is None else float(order),
            }
        )
    return found


def halvings(modules: Sequence[Module]) -> dict[str, tuple[float, int]]:
    """Return for each index log2 of what a doubling of the rank makes of it, and of how many sources.

    Compared are the same projections of the same layers in one repository, at several ranks; the median over sources.
    """
    places: dict[Hashable, list[Module]] = defaultdict(list)
    for module in modules:
        if measured(module):
            key = (module["source"], module["arch"], module["place"], module["layer_share"], module["m"], module["n"])
            places[key].append(module)
    found = {}
    for index, column in COLUMNS.items():
        slopes: dict[int, list[float]] = defaultdict(list)
        for own in places.values():
            x = np.log2([module["rank"] for module in own])
            y = np.log2([max(module[column], 1e-6) for module in own])
            if len(set(x)) > 1:
                slopes[own[0]["source"]].append(float(np.polyfit(x, y, 1)[0]))
        each = [float(np.median(values)) for values in slopes.values()]
        found[index] = (float(np.median(each)), len(each))
    return found


def signals(folder: Path) -> dict[str, list[float]]:
    """Return the median excess of energy over random updates of each trained file, and of each random one."""
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in all_modules(folder):
        energy = row["svd_energy"]
        if row["status"] not in ("trained", "random") or energy is None or energy != energy or not usable(row):
            continue
        if (random := null_energy(row["m"], row["n"], row["rank"])) is not None:
            found[row["status"], row["adapter"]].append(energy - random)
    return {
        status: sorted(float(np.median(values)) for (one, _), values in found.items() if one == status)
        for status in ("trained", "random")
    }


def left_out(modules: Sequence[Module]) -> float:
    """Return the share of modules outside the 5th and 95th percentile of their cell where their source is left out."""
    outside = total = 0
    for cell in cells(modules):
        if cell["architecture"] is not None:
            continue
        own = [
            module
            for module in modules
            if usable(module) and band(module["rank"]) == cell["band"] and _key(module) == cell["role"]
        ]
        for source in {module["source"] for module in own}:
            rest = [module for module in own if module["source"] != source]
            owners = [module["adapter"] for module in rest]
            low, high = quantiles([module["svd_energy"] for module in rest], owners, (GRID[0], GRID[-1]))
            held = [module["svd_energy"] for module in own if module["source"] == source]
            outside += sum(not low <= value <= high for value in held)
            total += len(held)
    return outside / total


def _key(module: Module) -> str | None:
    role = role_of(module["place"])
    return None if role is None else role.key


def defects(folder: Path) -> dict[str, tuple[int, int]]:
    """Return how many files, and how many repositories, have which defect."""
    rows = all_files(folder)
    kinds: dict[str, Callable[[dict[str, str]], bool]] = {
        "all": lambda row: True,
        "never trained: B = 0": lambda row: row["status"] == "untrained",
        "a pickle": lambda row: row["path"].endswith((".bin", ".pt", ".pth")),
        "truncated": lambda row: "is truncated" in row["reason"],
        "other files that cannot be read": lambda row: (
            row["status"] == "refused" and "is truncated" not in row["reason"]
        ),
        "a copy of another": lambda row: row["status"] == "duplicate",
        "NaN or infinity": lambda row: row["status"] == "nonfinite",
        "random factors": lambda row: row["status"] == "random",
    }
    return {
        name: (len(own), len({row["repo"] for row in own}))
        for name, holds in kinds.items()
        if (own := [row for row in rows if holds(row)])
    }


def reference_modules(folder: Path) -> list[Module]:
    """Return the modules of one trained adapter a run."""
    return modules_of(folder)
