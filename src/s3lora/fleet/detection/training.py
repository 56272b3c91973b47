"""Labelled signatures → detector, with everything that can be measured of it. Needs scikit-learn.

What is measured on the held-out part is of the detector itself, on adapters that no choice has seen, of recipes that it
knows. What is measured with a recipe left out is of detectors that were trained in the same way on the other recipes,
and is what to expect of adapters of a new recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from s3lora.errors import UsageError, printable
from s3lora.fleet.detection.detector import Detector, Recipe, Training
from s3lora.fleet.detection.fitting import CANDIDATES, Fitted, fit
from s3lora.fleet.detection.measures import Figures, Float, figures, rate
from s3lora.fleet.detection.population import Population, population_of
from s3lora.fleet.signature import FEATURES, VARIANTS, Variant

#: Fewest adapters of each label that a detector is trained on when a recipe is left out.
LEAST_TRAINED = 10
#: With more recipes than this, several are left out at a time.
ROUNDS = 20


@dataclass(frozen=True, slots=True)
class _Options:
    folds: int
    seed: int
    target: float


@dataclass(frozen=True, slots=True)
class _Unseen:
    """What detectors said of adapters of recipes that they had not seen; `judged` marks the adapters they judged."""

    judged: NDArray[np.bool_]
    probabilities: Float
    flagged: NDArray[np.bool_]
    constant: Float


def train(
    signatures: ArrayLike,
    labels: ArrayLike,
    *,
    recipes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    variant: Variant = "plain",
    seed: int = 0,
    folds: int = 5,
    held_out: float = 0.25,
    target: float = 0.05,
    reference: str = "the labelled adapters",
    recipes_from: Literal["given", "facts"] = "given",
) -> Detector:
    """Train a detector of label 1 and measure it.

    Parameters:
        signatures: (n, 20), in the order of `FEATURES[variant]`; NaN where a number is missing.
        labels: (n,), 0 or 1.
        recipes: how each adapter was made, in any words; those of equal words are left out together.
        names: what to call each row where it is left out.
        variant: which energy and entropy the rows hold.
        seed: of every draw; the same rows in any order and the same seed give the same bytes.
        folds: of the cross-validation, 2 to 10.
        held_out: share of the adapters that no choice sees, above 0 and at most 0.5.
        target: the false-positive rate that the threshold aims at, above 0 and at most 0.5.
        reference: what these adapters are, for people.
        recipes_from: whether the recipes were given by somebody or derived from facts of the adapters.

    Raises UsageError for options that cannot be meant, and as `population_of`; MissingPackageError without
    scikit-learn.
    """
    options = _options(variant, folds, seed, held_out, target)
    rows = population_of(signatures, labels, recipes, names, variant)
    held = _held_out(rows, held_out, seed)
    # One thread, because the order of a sum over threads would decide the last digits.
    with threadpool_limits(limits=1):
        fitted = fit(*rows.part(~held), folds, seed, target)
        unseen = _without_recipes(rows, options)
    x, y = rows.part(held)
    probabilities = fitted.model.probabilities(x)
    flagged = probabilities > fitted.model.threshold
    share = float(np.mean(rows.y[~held]))
    measured = figures(probabilities, y, flagged, np.full(len(y), share), seed)
    left_out = None
    if unseen is not None:
        some = unseen.judged
        left_out = figures(unseen.probabilities[some], rows.y[some], unseen.flagged[some], unseen.constant[some], seed)
    return Detector(
        variant=variant,
        features=FEATURES[variant],
        model=fitted.model,
        training=Training(
            reference=printable(reference, 400),
            sha256=rows.sha256,
            seed=seed,
            folds=folds,
            held_out=held_out,
            target=target,
            negative=(int(np.sum(rows.y[~held] == 0)), int(np.sum(y == 0))),
            positive=(int(np.sum(rows.y[~held] == 1)), int(np.sum(y == 1))),
            inverse_penalty=fitted.inverse_penalty,
            candidates=CANDIDATES,
            recipes_from="none" if recipes is None else recipes_from,
            left_out=rows.left_out,
        ),
        held_out=measured,
        unseen=left_out,
        recipes=tuple(_per_recipe(rows, held, flagged, unseen)),
        warnings=tuple(_warnings(rows, held, measured, left_out, unseen, target)),
    )


def _options(variant: str, folds: int, seed: int, held_out: float, target: float) -> _Options:
    if variant not in VARIANTS:
        raise UsageError(f"no variant {variant!r} of the signature", fix=f"choose one of {', '.join(VARIANTS)}")
    if not 2 <= folds <= 10:
        raise UsageError(f"folds must be between 2 and 10, not {folds}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be between 0 and {2**32 - 1}, not {seed}")
    for name, value in (("held_out", held_out), ("target", target)):
        if not 0 < value <= 0.5:
            raise UsageError(f"{name} must be above 0 and at most 0.5, not {value}")
    return _Options(folds, seed, target)


def _held_out(rows: Population, share: float, seed: int) -> NDArray[np.bool_]:
    """Return which rows are held out: of each label the share, spread evenly over its recipes, drawn by the seed."""
    random = np.random.default_rng(seed)
    held = np.zeros(len(rows.y), dtype=bool)
    for label in (0, 1):
        drawn = random.permutation(np.flatnonzero(rows.y == label))
        ordered = sorted(drawn.tolist(), key=lambda i: rows.recipes[i])  # a stable sort keeps the draw in each recipe
        # Every 1/share-th of the list, from a random start.
        passed = np.floor((np.arange(len(ordered) + 1) + random.random() / share) * share)
        held[np.asarray(ordered)[np.diff(passed) > 0]] = True
    return held


def _without_recipes(rows: Population, options: _Options) -> _Unseen | None:
    """Judge the adapters of each recipe by a detector of the others; None where no such detector can be trained."""
    n = len(rows.y)
    found = _Unseen(np.zeros(n, dtype=bool), np.zeros(n), np.zeros(n, dtype=bool), np.zeros(n))
    for out in _rounds(rows):
        x, y = rows.part(~out)
        if min(int(np.sum(y == 0)), int(np.sum(y == 1))) < max(LEAST_TRAINED, options.folds):
            continue
        fitted: Fitted = fit(x, y, options.folds, options.seed, options.target)
        found.judged[out] = True
        found.probabilities[out] = fitted.model.probabilities(rows.x[out])
        found.flagged[out] = found.probabilities[out] > fitted.model.threshold
        found.constant[out] = np.mean(y)
    return found if found.judged.any() else None


def _rounds(rows: Population) -> Iterator[NDArray[np.bool_]]:
    """Yield which rows to leave out together: one recipe, or several where there are very many."""
    sizes = Counter(rows.recipes)
    if len(sizes) < 2:
        return
    rounds: list[list[str]] = [[] for _ in range(min(ROUNDS, len(sizes)))]
    filled = [0] * len(rounds)
    for recipe in sorted(sizes, key=lambda recipe: (-sizes[recipe], recipe)):
        least = filled.index(min(filled))
        rounds[least].append(recipe)
        filled[least] += sizes[recipe]
    for chosen in map(frozenset, rounds):
        yield np.array([recipe in chosen for recipe in rows.recipes])


def _per_recipe(
    rows: Population, held: NDArray[np.bool_], flagged: NDArray[np.bool_], unseen: _Unseen | None
) -> Iterator[Recipe]:
    known = np.zeros(len(rows.y), dtype=bool)
    known[held] = flagged
    every = np.array(rows.recipes)
    for recipe in sorted(set(rows.recipes)):
        mine = every == recipe
        negative, positive = mine & (rows.y == 0), mine & (rows.y == 1)
        yield Recipe(
            name=recipe,
            negative=int(np.sum(negative)),
            positive=int(np.sum(positive)),
            held_out=rate(known[negative & held]),
            unseen=None if unseen is None else rate(unseen.flagged[negative & unseen.judged]),
            recall=None if unseen is None else rate(unseen.flagged[positive & unseen.judged]),
        )


def _warnings(
    rows: Population,
    held: NDArray[np.bool_],
    known: Figures,
    new: Figures | None,
    unseen: _Unseen | None,
    target: float,
) -> Iterator[str]:
    """Yield what a reader of the probabilities must know before believing them."""
    if known.auc is None or known.auc.low <= 0.5:
        yield "the held-out AUC may as well be 0.5: this detector cannot tell its classes apart, and calls none unusual"
    n = int(np.sum(rows.y[~held] == 0))
    if target * (n + 1) < 1:
        yield (
            f"{n} adapters labelled 0 are too few for a false-positive rate of {target:g}: the threshold is the"
            f" highest of them, for which a rate of {1 / (n + 1):.2g} is expected"
        )
    for which, found in (("held-out adapters", known), ("recipes that it has not seen", new)):
        rate_of = None if found is None else found.false_positives
        if rate_of is not None and rate_of.low > target:
            yield (
                f"of {which}, {rate_of.value:.0%} of those labelled 0 are called unusual (n = {rate_of.n}, at least"
                f" {rate_of.low:.0%}), above the {target:g} that the threshold aims at"
            )
    yield from _about_recipes(rows, new, unseen)


def _about_recipes(rows: Population, new: Figures | None, unseen: _Unseen | None) -> Iterator[str]:
    count = len(set(rows.recipes))
    if count < 2:
        yield "all adapters are of one recipe: nothing is known of adapters of another"
        return
    if len({*zip(rows.recipes, rows.y.tolist(), strict=True)}) == count:
        yield "no recipe has adapters of both labels: what is told apart may be the recipes"
    if unseen is None or new is None:
        yield "with a recipe left out too few adapters remain to train on: nothing is known of adapters of a new recipe"
        return
    left = int(np.sum(~unseen.judged))
    if left:
        yield f"{left} adapters were not judged with their recipe left out, because too few others remain to train on"
    if new.auc is not None and new.auc.low <= 0.5:
        yield "with each recipe left out the AUC may as well be 0.5: adapters of a new recipe cannot be told apart"
