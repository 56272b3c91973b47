"""Tune: how many modules to prune from one adapter, chosen on one split of the data and checked on another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

from s3lora.adapter.open import open_adapter
from s3lora.errors import UsageError
from s3lora.evaluate.attach import Attached
from s3lora.evaluate.base_model import BaseToLoad, loaded
from s3lora.evaluate.bench import Advance, Bench, Outcomes
from s3lora.evaluate.evaluation import setup_of
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.rankings import SweepRanking, candidates
from s3lora.evaluate.results import Key, PairedComparison, SweepPoint, Tuning, Variant
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.sweeping import UNPRUNED, SweepTask, point_of, scan_for, variant_of
from s3lora.measure.cost import MAX_COST
from s3lora.measure.scan import Scan

#: Relative loss of utility that is still accepted.
FLOOR = 0.10


@dataclass(frozen=True)
class _Trial:
    """A number of modules, what it did on one split, and how much utility may be lost at most."""

    point: SweepPoint
    worst: float

    def asr(self, key: Key) -> float:
        metric = self.point.metric(*key)
        return 1.0 if metric is None or metric.value is None else metric.value


@dataclass
class _Split:
    """One part of the data: what is measured on it, and the unpruned adapter there."""

    bench: Bench
    variant: Variant
    outcomes: Outcomes


@dataclass
class _Tuner:
    """The adapter in the model, and the order in which its modules go."""

    model: LocalModel
    attached: Attached
    ranking: SweepRanking
    scans: dict[str, Scan]

    def split(self, bench: Bench) -> _Split:
        """Measure the unpruned adapter on a split."""
        return _Split(bench, *variant_of(bench, self.model, UNPRUNED, "adapter", self.attached))

    def trial(self, split: _Split, top: int) -> _Trial:
        """Measure the adapter without its `top` first modules."""
        task = SweepTask(self.ranking, top, self.ranking.plan(self.scans, top))
        self.model.use(self.attached, task.plan.paths)
        outcomes = split.bench.measure(self.model, task.name)
        lost = split.bench.collapses(task.name, outcomes, UNPRUNED, split.outcomes)
        worst = max((loss.loss.high for loss in lost.values()), default=float("inf"))
        return _Trial(point_of(split.bench, task, outcomes, split.outcomes), worst)


def tune(
    adapter: str | os.PathLike[str],
    base: str | BaseToLoad | LocalModel,
    tuning: Sequence[Suite],
    held_out: Sequence[Suite],
    *,
    method: str = "mas-svd",
    index: str = "ssi",
    floor: float = FLOOR,
    store: AnswerStore | None = None,
    seed: int = 0,
    limit: int | None = None,
    advance: Advance | None = None,
    max_cost: float = MAX_COST,
) -> Tuning:
    """Find the number of modules whose pruning gains most safety while utility stays above a floor.

    Parameters:
        adapter: a PEFT folder.
        base: the base model (see `LocalModel`), or one that is loaded already.
        tuning: the suites on the part of the data to choose on.
        held_out: the same suites on another part, which shares no item with it.
        method: the spectral method of the ranking.
        index: the index to rank by; modules leave in this order.
        floor: the relative loss of every utility measure that is accepted, in (0, 1): its 95 % bound must lie below.
        store: answers kept on disk.
        seed: of every bootstrap.
        limit: of the suites, for the record only.
        advance: told how far the work is.
        max_cost: operations that the scan may take, as for `scan`.

    Bisection finds the largest number of modules that keeps to the floor, taking the loss to grow with the number; of
    all numbers tried that do and whose gain is more than no difference, the one with the lowest safety measure is
    taken, the smallest of equals. Where there is none, nothing is worth pruning and `top` is 0.

    Raises UsageError for suites that lack a measure of safety or utility, and for an impossible floor.
    """
    if not 0 < floor < 1:
        raise UsageError(f"a floor of {floor} cannot be meant", fix="give the relative loss, such as 0.1")
    ranking = SweepRanking(index.replace("-", "_"), method)
    with open_adapter(adapter) as opened:
        scans = scan_for(opened, [ranking], max_cost)
        total = candidates(scans[method])
        expected = ceil(log2(total + 1)) + 4
        bench = Bench(tuning, store, seed=seed, expected=expected, advance=advance)
        safety, utility = bench.axis("safety"), bench.axis("utility")
        if safety is None or utility is None:
            raise UsageError("tuning needs a suite for safety and one for utility", fix="add safety, and planning")
        model = loaded(base, [opened], advance)
        tuner = _Tuner(model, model.attach(opened, scans[method].source), ranking, scans)
    first = tuner.split(bench)
    tried = _bisect(tuner, first, total, floor)
    best = _best(tried, safety, floor)
    bench.tell("the held-out split")
    second = tuner.split(Bench(held_out, store, seed=seed))
    confirmed = None if best is None else tuner.trial(second, best.point.top)
    return Tuning(
        setup=setup_of(model, seed, limit),
        adapter=tuner.attached.source,
        suites=tuple(first.bench.infos.values()),
        safety=safety,
        utility=utility,
        floor=floor,
        ranking=ranking.label,
        top=0 if best is None else best.point.top,
        modules_total=total,
        tried=tuple(trial.point for trial in tried),
        tuning_unpruned=first.variant,
        held_out_unpruned=second.variant,
        confirmed=None if confirmed is None else confirmed.point,
        sentence=_sentence(ranking.label, total, floor, safety, tried, best, confirmed),
        warnings=tuple(dict.fromkeys([*model.base.notes, *scans[method].warnings])),
    )


def _bisect(tuner: _Tuner, split: _Split, total: int, floor: float) -> list[_Trial]:
    """Try all modules, then halve the gap between what keeps to the floor and what does not."""
    tried = [tuner.trial(split, total)]
    low, high = 0, total
    if tried[0].worst <= floor:
        low = total
    while high - low > 1:
        middle = (low + high) // 2
        trial = tuner.trial(split, middle)
        tried.append(trial)
        low, high = (middle, high) if trial.worst <= floor else (low, middle)
    return sorted(tried, key=lambda trial: trial.point.top)


def _best(tried: Sequence[_Trial], safety: Key, floor: float) -> _Trial | None:
    """Return the safest trial that keeps to the floor and is safer than the unpruned adapter, None without any."""
    useful = [trial for trial in tried if trial.worst <= floor and _gain(trial, safety) == "lower"]
    return min(useful, key=lambda trial: (trial.asr(safety), trial.point.top), default=None)


def _comparison(trial: _Trial, key: Key) -> PairedComparison | None:
    return next((c for c in trial.point.comparisons if (c.suite, c.measure) == key), None)


def _gain(trial: _Trial, key: Key) -> str:
    found = _comparison(trial, key)
    return "unknown" if found is None else found.verdict


def _sentence(
    ranking: str,
    total: int,
    floor: float,
    safety: Key,
    tried: Sequence[_Trial],
    best: _Trial | None,
    confirmed: _Trial | None,
) -> str:
    """Say the outcome in words, never more than the intervals allow."""
    limit = f"{floor * 100:g} %"
    if best is None or confirmed is None:
        allowed = [trial.point.top for trial in tried if trial.worst <= floor]
        if not allowed:
            return (
                f"Nothing is worth pruning by {ranking}: no number of modules that was tried keeps the loss of utility "
                f"below {limit} with 95 % confidence on the tuning split. More data narrows the interval."
            )
        return (
            f"Nothing is worth pruning by {ranking}: without {max(allowed)} of {total} modules less than {limit} of "
            f"utility is lost with 95 % confidence on the tuning split, but at no number that was tried and keeps to "
            f"that can a fall of {safety[1]} be told from chance."
        )
    held = _comparison(confirmed, safety)
    gained = held is not None and held.verdict == "lower"
    kept = confirmed.worst <= floor
    first = f"Pruning {best.point.top} of {total} modules by {ranking} is chosen on the tuning split."
    safer = (
        f"The held-out split confirms that {safety[1]} falls"
        if gained
        else (f"The held-out split does not confirm that {safety[1]} falls")
    )
    useful = (
        f"and that less than {limit} of utility is lost"
        if kept
        else f"and cannot rule out that more than {limit} of utility is lost"
    )
    joint = "; it " if gained != kept else " "
    useful = useful.removeprefix("and ").replace("that less", "confirms that less") if gained != kept else useful
    return f"{first} {safer}{joint}{useful}." + ("" if held is None else f" {held.sentence}")
