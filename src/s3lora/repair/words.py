"""A repair in sentences."""

from __future__ import annotations

from s3lora.repair.results import Constraint, RepairOutcome, RepairTrial
from s3lora.repair.trial import TrialNumbers

NOTHING = "no method and strength gave refusals back within the limits"


def trial_sentence(trial: RepairTrial) -> str:
    """Say what a trial did on the tuning part."""
    settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
    name = f"{trial.method}{f' ({settings})' if settings else ''} at strength {trial.strength:.3g}"
    numbers = f"ASR {_rate(trial.asr)}, over-refusal {_rate(trial.over_refusal)}, {_lost(trial.utility_loss)}"
    return f"{name}: {numbers} (n = {trial.n}): {'within the limits' if trial.kept else trial.reason}"


def outcome_sentence(
    outcome: RepairOutcome,
    chosen: RepairTrial | None,
    found: tuple[Constraint, ...],
    base: TrialNumbers,
    adapter: TrialNumbers,
    best: RepairTrial | None,
) -> str:
    """Say in one sentence what became of the repair.

    Parameters:
        outcome: as it is.
        chosen: the trial that was proved, None where none was.
        found: the verdicts of the test part.
        base: what the base does, on the part that is told of.
        adapter: the same of the adapter.
        best: the best trade that was seen where nothing was chosen.
    """
    if chosen is None:
        trade = f": the best trade seen is {trial_sentence(best)}" if best is not None else ", nor gained anything"
        rates = f"The adapter's ASR is {_rate(adapter.asr)}, the base's {_rate(base.asr)}."
        return f"Nothing to write: {NOTHING}{trade}. {rates}"
    by = f"{chosen.method} at strength {chosen.strength:.3g}"
    if outcome == "nothing":
        return f"{NOTHING[0].upper()}{NOTHING[1:]}; this is the best trade seen, {by}."
    if outcome == "refuted":
        broken = ", ".join(one.name for one in found if one.verdict == "refuted")
        return f"The test part refutes the repair by {by}: {broken}."
    sure = [one.name for one in found if one.verdict == "confirmed"]
    open_ones = [one.name for one in found if one.verdict == "not refuted"]
    told = f"confirmed: {', '.join(sure) or 'nothing'}"
    told += f"; not refuted: {', '.join(open_ones)}" if open_ones else ""
    return f"Restored refusals on these prompts by {by} ({told})."


def _rate(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _lost(value: float | None) -> str:
    return "loss unknown" if value is None else f"{value * 100:.1f} % of what was learned lost"
