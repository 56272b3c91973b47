"""What selection rules are given, and what they give back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from s3lora.measure.cost import MAX_COST, NOTHING, Estimate, Shaped
from s3lora.measure.scan import ModuleScan, Progress
from s3lora.spectrum.indices import Index


class Unit(NamedTuple):
    """What is ranked: a module, or a whole layer.

    `value` is the index; `sharpness` is the same number, rounded as `ties.rounded` does, with the sign that puts sharp
    units first. `kind` is the projection (or `layer`), within which outliers are looked for; `shapes` are (m, n, rank)
    of its modules.
    """

    name: str
    value: float
    sharpness: float
    kind: str
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What a rule chose: positions in the ranked list, why, and what the user should be told."""

    chosen: tuple[int, ...]
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may need besides the ranked units: the index, how the scan computed it, and how units combine it.

    A rule that simulates takes at most `max_cost` operations, and tells `progress` how many shapes are done.
    """

    index: Index | None
    method: str
    components: int | None
    fit: str = "l2"
    combine: str = "mean"
    max_cost: float = MAX_COST
    progress: Progress | None = None


def usual_index(modules: Iterable[ModuleScan]) -> str:
    """Return the index that ranks modules unless another is asked for: SSI within one rank, else normalised SSI.

    SSI is at least 1/M, so that of modules of several ranks those of the lowest seem sharp.
    """
    return index_of_ranks(len(module.sigma) for module in modules if module.sigma)


def index_of_ranks(ranks: Iterable[int]) -> str:
    """Return the same for the ranks of modules.

    >>> index_of_ranks([8, 8]), index_of_ranks([8, 4])
    ('ssi', 'normalised_ssi')
    """
    return "normalised_ssi" if len(set(ranks)) > 1 else "ssi"


@runtime_checkable
class Rule(Protocol):
    """Anything that chooses among ranked units."""

    def choose(self, ranked: Sequence[Unit], context: Context) -> RuleVerdict:
        """Return the positions chosen from `ranked`, which is sorted sharpest first."""

    def __str__(self) -> str:
        """Return the rule as the user would write it."""


@runtime_checkable
class SimulatingRule(Protocol):
    """A rule that measures updates which it makes itself, and so takes time of its own."""

    def cost(self, shapes: Collection[tuple[int, int, int]]) -> Estimate:
        """Return what it costs to choose among modules of these shapes (m, n, rank)."""


def rule_cost(rule: Rule, modules: Iterable[Shaped]) -> Estimate:
    """Return what a rule costs that chooses among these modules, besides their measurement."""
    if not isinstance(rule, SimulatingRule):
        return NOTHING
    return rule.cost({(module.m, module.n, module.rank) for module in modules})
