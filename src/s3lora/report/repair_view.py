"""A repair in the order in which it is shown: states, verdicts, modules and directions. Nothing here is computed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.evaluate.results import Key, LearnedShare, Metric, Variant
from s3lora.repair.results import CardAnswer, Completeness, Constraint, ModuleAttribution, Repair, RepairTrial
from s3lora.report.values import NOTHING, change_text, learned_text, measure_of, percent
from s3lora.rewrite.repair_record import RecordedAnswer

#: The measures of a repair beside that of safety, as far as they were taken.
BESIDE = ("over_refusal", "degenerate", "degenerate_benign")
#: A direction that is multiplied by less than this has gone.
GONE = 0.5


def states(repair: Repair) -> list[tuple[str, Variant]]:
    """Return what was measured, before and after: base, adapter, repaired, and the shrunk control, where they are."""
    named = (("base", repair.base), ("adapter", repair.adapter), ("repaired", repair.repaired),
             ("shrunk", repair.shrunk))  # fmt: skip
    return [(name, variant) for name, variant in named if variant is not None]


def measured_keys(repair: Repair) -> list[Key]:
    """Return the rates that are shown: ASR, over-refusal, degenerate answers, those that were measured."""
    suite = repair.safety[0]
    keys = [repair.safety, *((suite, name) for name in BESIDE)]
    return [key for key in keys if any(metric_of(variant, key) is not None for _, variant in states(repair))]


def metric_of(variant: Variant, key: Key) -> Metric | None:
    """Return a metric that has a number."""
    metric = variant.metric(*key)
    return None if metric is None or metric.value is None else metric


def rate_name(repair: Repair, key: Key) -> str:
    """Return what a rate is called in the table, with an arrow to where it is better.

    All rates of a repair are better where they are lower, also where nothing is known of the suite.
    """
    measure = measure_of(repair.suites, key)
    return f"{key[1] if measure is None else measure.name} ↓"


def lost(repair: Repair, variant: Variant) -> LearnedShare | None:
    """Return what a state has lost of what was learned, None for base and adapter: those are 100 % and 0 %."""
    return None if repair.utility is None else variant.learned(*repair.utility)


def lost_text(repair: Repair, variant: Variant) -> str:
    """Return the share of what was learned that a state has lost, with its interval."""
    if variant.kind in ("base", "adapter"):
        return "100 %" if variant.kind == "base" else "0 %"
    return learned_text(lost(repair, variant))


def items(repair: Repair, key: Key) -> str:
    """Return from how many items a row of the table comes."""
    counts = sorted({m.n for _, variant in states(repair) if (m := metric_of(variant, key)) is not None})
    return NOTHING if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def lost_items(repair: Repair) -> str:
    """Return from how many items the shares of what was learned come."""
    counts = sorted({share.n for _, one in states(repair) if (share := lost(repair, one)) is not None})
    return NOTHING if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def estimate(constraint: Constraint) -> str:
    """Return the estimate of a constraint with its 95 % interval."""
    value, low, high = constraint.value, constraint.low, constraint.high
    if value is None or low is None or high is None:
        return "cannot be told"
    if constraint.name == "usefulness":
        return f"{value * 100:.1f} % [{low * 100:.1f}, {high * 100:.1f}]".replace("-", "−")
    return change_text(value, low, high, 3)


def limit(constraint: Constraint) -> str:
    """Return what a constraint allows."""
    if constraint.name == "refusals":
        return "below 0"
    return f"{constraint.limit * 100:g} %" if constraint.name == "usefulness" else f"{constraint.limit:+g}"


def would_confirm(constraint: Constraint) -> str:
    """Return how many items would confirm a constraint if its estimate is the truth."""
    if constraint.verdict == "confirmed":
        return ""
    return "no number" if constraint.needed is None else f"about {constraint.needed:,}"


def answered(answer: CardAnswer | RecordedAnswer) -> str:
    """Return the answer to a question of the acceptance card in a word or three."""
    if not answer.asked:
        return "not asked"
    return {True: "passed", False: "failed", None: "cannot be told"}[answer.passed]


def evidence(answer: CardAnswer | RecordedAnswer) -> str:
    """Return what is said besides the answer itself."""
    return answer.sentence.removeprefix("not asked: ") if not answer.asked else answer.sentence


def module_name(module: ModuleAttribution) -> str:
    """Return what a sentence calls a module: its projection and layer, or the path where it has no layer."""
    return module.path if module.layer is None else f"{module.projection} of layer {module.layer}"


def carries(module: ModuleAttribution) -> str:
    """Say what a module has to do with what was lost and what was learned.

    >>> carries(ModuleAttribution(path="h.17.v_proj", layer=17, projection="v_proj", lost=0.12, learned=0.02))
    'v_proj of layer 17 carries 12 % of what was lost and 2 % of what was learned'
    """
    return (
        f"{module_name(module)} carries {signed_percent(module.lost)} of what was lost and "
        f"{signed_percent(module.learned)} of what was learned"
    )


def signed_percent(share: float) -> str:
    """Return a share that may be negative.

    >>> signed_percent(-0.002), signed_percent(0.12)
    ('−0.2 %', '12 %')
    """
    return f"{'−' * (share < 0)}{percent(abs(share))}"


def by_loss(repair: Repair) -> list[ModuleAttribution]:
    """Return the modules, those first that carry most of what was lost."""
    if repair.attribution is None:
        return []
    return sorted(repair.attribution.modules, key=lambda module: -module.lost)


@dataclass(frozen=True, slots=True)
class RepairDirection:
    """One singular direction of a module, counted from 1: what it carries, and its gate where there is one."""

    module: ModuleAttribution
    position: int
    lost: float
    learned: float
    gate: float | None

    @property
    def given_back(self) -> float:
        """Return how much of what was lost its gate takes away, to first order; without gates, what it carries."""
        return self.lost if self.gate is None else self.lost * (1 - self.gate)


def directions(repair: Repair) -> list[RepairDirection]:
    """Return all singular directions, those first that the repair takes most from."""
    found = []
    for module in () if repair.attribution is None else repair.attribution.modules:
        shares = zip(module.lost_by_direction, module.learned_by_direction, strict=False)
        for i, (gone, learned) in enumerate(shares):
            gate = module.gates[i] if i < len(module.gates) else None
            found.append(RepairDirection(module, i + 1, gone, learned, gate))
    return sorted(found, key=lambda one: -one.given_back)


def gates_text(found: Sequence[RepairDirection]) -> str:
    """Say how many directions the gates take away, nothing where there are no gates."""
    gates = [one.gate for one in found if one.gate is not None]
    if not gates:
        return ""
    return f"gates below {GONE:g}: {sum(gate < GONE for gate in gates):,} of {len(gates):,} directions"


def completeness_text(one: Completeness) -> str:
    """Say how well the attributions add up to what they explain."""
    added = f"{one.attributed:.2f} of {one.difference:.2f} nats".replace("-", "−")
    return f"{one.of} {added}, {percent(one.error)} off"


def settings_text(trial: RepairTrial | Repair) -> str:
    """Return the settings of a method, as it names them."""
    return ", ".join(f"{name} {_plain(value)}" for name, value in trial.settings.items())


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def trial_name(trial: RepairTrial) -> str:
    """Return the method of a trial with its settings."""
    told = settings_text(trial)
    return f"{trial.method} ({told})" if told else trial.method


def is_chosen(repair: Repair, trial: RepairTrial) -> bool:
    """Return whether a trial is the one that was proved."""
    return (trial.method, trial.settings, trial.strength) == (repair.method, repair.settings, repair.strength)


def in_order(repair: Repair) -> list[RepairTrial]:
    """Return the trials by method and settings, in the order in which they were tried first, then by strength."""
    names = list(dict.fromkeys(trial_name(trial) for trial in repair.trials))
    return sorted(repair.trials, key=lambda trial: (names.index(trial_name(trial)), trial.strength))


def next_steps(
    repair: Repair, out: str | None = None, path: str | None = None, base: str | None = None
) -> list[tuple[str, str]]:
    """Return what to do next, as (command, what it is for); the command is empty where there is none.

    `path` and `base` are as they were given, where somebody gave them.
    """
    adapter, written, model = path or repair.source.name or "ADAPTER", out or "REPAIRED", base or "MODEL"
    if repair.written:
        measure = shlex.join(["s3lora", "eval", written, adapter, "--base", model])
        back = shlex.join(["s3lora", "restore", written, "--from", adapter, "-o", "RESTORED"])
        forced = (
            [("", "it was written by --force: it does not keep to all limits")] if repair.outcome != "repaired" else []
        )
        return [*forced, (measure, "measures it on prompts of your own"), (back, "puts the original back")]
    if repair.outcome == "repaired":
        again = shlex.join(["s3lora", "repair", adapter, "--base", model, "-o", written])
        return [(again, "writes it; this run wrote nothing")]
    own = "--task with data of your own makes a better repair; more prompts (--harmful, --harmless) tell more"
    if repair.outcome == "refuted":
        return [("", own), ("", "nothing was written; --force writes it all the same")]
    more = "--max-utility-loss allows a larger loss; --force proves and writes the best trade that was seen"
    return [("", own), ("", more)]
