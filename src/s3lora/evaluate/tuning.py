"""Tune: how many modules to prune from one adapter, chosen on one half of the data and checked on the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

from s3lora.adapter.model import Adapter
from s3lora.adapter.open import opening
from s3lora.errors import UsageError
from s3lora.evaluate.base_model import BaseToLoad, loaded
from s3lora.evaluate.bench import Advance, Bench
from s3lora.evaluate.evaluation import setup_of
from s3lora.evaluate.forecast import Power, few_sentence, floor_power, forecast_sentence, gain_power
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.rankings import SweepRanking, candidates, usual_of
from s3lora.evaluate.results import Key, Tuning
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.sweeping import scan_for
from s3lora.evaluate.trials import Half, PrunedModel, Subject, Trial, danger
from s3lora.evaluate.tuning_words import (
    WORTH,
    chosen_sentence,
    hopeless_sentence,
    nothing_sentence,
    unseen_sentence,
    untold_sentence,
)
from s3lora.measure.cost import MAX_COST
from s3lora.statistics import FEWEST
from s3lora.statistics.learned import FEW

#: The share of what was learned that may be lost.
FLOOR = 0.10
Outcome = Literal["confirmed", "not confirmed", "nothing", "cannot tell"]


@dataclass(frozen=True)
class Search:
    """What was looked for, and what came out; see `Tuning`."""

    tuning: Half
    held_out: Half
    utility: Key
    tried: tuple[Trial, ...]
    best: Trial | None
    confirmed: Trial | None
    outcome: Outcome
    powers: tuple[Power, ...]
    forecast: str
    sentence: str
    warnings: tuple[str, ...]


def tune(
    adapter: Adapter | str | os.PathLike[str],
    base: str | BaseToLoad | LocalModel,
    tuning: Sequence[Suite],
    held_out: Sequence[Suite],
    *,
    method: str = "mas-svd",
    index: str | None = None,
    floor: float = FLOOR,
    store: AnswerStore | None = None,
    seed: int = 0,
    limit: int | None = None,
    advance: Advance | None = None,
    tell: Callable[[str], None] | None = None,
    max_cost: float = MAX_COST,
) -> Tuning:
    """Find the number of modules whose pruning gains most safety while what was learned is kept up to a floor.

    Parameters:
        adapter: a PEFT folder, or one that is open.
        base: the base model (see `LocalModel`), or one that is loaded already.
        tuning: the suites on the part of the data to choose on.
        held_out: the same suites on another part, which shares no item with it.
        method: the spectral method of the ranking.
        index: the index to rank by; modules leave in this order. By default SSI, and normalised SSI where ranks differ.
        floor: the share of what the adapter learned over the base that may be lost, in (0, 1). By every measure of
            usefulness that sees the adapter, a paired test must tell that less is lost.
        store: answers kept on disk.
        seed: of every bootstrap.
        limit: of the suites, for the record only.
        advance: told how far the work is.
        tell: told, before the trials, what they can find out.
        max_cost: operations that the scan may take, as for `scan`.

    See `search_number` for how it chooses. Raises UsageError for suites that lack a measure of safety or utility, where
    no measure of utility sees the adapter, and for an impossible floor.
    """
    if not 0 < floor < 1:
        raise UsageError(f"a floor of {floor} cannot be meant", fix="give the share of what was learned, such as 0.1")
    with opening(adapter) as opened:
        ranking = SweepRanking((index or usual_of(opened)).replace("-", "_"), method)
        scans = scan_for(opened, [ranking], max_cost)
        total = candidates(scans[method])
        # More where safety is all back, and fewer modules may do.
        first = Bench(tuning, store, seed=seed, expected=ceil(log2(total + 1)) + 4, advance=advance)
        if first.axis("safety") is None or first.axis("utility") is None:
            raise UsageError("tuning needs a suite for safety and one for utility", fix="add safety, and planning")
        model = loaded(base, [opened], advance)
        subject = PrunedModel(model, model.attach(opened, scans[method].source), ranking, scans, total)
    second = Bench(held_out, store, seed=seed)
    found = search_number(subject, first, second, floor=floor, seed=seed, tell=tell)
    return Tuning(
        setup=setup_of(model, seed, limit),
        adapter=subject.attached.source,
        suites=tuple(first.infos.values()),
        safety=found.tuning.safety,
        utility=found.utility,
        floor=floor,
        ranking=ranking.label,
        top=0 if found.best is None else found.best.top,
        modules_total=total,
        tried=tuple(trial.point for trial in found.tried),
        tuning_unpruned=found.tuning.adapter[0],
        tuning_base=found.tuning.base[0],
        held_out_unpruned=found.held_out.adapter[0],
        held_out_base=found.held_out.base[0],
        confirmed=None if found.confirmed is None else found.confirmed.point,
        outcome=found.outcome,
        forecast=found.forecast,
        sentence=found.sentence,
        warnings=tuple(dict.fromkeys([*model.notes, *scans[method].warnings, *found.warnings])),
    )


def search_number(
    subject: Subject,
    tuning: Bench,
    held_out: Bench,
    *,
    floor: float,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> Search:
    """Choose a number of modules on one half of the data, and check it on the other.

    1. The adapter and the base alone are measured. A measure of usefulness that tells no difference between them is
       left out. What the data can tell is said. Where they could not even tell the best that there can be, it ends.
    2. Bisection finds the largest number of modules with which the floor is kept, taking the loss to grow with the
       number. If that is as safe as the base alone, bisection goes on for the smallest number that still is.
       All modules pruned is the base: it is tried, for it is known, and has lost all that was learned.
    3. Of all numbers tried that keep to the floor and are told to be safer than the adapter, the one with the lowest
       measure of safety is chosen, the smallest of equals.
    4. It is measured once on the other half. *Confirmed* means that both claims hold there at 95 %. That is one test of
       one number, so no correction for the numbers tried is due (and none for two claims that must both hold: Berger
       1982, Technometrics 24, 295).
    """
    safety, utility = tuning.axis("safety"), tuning.axis("utility")
    if safety is None or utility is None:
        raise UsageError("tuning needs a suite for safety and one for utility", fix="add safety, and planning")
    half = Half(subject, tuning, safety, floor)
    keys, warnings = _seeing(half)
    powers = (gain_power(half, seed), *(floor_power(half, key, seed) for key in keys))
    forecast = forecast_sentence(powers, floor)
    few = few_sentence(powers)
    warnings += [few] if few else []
    for said in [forecast, *([few] if few else [])]:
        if tell is not None:
            tell(said)
    ranking, total = subject.ranking.label, subject.total
    most, unchanged = half.compared(safety), half.tests(keys, half.adapter[1])
    tried: tuple[Trial, ...] = ()
    best = confirmed = None
    outcome: Outcome = "cannot tell"
    if most is None or most.verdict != "lower" or not all(test.kept for test in unchanged):
        said = hopeless_sentence(half, ranking, most, unchanged)
    else:
        tried = _bisect(half, keys, total)
        best = min((t for t in tried if t.keeps and t.safer), key=lambda t: (t.danger, t.top), default=None)
    tuning.tell("the held-out half")
    other = Half(subject, held_out, safety, floor)
    if best is not None:
        confirmed = other.trial(best.top, keys)
        outcome = "confirmed" if confirmed.keeps and confirmed.safer else "not confirmed"
        said = chosen_sentence(half, ranking, total, best, confirmed)
    elif tried and most is not None:
        still = [trial for trial in tried if trial.may_be_worth(WORTH * (most.difference or 0.0))]
        if still:
            said = untold_sentence(half, ranking, total, still)
        else:
            outcome, said = "nothing", nothing_sentence(half, ranking, total, tried)
    return Search(half, other, keys[0], tried, best, confirmed, outcome, powers, forecast, said, tuple(warnings))


def _seeing(half: Half) -> tuple[list[Key], list[str]]:
    """Return the measures of usefulness by which the adapter is better than the base, and what is said of the others.

    Raises UsageError if there is none.
    """
    found = half.shares(half.base[1])
    keys = [(share.suite, share.measure) for share in found if not share.reason]
    blind = [share for share in found if share.reason]
    said = [unseen_sentence(half, share) for share in blind]
    if not keys:
        fix = "measure usefulness by what the adapter was trained for"
        if any(share.reason == FEW for share in blind):
            fix = f"give at least {FEWEST} items for each half"
        raise UsageError(f"nothing can be tuned: {'; '.join(said)}", fix=fix)
    return keys, [f"{one}; it was left out" for one in said]


def _bisect(half: Half, keys: Sequence[Key], total: int) -> tuple[Trial, ...]:
    """Find the most modules that may go, then the fewest that do as well if safety is all back."""
    tried = {total: half.trial(total, keys)}

    def at(top: int) -> Trial:
        if top not in tried:
            tried[top] = half.trial(top, keys)
        return tried[top]

    most = total if tried[total].keeps else _last(lambda top: at(top).keeps, 0, total)
    back = danger(half.base[0], half.safety)
    if most and at(most).danger <= back:
        _last(lambda top: at(top).danger > back, 0, most)
    return tuple(tried[top] for top in sorted(tried))


def _last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the last number at which something holds, which holds at `low` and does not at `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
