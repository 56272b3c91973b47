"""Labelled signatures made ready for training: which rows count, in an order that does not depend on the files'."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from s3lora.errors import UsageError, printable
from s3lora.fleet.detection.detector import LeftOut
from s3lora.fleet.signature import FEATURES, Variant

Float = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Fewest adapters of each label: a quarter held out leaves five there and three in each of five folds.
LEAST = 20
#: A number above this is of no update that a model could be run with, and its square would leave float64.
LARGEST = 1e100
#: Names of rows that were left out which are kept.
NAMED = 20
#: Recipe of adapters of which none is told.
UNSTATED = "not stated"


@dataclass(frozen=True, slots=True)
class Population:
    """Distinct labelled rows: signatures `x` (n, 20), labels `y` (n,) in {0, 1}, and the recipe of each."""

    x: Float
    y: Integers
    recipes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def sha256(self) -> str:
        """Return the digest of rows, labels and recipes."""
        digest = hashlib.sha256(np.ascontiguousarray(self.x, dtype="<f8").tobytes())
        digest.update(self.y.astype("<i8").tobytes())
        for recipe in self.recipes:
            digest.update(recipe.encode("utf-8", "backslashreplace") + b"\0")
        return digest.hexdigest()

    def part(self, chosen: NDArray[Any]) -> tuple[Float, Integers]:
        """Return (x, y) of the chosen rows, by index or by mask."""
        return self.x[chosen], self.y[chosen]


def population_of(
    signatures: ArrayLike,
    labels: ArrayLike,
    recipes: Sequence[str] | None,
    names: Sequence[str] | None,
    variant: Variant,
) -> Population:
    """Check the rows, leave out what cannot be used, and sort the rest.

    A row is left out where a number is missing or not finite, and where an earlier one has the same twenty numbers:
    the same adapter under two names would stand on both sides of the held-out line. Raises UsageError for shapes that
    do not fit, labels other than 0 and 1, the same numbers under both labels, and too few rows of a label.
    """
    x, y = np.asarray(signatures, dtype=np.float64), np.asarray(labels)
    width = len(FEATURES[variant])
    if x.ndim != 2 or x.shape[1] != width:
        raise UsageError(f"signatures must be rows of {width} numbers, not an array of shape {x.shape}")
    told = [UNSTATED] * len(x) if recipes is None else [printable(recipe, 400) for recipe in recipes]
    called = [f"row {i}" for i in range(len(x))] if names is None else [printable(name, 240) for name in names]
    if not len(x) == len(y) == len(told) == len(called):
        raise UsageError(
            f"{len(x)} signatures, {len(y)} labels, {len(told)} recipes and {len(called)} names do not fit"
        )
    if y.ndim != 1 or not all(label in (0, 1) for label in y.tolist()):
        raise UsageError("labels must be 0 or 1")
    y = y.astype(np.int64)
    with np.errstate(invalid="ignore"):
        usable = np.all(np.abs(x) <= LARGEST, axis=1)
    left = [LeftOut("a number of the signature is missing, not finite or absurdly large", *_named(~usable, called))]
    # Only these: beside a number that is none nothing has an order.
    order = sorted(np.flatnonzero(usable).tolist(), key=lambda i: (x[i].tolist(), int(y[i]), told[i], called[i]))
    kept = list(_distinct(order, x, y, called))
    again = np.zeros(len(x), dtype=bool)
    again[order] = True
    again[kept] = False
    left.append(LeftOut("has the same numbers as another adapter", *_named(again, called)))
    found = Population(
        x[kept] + 0.0,  # no −0.0, which has another digest
        y[kept],
        tuple(told[i] for i in kept),
        tuple(one for one in left if one.count),
    )
    _enough(found)
    return found


def _distinct(order: Sequence[int], x: Float, y: Integers, names: Sequence[str]) -> Iterator[int]:
    """Yield the first of each run of equal rows; raise UsageError where one run has both labels."""
    last: int | None = None
    for i in order:
        if last is None or not np.array_equal(x[i], x[last]):
            last = i
            yield i
        elif y[i] != y[last]:
            raise UsageError(
                f"{names[last]} and {names[i]} have the same signature and different labels",
                fix="correct one of the labels, or leave both out",
            )


def _named(chosen: Any, names: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    rows = sorted(names[i] for i in np.flatnonzero(chosen).tolist())
    return len(rows), tuple(rows[:NAMED])


def _enough(population: Population) -> None:
    counts = [int(np.sum(population.y == label)) for label in (0, 1)]
    if min(counts) >= LEAST:
        return
    left = sum(one.count for one in population.left_out)
    also = f" ({left} rows are left out: {population.left_out[0].reason})" if left else ""
    raise UsageError(
        f"{counts[0]} adapters are labelled 0 and {counts[1]} are labelled 1, and {LEAST} of each are needed{also}",
        fix="label more adapters",
    )
