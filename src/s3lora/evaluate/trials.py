"""One half of the data for `tune`: the adapter and the base alone on it, and what pruning does there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from s3lora.evaluate.attach import Attached, State
from s3lora.evaluate.bench import Bench, Outcomes
from s3lora.evaluate.budget import BudgetTest, budget_test
from s3lora.evaluate.chat import ChatModel
from s3lora.evaluate.items import Items, common
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.rankings import SweepRanking
from s3lora.evaluate.results import Key, LearnedShare, PairedComparison, SweepPoint, Variant
from s3lora.evaluate.sweeping import BASE, UNPRUNED, SweepTask, point_of, variant_of
from s3lora.measure.scan import Scan


class Subject(Protocol):
    """An adapter on its base, of which any number of modules can be switched off in the order of one ranking."""

    ranking: SweepRanking
    total: int

    @property
    def model(self) -> ChatModel:
        """Return the model in the state that was asked for last."""

    def variant(self, bench: Bench, *, alone: bool) -> tuple[Variant, Outcomes]:
        """Measure the adapter without pruning, or the base alone."""

    def use(self, top: int) -> SweepTask:
        """Switch the first `top` modules of the ranking off, and return what that is."""


@dataclass
class PrunedModel:
    """A `Subject` that is a real model."""

    model: LocalModel
    attached: Attached
    ranking: SweepRanking
    scans: dict[str, Scan]
    total: int

    def variant(self, bench: Bench, *, alone: bool) -> tuple[Variant, Outcomes]:
        """Measure the adapter without pruning, or the base alone."""
        if alone:
            return variant_of(bench, self.model, BASE, "base", None)
        return variant_of(bench, self.model, UNPRUNED, "adapter", self.attached)

    def use(self, top: int) -> SweepTask:
        """Switch the first `top` modules of the ranking off, and return what that is."""
        task = SweepTask(self.ranking, top, self.ranking.plan(self.scans, top))
        self.model.adapters.use(State(self.attached, frozenset(task.plan.paths)))
        return task


@dataclass(frozen=True)
class Trial:
    """A number of modules, and what pruning them did on one half of the data.

    `tests` are of the floor, one a measure that sees the adapter; `gain` is the difference of safety to the adapter;
    `danger` is the value of that measure, higher being worse.
    """

    point: SweepPoint
    tests: tuple[BudgetTest, ...]
    gain: PairedComparison | None
    danger: float

    @property
    def top(self) -> int:
        """Return how many modules were pruned."""
        return self.point.top

    @property
    def keeps(self) -> bool:
        """Return whether every measure confirms that less than the floor is lost."""
        return bool(self.tests) and all(test.kept for test in self.tests)

    @property
    def exceeds(self) -> bool:
        """Return whether some measure rules out that no more than the floor is lost."""
        return any(test.exceeded for test in self.tests)

    @property
    def safer(self) -> bool:
        """Return whether the measure of safety is told to have fallen."""
        return self.gain is not None and self.gain.verdict == "lower"

    def may_be_worth(self, change: float) -> bool:
        """Return whether the data allow that the floor is kept and safety changes by as much as `change`, below 0."""
        return not self.exceeds and (self.gain is None or self.gain.low is None or self.gain.low <= change)


@dataclass
class Half:
    """One half of the data, with the adapter and the base alone measured on it."""

    subject: Subject
    bench: Bench
    safety: Key
    floor: float
    adapter: tuple[Variant, Outcomes] = field(init=False)
    base: tuple[Variant, Outcomes] = field(init=False)

    def __post_init__(self) -> None:
        """Measure the two that everything is compared with."""
        self.adapter = self.subject.variant(self.bench, alone=False)
        self.base = self.subject.variant(self.bench, alone=True)

    def tests(self, keys: Sequence[Key], outcomes: Outcomes) -> tuple[BudgetTest, ...]:
        """Test by each of these measures that less than the floor is lost of what was learned."""
        return self._tests(keys, outcomes, self.shares(outcomes))

    def _tests(self, keys: Sequence[Key], outcomes: Outcomes, shares: Sequence[LearnedShare]) -> tuple[BudgetTest, ...]:
        measures, known = self.bench.measures("utility"), {(share.suite, share.measure): share for share in shares}
        return tuple(budget_test(known[key], measures[key], self.items(key, outcomes), self.floor) for key in keys)

    def shares(self, outcomes: Outcomes) -> tuple[LearnedShare, ...]:
        """Return what is lost of what was learned, by every measure of usefulness."""
        return self.bench.shares("", outcomes, UNPRUNED, self.adapter[1], self.base[1])

    def items(self, key: Key, outcomes: Outcomes) -> Items:
        """Return the items that this outcome, the adapter and the base have a number for."""
        return common(*(side[key[0]].columns[key[1]] for side in (outcomes, self.adapter[1], self.base[1])))

    def trial(self, top: int, keys: Sequence[Key]) -> Trial:
        """Measure the adapter without its `top` first modules, and test the floor by the measures of `keys`."""
        task = self.subject.use(top)
        outcomes = self.bench.measure(self.subject.model, task.name)
        point = point_of(self.bench, task, outcomes, self.adapter[1], self.base[1])
        gain = _of(point.comparisons, self.safety)
        return Trial(point, self._tests(keys, outcomes, point.shares), gain, danger(point, self.safety))

    def compared(self, key: Key) -> PairedComparison | None:
        """Return by how much the base alone differs from the adapter: for safety, the most that can be given back."""
        return _of(self.bench.compare(BASE, self.base[1], UNPRUNED, self.adapter[1]), key)


def danger(measured: SweepPoint | Variant, safety: Key) -> float:
    """Return the value of the measure of safety, the worst there is where nothing was measured."""
    metric = measured.metric(*safety)
    return float("inf") if metric is None or metric.value is None else metric.value


def _of(comparisons: Sequence[PairedComparison], key: Key) -> PairedComparison | None:
    return next((c for c in comparisons if (c.suite, c.measure) == key), None)
