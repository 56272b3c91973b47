"""A detector of what is unusual: a calibrated logistic regression on signatures, as plain numbers in a JSON file.

    z = (x − mean) / scale,   f = z·coefficients + intercept,   probability = 1 / (1 + exp(slope·f + offset))

Applying it needs nothing but NumPy. Training it is in `fleet/detection/training.py`.

What it says is "unusual against this reference", the labelled adapters that it was trained on, and never more. The
published accuracies are of adapters that its authors made, with one recipe for each base model. A replication found
that each of the twenty numbers separates two planted adapters from 5 benign ones of the same recipe, and that none does
by itself from 21; a classifier trained on all of them did, and gave two benign ones a higher score. `CAUTION` says so
in every detector.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from s3lora.errors import UsageError, printable
from s3lora.files import read_settings
from s3lora.fleet.detection.measures import Figures, Rate
from s3lora.fleet.signature import FEATURES, Variant, missing_of, vector
from s3lora.measure.scan import Tool

Float = NDArray[np.float64]

SCHEMA_VERSION = 1
#: Largest file that is read, in bytes: some 100,000 recipes.
MAX_DETECTOR = 64 * 1024 * 1024
CAUTION = (
    "This compares with the stated reference; it is no finding about what an adapter does. A replication of the"
    " published signature found each of its 20 numbers to separate planted adapters from 5 benign ones of the same"
    " recipe, and none by itself from 21: how well it seems to work depends on what it is compared with. Read the"
    " rates for recipes that it has not seen."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The regression; lists are in the order of `features` of its detector. `threshold` is a probability.

    `lowest` and `highest` are the least and the greatest of each number among the adapters it was trained on.
    """

    means: tuple[float, ...]
    scales: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    slope: float
    offset: float
    threshold: float
    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    def probabilities(self, rows: ArrayLike) -> Float:
        """Return the probabilities of rows of signatures, (n, 20) → (n,); raise UsageError where one is no number."""
        x = np.atleast_2d(np.asarray(rows, dtype=np.float64))
        if x.ndim != 2 or x.shape[1] != len(self.means):
            raise UsageError(f"a signature has {len(self.means)} numbers, not {x.shape[-1]}")
        with np.errstate(over="ignore", invalid="ignore"):
            z = (x - np.asarray(self.means)) / np.asarray(self.scales)
            # Row by row in one fixed order, so that a row has one probability in whatever company.
            score = self.slope * (np.sum(z * np.asarray(self.coefficients), axis=1) + self.intercept) + self.offset
        if not np.isfinite(score).all():
            raise UsageError("a signature is not finite, or too large for this detector")
        return falling(score)


def falling(score: Float) -> Float:
    """Return 1 / (1 + exp(score)), without overflow."""
    small = np.exp(-np.abs(score))
    return np.asarray(np.where(score > 0, small / (1 + small), 1 / (1 + small)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that were not used: why, how many, and the names of the first of them."""

    reason: str
    count: int
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a detector was trained: everything that determined it but the labelled rows, of which it has the digest.

    `negative` and `positive` count the adapters labelled 0 and 1, as (trained on, held out). `inverse_penalty` is C of
    the regression, chosen among `candidates` by the log loss in `folds` folds of the part it was trained on.
    `recipes_from` tells whether recipes were given, derived from facts of the adapters, or not known.
    """

    reference: str
    sha256: str
    seed: int
    folds: int
    held_out: float
    target: float
    negative: tuple[int, int]
    positive: tuple[int, int]
    inverse_penalty: float
    candidates: tuple[float, ...]
    recipes_from: Literal["given", "facts", "none"]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One recipe: its adapters labelled 0 and 1, and the share of the former that is called unusual.

    `held_out` is by this detector on the held-out part, `unseen` by one that was trained in the same way without any
    adapter of this recipe; None where there is none to count. `recall` is of those labelled 1, unseen as well.
    """

    name: str
    negative: int
    positive: int
    held_out: Rate | None
    unseen: Rate | None
    recall: Rate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A trained detector with everything measured of it.

    `held_out` is measured on adapters that no choice has seen, of the recipes it knows. `unseen` is measured with each
    recipe left out in turn, on detectors trained in the same way on the others; None where that is not possible.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    caution: str = CAUTION
    variant: Variant
    features: tuple[str, ...]
    model: Model
    training: Training
    held_out: Figures
    unseen: Figures | None
    recipes: tuple[Recipe, ...]
    warnings: tuple[str, ...]

    @property
    def tells_apart(self) -> bool:
        """Return whether the interval of the held-out AUC lies above 0.5; if not, nothing is called unusual."""
        return self.held_out.auc is not None and self.held_out.auc.low > 0.5

    def probability(self, row: Sequence[float]) -> float:
        """Return the probability of one signature, twenty numbers in the order of `features`.

        It is the share of 1 among adapters like this one in the reference, with the reference's mixture of 0 and 1.
        """
        return float(self.model.probabilities([row])[0])

    def outside(self, row: Sequence[float]) -> tuple[str, ...]:
        """Return which numbers lie outside of their range in the reference, by more than half of its width.

        Of such an adapter the reference knows nothing, and the probability is an extrapolation.
        """
        ends = zip(self.features, row, self.model.lowest, self.model.highest, strict=True)
        return tuple(name for name, value, low, high in ends if abs(value - (low + high) / 2) > high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a detector says of one adapter.

    `unusual` is None where nothing can be said, and `note` tells why. `outside` names the numbers far outside of the
    reference's range; `known_recipe` tells whether the reference has adapters of this recipe, None where its recipes
    are not made of facts.
    """

    uri: str
    probability: float | None
    threshold: float
    unusual: bool | None
    outside: tuple[str, ...]
    recipe: str | None
    known_recipe: bool | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What `fleet detector apply --format json` prints: verdicts, against which reference, and what they are not."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    reference: str
    caution: str
    verdicts: tuple[Verdict, ...]


def judge(detector: Detector, uri: str, signature: Mapping[str, float | None], recipe: str | None = None) -> Verdict:
    """Return the verdict on one adapter from its signature, by name, and the facts of its recipe."""
    known = None
    if recipe is not None and detector.training.recipes_from == "facts":
        known = recipe in {one.name for one in detector.recipes}
    probability: float | None = None
    unusual: bool | None = None
    outside: tuple[str, ...] = ()
    note = missing_of(signature, detector.variant)
    if not note:
        row = vector(signature, detector.variant)
        outside = detector.outside(row)
        try:
            probability = detector.probability(row)
        except UsageError as error:
            note = error.problem
    if probability is not None:
        if detector.tells_apart:
            unusual = probability > detector.model.threshold
        else:
            note = "this detector cannot tell its classes apart"
    return Verdict(
        uri=uri,
        probability=probability,
        threshold=detector.model.threshold,
        unusual=unusual,
        outside=outside,
        recipe=recipe,
        known_recipe=known,
        note=note,
    )


def save_detector(detector: Detector) -> bytes:
    """Return the detector as JSON; equal detectors give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(detector), indent=1) + b"\n"


def load(path: str | os.PathLike[str]) -> Detector:
    """Read a detector; raise UsageError for what is none, which says why."""
    file = Path(path)
    content = read_settings(file, MAX_DETECTOR)
    try:
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise UsageError(f"is a detector of version {version}, and this program reads {SCHEMA_VERSION}", file=file)
        detector = msgspec.json.decode(content, type=Detector)
        _check(detector)
    except RecursionError:
        raise UsageError("is nested too deeply to be a detector", file=file) from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError(
            f"is no detector ({printable(error)})", file=file, fix="make one with `s3lora fleet detector train`"
        ) from None
    return detector


class _Versioned(msgspec.Struct):
    schema_version: int


def _check(detector: Detector) -> None:
    """Raise ValueError where numbers do not fit together."""
    model = detector.model
    if detector.features != FEATURES[detector.variant]:
        raise ValueError(f"its features are not those of the variant {detector.variant}")
    lists = (model.means, model.scales, model.coefficients, model.lowest, model.highest)
    if any(len(values) != len(detector.features) for values in lists):
        raise ValueError(f"a list of its model has not {len(detector.features)} numbers")
    if not all(math.isfinite(value) for value in (*sum(lists, ()), model.intercept, model.slope, model.offset)):
        raise ValueError("its model has a number that is not finite")
    if min(model.scales) <= 0 or not 0 <= model.threshold <= 1:
        raise ValueError("a scale is not positive, or the threshold no probability")
