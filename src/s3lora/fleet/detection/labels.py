"""Signatures out of a fleet's dataset, and the labels that somebody gave to some of them.

A label file is CSV or Parquet with the columns `uri`, `label` (0 or 1) and, if one likes, `recipe`. Where there is no
recipe, it is made of the facts that the dataset has: base family, ranks, alpha, dropout, initialisation, projections.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_adapter
from s3lora.errors import UsageError, printable
from s3lora.files import read_settings
from s3lora.fleet.detection.detector import Detector, LeftOut, Verdict, judge
from s3lora.fleet.detection.population import NAMED
from s3lora.fleet.detection.training import train
from s3lora.fleet.results.content import Content
from s3lora.fleet.results.dataset import read_parts
from s3lora.fleet.results.rows import adapter_row
from s3lora.fleet.signature import FEATURES, SIGNATURE, Variant, signature
from s3lora.needs import need

Float = NDArray[np.float64]

#: Largest label file that is read, in bytes: some million lines.
MAX_LABELS = 256 * 1024 * 1024
#: Columns of the dataset that a recipe is made of.
FACTS = ("base_family", "rank_min", "rank_max", "lora_alpha", "lora_dropout", "init", "projections")
_FIX = "give a CSV or Parquet file with the columns uri, label and, if you like, recipe"


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says of one adapter; the recipe is None where it is not told."""

    label: int
    recipe: str | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """The adapters that have both a signature and a label, in order of uri.

    `signatures` is (n, 28) in the order of `SIGNATURE`, NaN where a number is missing; `missing` are uris of labels
    that the dataset does not have, and `recipes_from` tells whether all recipes were given.
    """

    signatures: Float
    labels: NDArray[np.int64]
    recipes: tuple[str, ...]
    uris: tuple[str, ...]
    missing: tuple[str, ...]
    recipes_from: Literal["given", "facts"]

    def rows(self, variant: Variant) -> Float:
        """Return the (n, 20) numbers of a variant."""
        columns = [SIGNATURE.index(name) for name in FEATURES[variant]]
        return np.asarray(self.signatures[:, columns])


def train_from(
    dataset: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    variant: Variant = "plain",
    seed: int = 0,
    folds: int = 5,
    held_out: float = 0.25,
    target: float = 0.05,
    reference: str | None = None,
) -> Detector:
    """Train a detector on the labelled adapters of a fleet's dataset; parameters and errors as `train`, `labelled`."""
    found = labelled(dataset, labels)
    detector = train(
        found.rows(variant),
        found.labels,
        recipes=found.recipes,
        names=found.uris,
        variant=variant,
        seed=seed,
        folds=folds,
        held_out=held_out,
        target=target,
        reference=reference or f"the adapters labelled in {Path(labels).name}",
        recipes_from=found.recipes_from,
    )
    if not found.missing:
        return detector
    absent = LeftOut("has a label and is not in the dataset", len(found.missing), found.missing[:NAMED])
    training = dataclasses.replace(detector.training, left_out=(*detector.training.left_out, absent))
    return dataclasses.replace(detector, training=training)


def labelled(dataset: str | os.PathLike[str], labels: str | os.PathLike[str]) -> Labelled:
    """Return the labelled adapters of a dataset.

    Raises UsageError for a label file that is none, and where none of its uris is in the dataset; AdapterFileError for
    a dataset that is none.
    """
    told = read_labels(labels)
    found: dict[str, Mapping[str, Any]] = {}
    for row in _adapters(Path(dataset), told):
        found.setdefault(row["uri"], row)
    if not found:
        raise UsageError("none of its uris is in the dataset", file=labels, fix="write uris as the dataset has them")
    uris = sorted(found)
    numbers = [[_number(found[uri][f"signature_{name}"]) for name in SIGNATURE] for uri in uris]
    given = [told[uri].recipe for uri in uris]
    return Labelled(
        signatures=np.array(numbers, dtype=np.float64),
        labels=np.array([told[uri].label for uri in uris], dtype=np.int64),
        recipes=tuple(recipe or recipe_of(found[uri]) for uri, recipe in zip(uris, given, strict=True)),
        uris=tuple(uris),
        missing=tuple(sorted(uri for uri in told if uri not in found)),
        recipes_from="given" if all(given) else "facts",
    )


def detect(detector: Detector, *adapters: str | os.PathLike[str]) -> tuple[Verdict, ...]:
    """Return the verdict on each adapter, in the order given; raise whatever `open_adapter` raises."""
    verdicts = []
    for path in adapters:
        with open_adapter(path) as adapter:
            verdicts.append(judge(detector, str(path), signature(adapter), recipe_of(_facts(adapter))))
    return tuple(verdicts)


def detect_all(detector: Detector, dataset: str | os.PathLike[str]) -> Iterator[Verdict]:
    """Yield the verdict on each adapter of a fleet's dataset, in its order; raise AdapterFileError if it is none."""
    for row in _adapters(Path(dataset), None):
        yield judge(detector, row["uri"], {name: row[f"signature_{name}"] for name in SIGNATURE}, recipe_of(row))


def recipe_of(row: Mapping[str, Any]) -> str:
    """Return how an adapter was made, as far as a row of the table `adapters` tells; `?` stands for what it does not.

    >>> recipe_of({"base_family": "qwen2", "rank_min": 8, "rank_max": 8, "lora_alpha": 16.0, "lora_dropout": 0.05,
    ...            "init": "true", "projections": "q_proj+v_proj"})
    'qwen2 r=8 alpha=16 dropout=0.05 init=true q_proj+v_proj'
    """
    family, low, high, alpha, dropout, init, projections = (_fact(row.get(name)) for name in FACTS)
    rank = low if low == high else f"{low}-{high}"
    return f"{family} r={rank} alpha={alpha} dropout={dropout} init={init} {projections}"


def read_labels(path: str | os.PathLike[str]) -> dict[str, Label]:
    """Read a label file; raise UsageError, which names the line, where it cannot be meant."""
    file = Path(path)
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _csv_rows(file)
    told: dict[str, Label] = {}
    for line, row in rows:
        uri, label, recipe = row.get("uri"), _label(row.get("label")), row.get("recipe")
        if not isinstance(uri, str) or not uri:
            raise UsageError(f"line {line} has no uri", file=file, fix=_FIX)
        if label is None:
            what = printable(row.get("label"), 40)
            raise UsageError(f"line {line} has the label {what}, which is neither 0 nor 1", file=file)
        new = Label(label, printable(recipe, 400) if recipe not in (None, "") else None)
        if told.setdefault(uri, new) != new:
            raise UsageError(f"line {line} says something else of {printable(uri)} than a line before", file=file)
    if not told:
        raise UsageError("holds no label", file=file, fix=_FIX)
    return told


def _label(value: Any) -> int | None:
    """Return 0 or 1, as a file may write them; None for anything else."""
    known = {"0": 0, "1": 1}.get(value.strip()) if isinstance(value, str) else value
    return int(known) if known is not None and known in (0, 1) else None


def _csv_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = read_settings(file, MAX_LABELS).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if not {"uri", "label"} <= {*(reader.fieldnames or ())}:
            raise UsageError("has no columns uri and label", file=file, fix=_FIX)
        for row in reader:
            yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read as CSV ({printable(error)})", file=file, fix=_FIX) from None


def _parquet_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    pa, pq = need("pyarrow", "fleet"), need("pyarrow.parquet", "fleet")
    content = read_settings(file, MAX_LABELS)
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as opened:
            names = {"uri", "label", "recipe"} & {*opened.schema_arrow.names}
            if not {"uri", "label"} <= names:
                raise UsageError("has no columns uri and label", file=file, fix=_FIX)
            line = 0
            for batch in opened.iter_batches(columns=sorted(names)):
                for row in batch.to_pylist():
                    line += 1
                    yield line, row
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"cannot be read as Parquet ({printable(error)})", file=file, fix=_FIX) from None


def _adapters(dataset: Path, wanted: Mapping[str, Label] | None) -> Iterator[Mapping[str, Any]]:
    """Yield uri, facts and signature of each adapter, of the wanted ones only where some are named."""
    columns = ["uri", *FACTS, *(f"signature_{name}" for name in SIGNATURE)]
    batches = (batch for part in read_parts(dataset, "adapters", columns) for batch in part.to_batches())
    for batch in batches:
        if wanted is not None:
            mask = [uri in wanted for uri in batch.column("uri").to_pylist()]
            batch = batch.filter(need("pyarrow", "fleet").array(mask, "bool"))
        yield from batch.to_pylist()


def _facts(adapter: Adapter) -> Mapping[str, Any]:
    """Return what the dataset would say of an adapter; its digests are none of the facts, and are not computed."""
    return adapter_row("", adapter, Content("", ""), "", 0)


def _fact(value: Any) -> str:
    if value is None:
        return "?"
    return f"{value:g}" if isinstance(value, float) else printable(value)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
