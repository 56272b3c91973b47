"""The proof of a repair: base, adapter, repair and shrunk control on the test part, once, and what that says."""

from __future__ import annotations

from dataclasses import dataclass, field

from s3lora.evaluate.bench import Bench, Outcomes
from s3lora.evaluate.prompts import PromptSet
from s3lora.evaluate.results import PairedComparison, SuiteInfo, Variant
from s3lora.evaluate.safety import SafetySuite
from s3lora.repair.candidates import MethodCandidate
from s3lora.repair.card import SecondTask, ShrunkControl, acceptance_card
from s3lora.repair.data import RepairData, TaskPrompts
from s3lora.repair.measuring import ADAPTER, BASE, LOSS, OPENINGS, PartBench, task_suite
from s3lora.repair.results import CardAnswer, Constraint, RepairLimits, RepairTrial
from s3lora.repair.search import CONTROL, equal_cost
from s3lora.repair.verdict import RepairSides, constraints
from s3lora.rewrite.factors import NewFactors

REPAIRED, SHRUNK, SECOND = "repaired", "shrunk", "second-task"
#: How many states of the model the test part sees.
STATES = 4


@dataclass(frozen=True)
class Proof:
    """What the test part says: see `Repair`, whose fields these are."""

    base: Variant
    adapter: Variant
    repaired: Variant
    shrunk: Variant | None
    suites: tuple[SuiteInfo, ...]
    comparisons: tuple[PairedComparison, ...]
    constraints: tuple[Constraint, ...]
    card: tuple[CardAnswer, ...]
    warnings: tuple[str, ...] = field(default=())


def prove(
    chosen: RepairTrial,
    candidate: MethodCandidate,
    control: MethodCandidate,
    data: RepairData,
    test: PartBench,
    limits: RepairLimits,
) -> Proof:
    """Measure the test part, which nothing was chosen on.

    Parameters:
        chosen: the trial whose method, settings and strength these are.
        candidate: what gives its factors.
        control: shrinking, which is measured at the strength that costs as much on the tuning part.
        data: for fresh prompts and a second task, where there are some.
        test: the model on the test part.
        limits: what the repair may cost.
    """
    factors = candidate.factors(chosen.strength)
    base, adapter, repaired = test.base(), test.adapter(), test.adapter(factors, REPAIRED)
    sides = RepairSides(base, adapter, repaired, LOSS, test.measure)
    found = constraints(sides, limits)
    shrunk = _shrunk(chosen, control, test)
    card = acceptance_card(
        found,
        chosen.method,
        limits,
        repaired,
        shrunk=shrunk,
        fresh=_fresh(data.fresh, test, factors),
        second=_second(data.second, test, factors),
    )
    bench = test.whole
    outcomes = {BASE: base, ADAPTER: adapter, REPAIRED: repaired}
    variants = {name: test.variant(name, one, adapter, base) for name, one in outcomes.items()}
    others = () if shrunk is None else bench.compare(REPAIRED, repaired, SHRUNK, shrunk.outcomes)
    return Proof(
        variants[BASE],
        variants[ADAPTER],
        variants[REPAIRED],
        None if shrunk is None else test.variant(SHRUNK, shrunk.outcomes, adapter, base),
        tuple(bench.infos.values()),
        (
            *bench.compare(ADAPTER, adapter, BASE, base),
            *bench.compare(REPAIRED, repaired, ADAPTER, adapter),
            *bench.compare(REPAIRED, repaired, BASE, base),
            *others,
        ),
        found,
        card,
        tuple(text for name, one in outcomes.items() for text in bench.warnings(name, one)),
    )


def _shrunk(chosen: RepairTrial, control: MethodCandidate, test: PartBench) -> ShrunkControl | None:
    """Measure shrinking at the same loss of usefulness."""
    if chosen.method == CONTROL or chosen.utility_loss is None:
        return None
    strength = equal_cost(control, chosen.utility_loss)
    lost = control.cheap(strength) if strength else 0.0
    outcomes = test.adapter(control.factors(strength), SHRUNK)
    return ShrunkControl(outcomes, strength, chosen.utility_loss, lost or 0.0)


def _fresh(fresh: PromptSet | None, test: PartBench, factors: NewFactors) -> tuple[Outcomes, Outcomes] | None:
    """Ask the adapter and its repair harmful prompts of another source."""
    if fresh is None:
        return None
    nothing = PromptSet("none", ())
    bench = test.beside([SafetySuite(fresh, nothing, test.refusals, OPENINGS)])
    return test.adapter(label=f"{ADAPTER}, fresh prompts", bench=bench), test.adapter(
        factors, f"{REPAIRED}, fresh prompts", bench=bench
    )


def _second(second: TaskPrompts | None, test: PartBench, factors: NewFactors) -> SecondTask | None:
    """Measure what a repair does to another task than that which was learned from."""
    if second is None:
        return None
    bench: Bench = test.beside([task_suite(test.model, test.attached, second, SECOND)])
    key = (SECOND, "loss")
    return SecondTask(
        test.base(bench),
        test.adapter(bench=bench),
        test.adapter(factors, REPAIRED, bench),
        key,
        bench.all_measures[key],
    )
