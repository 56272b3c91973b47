"""The test of a budget: is less than a share of what the adapter learned lost, by one measure, on these items?"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from s3lora.evaluate.items import Items
from s3lora.evaluate.results import LearnedShare, Measure
from s3lora.statistics import WithinBudget, within_budget
from s3lora.statistics.learned import LEVEL


@dataclass(frozen=True)
class BudgetTest:
    """What was lost by one measure, and the test that it is less than the budget.

    `needed` is how many items the test needs for a power of 0.8 if as much is truly lost as is seen; None where that
    is no less than the budget.
    """

    share: LearnedShare
    budget: float
    p: float
    needed: int | None

    @property
    def kept(self) -> bool:
        """Return whether it is told that less than the budget is lost."""
        return self.p < LEVEL

    @property
    def exceeded(self) -> bool:
        """Return whether it is told that more is lost."""
        return self.share.low is not None and self.share.low > self.budget


def tested(measure: Measure, items: Items, budget: float, truly: float) -> WithinBudget:
    """Test that less than the budget is lost; the columns are those of a variant, of the adapter and of the base.

    `truly` is the loss that power and numbers are given for.
    """
    if not items.n or measure.better == "neither":
        return WithinBudget(0.0, 1.0, 0.0, None)
    variant, adapter, base = items.columns
    weights, clusters, rate = items.weights, items.clusters, measure.kind == "rate"
    return within_budget(
        variant, adapter, base, budget, weights, clusters, better=measure.better, rate=rate, truly=truly
    )


def budget_test(share: LearnedShare, measure: Measure, items: Items, budget: float) -> BudgetTest:
    """Test that a variant lost less than `budget` of what the adapter learned."""
    found = tested(measure, items, budget, budget if share.value is None else share.value)
    # The test counts clusters; a user gives items.
    needed = None if found.needed is None else ceil(found.needed * items.n / items.units)
    return BudgetTest(share, budget, found.p, needed)
