"""Make the reference of published adapters that `scan` uses, from the numbers of many adapters.

    python -m docs.make_published ../shared/population

writes `published.json`, quantiles by role, band of ranks and architecture, and `sources.tsv`, where they come
from, into `src/s3lora/data/reference`. Of a cell only quantiles are kept, and a cell has at least 20 runs of at least
10 sources; each adapter counts alike in it, however many modules it has. A test makes the files again and compares
bytes.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3lora.measure.cells import FEWEST, FEWEST_SOURCES, band
from s3lora.measure.published import GRID, NARROWEST
from s3lora.measure.roles import ModuleRole, architecture_of, role_of

OUT = Path(__file__).parents[1] / "src" / "s3lora" / "data" / "reference"
#: Index → its column. SSI is kept for the rank that most modules of a cell have, and for no other.
INDICES = {"energy": "svd_energy", "normalised_ssi": "mas_normalised_ssi", "ssi": "mas_ssi"}
NAME = "published adapters"
#: Architecture → where a projection stands in it, for those whose names alone do not tell.
_PLACES = {
    "distilbert": "distilbert.transformer.layer.0.attention.{projection}",
    "bloom": "transformer.h.0.self_attention.{projection}",
    "gpt-neo": "transformer.h.0.attn.attention.{projection}",
    "gpt-neox": "gpt_neox.layers.0.attention.{projection}",
    "openelm": "transformer.layers.0.attn.{projection}",
}
_LAYERS = {"t5": "block.0.layer.0", "bert": "layer.0", "roberta": "layer.0", "vit": "layer.0"}
#: How the numbers call a stack.
_STACKS = {"enc": "encoder", "dec": "decoder"}

Module = Mapping[str, Any]


def modules_of(folder: Path) -> list[Module]:
    """Return the modules of one trained adapter a run, each with its `place`: a path like those of its model."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "modules.parquet", filters=[("reference", "==", True)])
    return [{**row, "place": place_of(row)} for row in table.to_pylist()]


def place_of(module: Module) -> str:
    """Return a path of the kind that the module has in its model, empty where that is not known."""
    arch, block, projection = module["arch"], module["block"], module["projection"]
    if arch == "sd-unet":
        if block is None:
            return ""
        attention = "attn2" if module["role"].startswith("x") else "attn1"
        return f"down_blocks.0.attentions.0.transformer_blocks.0.{attention}.{projection}"
    if arch in ("other", "sam-vit") or module["role"] in ("head", "other"):
        return ""
    if module["stack"]:
        inner = {"t5": "block.0.layer.0", "bert": "layer.0", "roberta": "layer.0", "vit": "layer.0"}.get(
            arch, "layers.0"
        )
        return ".".join(filter(None, (arch, _STACKS[module["stack"]], inner, block, projection)))
    if arch == "gpt2":
        return f"transformer.h.0.{'mlp' if block == 'mlp' else 'attn'}.{projection}"
    return _PLACES.get(arch, "model.layers.0.self_attn.{projection}").format(projection=projection)


def usable(module: Module) -> bool:
    """Return whether a module counts: more than one rank, in a matrix that could have more."""
    return module["rank"] > 1 and min(module["m"], module["n"]) >= NARROWEST * module["rank"]


def quantiles(values: Sequence[float], owners: Sequence[int], shares: Iterable[float]) -> NDArray[np.float64]:
    """Return the quantiles of values of which each owner's weigh 1 together.

    The quantile at p is where the share of the weight below, half of that of equal values with it, is p, by straight
    lines between values.
    """
    _, place, each = np.unique(owners, return_inverse=True, return_counts=True)
    weights = 1.0 / each[place]
    found, at = np.unique(values, return_inverse=True)
    weight = np.bincount(at, weights)
    below = (np.cumsum(weight) - weight / 2) / weight.sum()
    return np.interp(list(shares), below, found)


def cells(modules: Sequence[Module]) -> list[dict[str, Any]]:
    """Return the cells that have enough runs of enough sources; those of an architecture where it is a part of one."""
    members: dict[tuple[str, str, str | None], list[Module]] = defaultdict(list)
    for module in modules:
        role = role_of(module["place"])
        if role is not None and usable(module):
            group = (role.key, band(module["rank"]))
            members[(*group, None)].append(module)
            if (arch := architecture_of(module["place"])) is not None:
                members[(*group, arch)].append(module)
    found = []
    for (role, ranks, arch), own in sorted(members.items(), key=lambda item: (*item[0][:2], item[0][2] or "")):
        counts = {name: len({module[name] for module in own}) for name in ("adapter", "run", "source")}
        whole = arch is not None and len(own) == len(members[role, ranks, None])
        if min(counts["adapter"], counts["run"]) >= FEWEST and counts["source"] >= FEWEST_SOURCES and not whole:
            found.append(cell(role, ranks, arch, own, counts))
    return found


def cell(role: str, ranks: str, arch: str | None, own: Sequence[Module], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return one cell as the file has it."""
    numbers = [module["rank"] for module in own]
    rank = max(sorted(set(numbers)), key=numbers.count)
    kept = {name: [one for one in own if name != "ssi" or one["rank"] == rank] for name in INDICES}
    widths = quantiles([width(one) for one in own], [one["adapter"] for one in own], (0.05, 0.95))
    return {
        "role": role,
        "band": ranks,
        "architecture": arch,
        "adapters": counts["adapter"],
        "runs": counts["run"],
        "sources": counts["source"],
        "modules": len(own),
        "rank": rank,
        "width": [round(float(value)) for value in widths],
        "quantiles": {
            name: [
                round(float(value), 4)
                for value in quantiles(
                    [one[column] for one in kept[name]], [one["adapter"] for one in kept[name]], GRID
                )
            ]
            for name, column in INDICES.items()
        },
    }


def width(module: Module) -> float:
    """Return the geometric mean of the two sizes of a module."""
    return float(np.sqrt(module["m"] * module["n"]))


def published(folder: Path) -> str:
    """Return `published.json`."""
    modules = modules_of(folder)
    told = {
        "schema_version": 1,
        "name": NAME,
        "adapters": len({module["adapter"] for module in modules}),
        "runs": len({module["run"] for module in modules}),
        "sources": len({module["source"] for module in modules}),
        "modules": len(modules),
        "cells": cells(modules),
    }
    return json.dumps(told, separators=(",", ":")) + "\n"


def sources(folder: Path) -> str:
    """Return `sources.tsv`: the repositories, at which commits, and under which licence, where one is stated."""
    with open(folder / "sources.tsv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["reference"] == "True"]
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        found[row["repo"]].append(row)
    text = io.StringIO()
    write = csv.writer(text, delimiter="\t", lineterminator="\n").writerow
    write(("repository", "licence", "adapters", "commits"))
    for repo, own in sorted(found.items()):
        commits = sorted({row["commit"] for row in own})
        write((repo, "; ".join(sorted({row["licence"] for row in own})), len(own), " ".join(commits)))
    return text.getvalue()


def check_roles(modules: Sequence[Module]) -> None:
    """Raise ValueError where a role is another than the one that the numbers came with."""
    known = {"q": "q", "k": "k", "v": "v", "o": "o", "qkv": "qkv", "mlp_up": "up", "mlp_down": "down"}
    for module in modules:
        role = role_of(module["place"])
        there = (
            ModuleRole(role.stack, module["role"].startswith("x"), known[module["role"].lstrip("x")]) if role else None
        )
        if role != there:
            raise ValueError(f"{module['place']}: {role} and not {there}")


if __name__ == "__main__":
    given = Path(sys.argv[1])
    check_roles(modules_of(given))
    (OUT / "published.json").write_text(published(given), encoding="utf-8")
    (OUT / "sources.tsv").write_text(sources(given), encoding="utf-8")
