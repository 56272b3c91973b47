"""A simulated dataset of a fleet, written without any adapter: for benchmarks of what reads datasets.

    python -m benchmarks.simulate_fleet FOLDER [ADAPTERS [MODULES]]

Spectra fall off exponentially, so that every index has a closed form. Families, ranks and projections are as uneven as
in a registry; one adapter in 500 is sharper than others of its kind, one in 250 has a few sharp modules, one in 100 is
a copy, and one input in 200 an error. Same arguments, same bytes.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s3lora.fleet.results.dataset import PARTS
from s3lora.fleet.results.schema import COLUMNS, Table, arrow_schema
from s3lora.fleet.results.summary import SUMMARY, Counts, Summary

FAMILIES = (
    *("llama-3", "mistral", "qwen-2.5", "llama-2", "gemma-2", "phi-3", "qwen-2", "unknown", "gemma", "falcon", "gpt2"),
    *("mixtral", "pythia", "bloom", "opt", "stablelm", "yi", "internlm"),
)
RANKS = (4, 8, 16, 32, 64)
RANK_SHARES = (0.05, 0.3, 0.4, 0.15, 0.1)
PROJECTIONS = tuple(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
ERRORS = (
    ("AdapterFile", "adapter_model.safetensors: is a Git LFS pointer, not the file itself", False),
    ("UnsupportedAdapter", "adapter_config.json: peft_type IA3 is no LoRA", False),
    ("Unreachable", "the other side did not answer in time", True),
)
ROWS_A_GROUP = 131_072


class Part(NamedTuple):
    """The rows of one part, and what is counted of them."""

    tables: dict[Table, Any]
    tensors: list[str]
    errors: Counter[str]


def simulate(folder: Path, adapters: int, modules: int, *, seed: int = 0, each: int = 512) -> Path:
    """Write a dataset of so many inputs, `modules` modules each, in parts of `each` adapters."""
    tensors: set[str] = set()
    count, errors = 0, Counter[str]()
    for number, first in enumerate(range(0, adapters, each)):
        part = _part(first, min(each, adapters - first), modules, seed)
        place = folder / PARTS / f"{number:06d}"
        place.mkdir(parents=True)
        for table, rows in part.tables.items():
            pq.write_table(rows, place / f"{table}.parquet", compression="zstd", compression_level=1,
                           row_group_size=ROWS_A_GROUP)  # fmt: skip
        tensors.update(part.tensors)
        count += len(part.tensors)
        errors += part.errors
    counts = Counts(count, count * modules, count - len(tensors), dict(sorted(errors.items())), {})
    (folder / SUMMARY).write_bytes(Summary(inputs=("registry",), counts=counts, complete=True).encode())
    return folder


def _part(first: int, count: int, modules: int, seed: int) -> Part:
    random = np.random.default_rng((seed, first))
    numbers = np.arange(first, first + count)
    wrong = random.random(count) < 1 / 200
    kinds = random.integers(len(ERRORS), size=count)
    failed = [
        {"uri": _uri(n), "kind": kind, "reason": reason, "transient": transient, "fingerprint": None}
        for n, (kind, reason, transient) in zip(numbers[wrong], (ERRORS[k] for k in kinds[wrong]), strict=True)
    ]
    good = numbers[~wrong]
    rows = _adapters(good, modules, random)
    tables: dict[Table, Any] = {
        "adapters": pa.Table.from_pylist(rows, schema=arrow_schema("adapters")),
        "modules": _modules(rows, modules, random),
        "errors": pa.Table.from_pylist(failed, schema=arrow_schema("errors")),
    }
    return Part(tables, [row["tensors"] for row in rows], Counter(row["kind"] for row in failed))


def _adapters(numbers: Any, modules: int, random: Any) -> list[dict[str, Any]]:
    shares = 1 / np.arange(1, len(FAMILIES) + 1)
    families = random.choice(len(FAMILIES), size=len(numbers), p=shares / shares.sum())
    ranks = random.choice(RANKS, size=len(numbers), p=RANK_SHARES)
    copied = random.random(len(numbers)) < 1 / 100
    rows: list[dict[str, Any]] = []
    for number, family, rank, again in zip(numbers.tolist(), families, ranks.tolist(), copied, strict=True):
        content = hashlib.sha256(str(number).encode()).hexdigest()
        row = {
            "uri": _uri(number), "name": f"adapter-{number:06d}", "format": "peft", "content": content,
            "tensors": content, "fingerprint": f"size {number}", "base_model": f"example/{FAMILIES[family]}-7B",
            "base_family": FAMILIES[family], "rank_min": rank, "rank_max": rank, "modules": modules,
            "zero_modules": 0, "nonfinite_modules": 0, "parameters": modules * rank * 2048,
            "bytes": modules * rank * 4096, "dtype": "bfloat16", "projections": "+".join(sorted(PROJECTIONS)),
            "lora_alpha": float(2 * rank), "lora_dropout": 0.05 * (number % 2), "init": "true", "warnings": [],
        }  # fmt: skip
        if again and rows:
            row |= {key: rows[0][key] for key in row if key not in ("uri", "name", "fingerprint")}
        rows.append(row)
    return rows


def _uri(number: Any) -> str:
    return f"registry/user-{number % 997:03d}/adapter-{number:06d}"


def _modules(rows: list[dict[str, Any]], modules: int, random: Any) -> Any:
    count, total = len(rows), len(rows) * modules
    at = np.arange(modules)
    layers, projection = at // len(PROJECTIONS), at % len(PROJECTIONS)
    names = [f"model.layers.{layer}.{PROJECTIONS[p]}" for layer, p in zip(layers, projection, strict=True)]
    rank = np.repeat([row["rank_max"] for row in rows], modules)
    decay = _decay(rows, modules, random)
    scale = np.repeat(0.2 * random.lognormal(0, 0.6, count), modules) * random.lognormal(0, 0.25, total)
    layer = np.tile(layers, count)
    last = int(layers[-1])
    columns: dict[str, Any] = {
        "uri": _repeated([row["uri"] for row in rows], np.repeat(np.arange(count), modules)),
        "path": _repeated(names, np.tile(at, count)),
        "layer": layer.astype(np.int32),
        "layer_third": (3 * layer // (last + 1)).astype(np.int32),
        "projection": _repeated(list(PROJECTIONS), np.tile(projection, count)),
        "expert": pa.nulls(total, pa.int32()),
        "kind": _repeated(["linear"], np.zeros(total, int)),
        "m": np.full(total, 1024), "n": np.full(total, 1024), "rank": rank.astype(np.int32),
        "dtype": _repeated(["bfloat16"], np.zeros(total, int)),
        "scaling": np.full(total, 2.0),
        "scaling_origin": _repeated(["alpha / r"], np.zeros(total, int)),
        "dora": np.zeros(total, bool), "parameters": rank * 2048, "zero": np.zeros(total, bool),
        **_indices(decay, rank, scale),
    }  # fmt: skip
    schema = arrow_schema("modules")
    made = [columns.get(column.name, pa.nulls(total, pa.float64())) for column in COLUMNS["modules"]]
    return pa.Table.from_arrays([pa.array(values, field.type) for values, field in zip(made, schema, strict=True)],
                                schema=schema)  # fmt: skip


def _decay(rows: list[dict[str, Any]], modules: int, random: Any) -> Any:
    """Return how fast the spectrum of every module falls: by family, adapter and projection, and some much faster."""
    count = len(rows)
    base = np.asarray([0.06 + 0.01 * (FAMILIES.index(row["base_family"]) % 7) for row in rows])
    wide = np.asarray([8 / (4 + row["rank_max"]) + 0.4 for row in rows])
    adapter = base * wide * random.lognormal(0, 0.18, count)
    adapter[random.random(count) < 1 / 500] *= 2.5
    kind = 1 + 0.12 * (np.arange(modules) % len(PROJECTIONS))
    decay = adapter[:, None] * kind * random.lognormal(0, 0.22, (count, modules))
    some = np.flatnonzero(random.random(count) < 1 / 250)
    decay[some[:, None], random.integers(modules, size=(len(some), 3))] *= 8
    return decay.ravel()


def _indices(d: Any, r: Any, magnitude: Any) -> dict[str, Any]:
    """Return every index of σ_i = magnitude·exp(−d·i), i < r."""
    q = np.exp(-d)
    ssi = (1 - q) / (1 - q**r)
    stable = (1 - q ** (2 * r)) / (1 - q**2)
    entropy = -np.log(ssi) + d * (q / (1 - q) - r * q**r / (1 - q**r))
    return {
        "ssi": ssi,
        "normalised_ssi": (ssi - 1 / r) / (1 - 1 / r),
        "weighted_ssi": magnitude * ssi,
        "magnitude": magnitude,
        "frobenius": magnitude * np.sqrt(stable),
        "stable_rank": stable,
        "effective_rank": np.exp(entropy),
        "spectral_entropy": entropy,
        "energy": 1 / stable,
    }


def _repeated(values: list[str], places: Any) -> Any:
    return pa.array(values, pa.string()).take(pa.array(places))


if __name__ == "__main__":
    simulate(
        Path(sys.argv[1]),
        int(sys.argv[2]) if len(sys.argv) > 2 else 100_000,
        int(sys.argv[3]) if len(sys.argv) > 3 else 200,
    )
