"""What a tuning found, in words that never say more than its intervals allow."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.evaluate.budget import BudgetTest
from s3lora.evaluate.results import LearnedShare, PairedComparison
from s3lora.evaluate.trials import Half, Trial

#: The share of what the adapter added to the measure of safety that a pruning must be able to give back.
WORTH = 0.5


def amount(test: BudgetTest) -> str:
    """Return what was lost by one measure, with its interval."""
    share = test.share
    if share.value is None or share.low is None or share.high is None:
        return f"{share.suite} {share.measure}: cannot be told"
    value, low, high = (f"{100 * end:.3g}" for end in (share.value, share.low, share.high))
    return f"{share.suite} {share.measure}: {value} %, 95 % interval {low} to {high} %"


def unseen_sentence(half: Half, share: LearnedShare) -> str:
    """Say why nothing can be lost by one measure: it does not see the adapter, or there are too few items."""
    found = half.compared((share.suite, share.measure))
    return f"{share.suite} {share.measure}: {share.reason}" + (
        "" if found is None else f" ({found.sentence.rstrip('.')})"
    )


def chosen_sentence(half: Half, ranking: str, total: int, best: Trial, confirmed: Trial) -> str:
    """Say what was chosen, and which half of it the held-out half confirms."""
    name, limit = half.safety[1], _percent(half.floor)
    falls, kept = f"that {name} falls", f"that less than {limit} of what was learned is lost"
    told = ", ".join(amount(test) for test in confirmed.tests)
    if confirmed.safer and confirmed.keeps:
        said = f"The held-out half confirms {falls} and {kept} ({told})."
    elif confirmed.safer:
        said = f"The held-out half confirms {falls}, but not {kept} ({told})."
    elif confirmed.keeps:
        said = f"The held-out half does not confirm {falls}; it confirms {kept} ({told})."
    else:
        said = f"The held-out half confirms neither {falls} nor {kept} ({told})."
    first = f"Pruning {best.top} of {total} modules by {ranking} is chosen on the tuning half."
    return " ".join([first, said, *([confirmed.gain.sentence] if confirmed.gain is not None else [])])


def nothing_sentence(half: Half, ranking: str, total: int, tried: Sequence[Trial]) -> str:
    """Say that nothing is worth pruning, and what rules it out."""
    kept = [trial.top for trial in tried if not trial.exceeds]
    limit = _percent(half.floor)
    if not kept:
        least = min((trial for trial in tried), key=lambda trial: trial.top)
        told = ", ".join(amount(test) for test in least.tests)
        return (
            f"Nothing is worth pruning by {ranking}: every number of modules that was tried loses more than {limit} of "
            f"what was learned with 95 % confidence, down to {least.top} of {total} ({told})."
        )
    return (
        f"Nothing is worth pruning by {ranking}: of the numbers that were tried, all above {max(kept)} of {total} "
        f"modules lose more than {limit} of what was learned, and at {max(kept)} or fewer {half.safety[1]} falls by "
        f"less than half of what the adapter added, both with 95 % confidence."
    )


def untold_sentence(half: Half, ranking: str, total: int, still: Sequence[Trial]) -> str:
    """Say that the data are too few, where, and how many it would take."""
    limit, name = _percent(half.floor), half.safety[1]
    first = f"These data cannot tell whether anything is worth pruning by {ranking}:"
    safer = [trial for trial in still if trial.safer]
    if safer:
        trial = min(safer, key=lambda trial: trial.top)
        told = ", ".join(amount(test) for test in trial.tests)
        needed = [test.needed for test in trial.tests if not test.kept and test.needed is not None]
        more = f" About {max(needed)} items in each half would tell it if that is the true loss." if needed else ""
        return (
            f"{first} without {trial.top} of {total} modules {name} falls, but whether less than {limit} of what was "
            f"learned is lost cannot be told ({told}).{more}"
        )
    trial = max(still, key=lambda trial: (trial.keeps, trial.top))
    kept = f"less than {limit} of what was learned is lost" if trial.keeps else "not told to be too much is lost"
    gain = "" if trial.gain is None else f" {trial.gain.sentence}"
    return f"{first} without {trial.top} of {total} modules {kept}, but whether {name} falls cannot be told.{gain}"


def hopeless_sentence(half: Half, ranking: str, most: PairedComparison | None, tests: Sequence[BudgetTest]) -> str:
    """Say why no trial was made: not even the best that pruning can do would be told."""
    first = f"These data cannot tell whether anything is worth pruning by {ranking}, so nothing was tried:"
    name, limit = half.safety[1], _percent(half.floor)
    if most is None or most.verdict != "lower":
        said = "" if most is None else f" {most.sentence}"
        return f"{first} not even the base alone is told to have a lower {name} than the adapter.{said}"
    which = ", ".join(
        f"{test.share.suite} {test.share.measure} (n = {test.share.n})" for test in tests if not test.kept
    )
    return f"{first} not even a pruning that changes nothing would be told to lose less than {limit} by {which}."


def _percent(share: float) -> str:
    return f"{share * 100:g} %"
