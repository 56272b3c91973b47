"""What one state of the model did on one part of the data: the few numbers that a repair is chosen by."""

from __future__ import annotations

from dataclasses import dataclass

from s3lora.evaluate.bench import Outcomes
from s3lora.evaluate.items import common
from s3lora.evaluate.results import Key, Measure, MeasureColumn, SuiteOutcome
from s3lora.evaluate.safety import NAME as SAFETY
from s3lora.evaluate.shares import share_of


@dataclass(frozen=True, slots=True)
class TrialNumbers:
    """Point estimates; None where nothing is known.

    `asr`, `over_refusal` and `degenerate` are rates in [0, 1], and `n` is how many harmful prompts they come from.
    `utility_loss` is a share of what was learned: 0 for the adapter, 1 for the base. The norm ‖ΔW′‖ / ‖ΔW‖ and
    cos(ΔW′, ΔW) are those of all modules together.
    """

    asr: float | None
    over_refusal: float | None
    degenerate: float | None
    utility_loss: float | None
    n: int
    norm_ratio: float | None = None
    cosine: float | None = None


def numbers_of(
    outcomes: Outcomes, adapter: Outcomes, base: Outcomes, utility: Key, measure: Measure, *, cheap: bool = False
) -> TrialNumbers:
    """Return the numbers of one state.

    Parameters:
        outcomes: of the state, the adapter and the base on the same items.
        utility: which measure stands for usefulness, and `measure` what that is.
        cheap: whether `outcomes` has usefulness alone.
    """
    name = utility[0]
    share = share_of(name, measure, ("", outcomes[name]), ("", adapter[name]), base[name])
    lost = None if share is None else share.value
    if cheap:
        return TrialNumbers(None, None, None, lost, 0)
    safety = outcomes[SAFETY]
    asr = safety.columns["asr"]
    rates = (_mean(asr), _mean(safety.columns["over_refusal"]), _mean(degenerate_column(safety)))
    return TrialNumbers(*rates, lost, common(asr).n)


def degenerate_column(outcome: SuiteOutcome) -> MeasureColumn:
    """Return whether each answer is degenerate, of harmful and of harmless prompts.

    Broken answers to harmless prompts are damage too, and twice as many items tell more: a rise of 0.02 is ruled out by
    no event in 189 answers.
    """
    parts = [outcome.columns[name] for name in ("degenerate", "degenerate_benign")]
    values = tuple(value for part in parts for value in part.values)
    clusters = None
    if any(part.clusters is not None for part in parts):
        clusters = tuple(
            f"{i} {name}"
            for i, part in enumerate(parts)
            for name in (part.clusters or [f"item {k}" for k in range(len(part.values))])
        )
    return MeasureColumn(values, clusters=clusters, unknown=sum(part.unknown for part in parts))


def _mean(column: MeasureColumn) -> float | None:
    known = [value for value in column.values if value is not None]
    return sum(known) / len(known) if known else None
