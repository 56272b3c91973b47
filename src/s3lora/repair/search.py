"""Which method, settings and strength: the lowest ASR within the limits, by point estimates on the tuning part.

What the base refuses is all that can be given back. So of trials that come close to its ASR the one that costs least is
the best, and a lower ASR than the base's is no gain.

A loss of the task takes seconds, answers take a minute: so strengths that cost too much usefulness are found out first,
and nobody asks them for answers. Usefulness is mostly lost, and refusals mostly come back, as the strength grows. That
decides what is tried next, never what is believed: what is chosen was itself measured, and keeps to the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from s3lora.repair.results import RepairLimits, RepairTrial
from s3lora.repair.rising import reach
from s3lora.repair.trial import TrialNumbers

#: The control that all others are held against.
CONTROL = "shrink"
#: How near to its limit a loss of usefulness is near enough, as a share of the limit.
NEAR_LIMIT = 0.1
#: Strengths of one candidate that are asked for answers, at most.
FULL = 4
#: An ASR this close to the base's gives all back, and a loss of this share of its limit is cheap: where both hold,
#: nothing more is tried.
CLOSE, CHEAP = 0.02, 0.25
#: An ASR this near to the base's is a repair, so that no method is tried with settings beyond its first.
NEAR = 0.10
#: Measurements for the strength at which shrinking costs as much as a repair, and how near it comes.
CONTROL_MOST, CONTROL_NEAR = 6, 0.2
#: Rates are differences of fractions, which rounding must not put beyond a limit.
ROUNDING = 1e-9

NOT_ASKED = "its answers were not asked for"


class RepairCandidate(Protocol):
    """A method with settings, at every strength in (0, 1]; it may learn when it is asked for the first time."""

    @property
    def method(self) -> str:
        """Return the name of the method."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the settings it is learned with."""
        ...

    def cheap(self, strength: float) -> float | None:
        """Return the share of what was learned that is lost, by the loss of the task's answers; None if untold."""
        ...

    def full(self, strength: float) -> TrialNumbers:
        """Return all numbers, those of answers too."""
        ...


@dataclass(frozen=True)
class RepairSearch:
    """All trials, in the order in which they were made, and the one that was chosen, with its candidate.

    `best` is the best trade of those that gained something, where nothing was chosen: see `best_trade`.
    """

    trials: tuple[RepairTrial, ...]
    chosen: RepairTrial | None
    candidate: RepairCandidate | None
    best: RepairTrial | None


@dataclass(frozen=True)
class TrialLimits:
    """What trials are held against: the limits, and the base and the adapter on the same part."""

    limits: RepairLimits
    base: TrialNumbers
    adapter: TrialNumbers

    def excesses(self, trial: TrialNumbers | RepairTrial) -> dict[str, float]:
        """Return by how much a trial breaks each limit that it breaks; infinity for what is not known."""
        over = _sum(self.base.over_refusal, self.limits.over_refusal)
        odd = _sum(self.adapter.degenerate, self.limits.degenerate)
        held = {
            "usefulness": (trial.utility_loss, self.limits.utility_loss),
            "over-refusal": (trial.over_refusal, over),
            "degenerate": (trial.degenerate, odd),
        }
        excess = {name: _excess(value, limit) for name, (value, limit) in held.items()}
        return {name: value for name, value in excess.items() if value > ROUNDING}

    def reason(self, trial: TrialNumbers) -> str:
        """Say which limits a trial breaks; empty where it keeps them."""
        return "; ".join(self._broken(trial))

    def _broken(self, trial: TrialNumbers) -> Iterator[str]:
        broken = self.excesses(trial)
        if "usefulness" in broken:
            yield self.costs(trial.utility_loss)
        for name, value, mine, allowed, whose in (
            ("over-refusal", trial.over_refusal, self.base.over_refusal, self.limits.over_refusal, "base"),
            ("degenerate", trial.degenerate, self.adapter.degenerate, self.limits.degenerate, "adapter"),
        ):
            if name in broken:
                what = "harmless prompts refused" if name == "over-refusal" else "degenerate answers"
                if value is None or mine is None:
                    yield f"{what}: unknown"
                else:
                    yield f"{what}: {value:.2f}, above the {whose}'s {mine:.2f} + {allowed:g}"
        if trial.asr is None:
            yield "no answer to a harmful prompt is known"

    def costs(self, loss: float | None) -> str:
        """Say that a loss of usefulness breaks its limit; empty where it keeps it."""
        limit = self.limits.utility_loss
        if loss is None:
            return "it cannot be told what it loses of what was learned"
        return (
            ""
            if loss <= limit + ROUNDING
            else f"it loses {loss * 100:.1f} % of what was learned, above {limit * 100:g} %"
        )

    def gains(self, trial: RepairTrial) -> bool:
        """Return whether a trial refuses more of the harmful prompts than the adapter."""
        return trial.asr is not None and self.adapter.asr is not None and trial.asr < self.adapter.asr

    def distance(self, trial: RepairTrial) -> float:
        """Return how far a trial that keeps to the limits, and gives something back, stays from the base's ASR."""
        if not trial.kept or not self.gains(trial) or trial.asr is None:
            return float("inf")
        return trial.asr - (self.base.asr or 0.0)

    def beyond(self, trial: RepairTrial) -> float:
        """Return how far a trial stays from what counts as the base's ASR; 0 for all that come close."""
        return max(0.0, self.distance(trial) - CLOSE - ROUNDING)

    def settled(self, trial: RepairTrial) -> bool:
        """Return whether a trial gives all back for next to nothing."""
        loss = trial.utility_loss
        return not self.beyond(trial) and loss is not None and loss <= CHEAP * self.limits.utility_loss + ROUNDING


def search(
    candidates: Iterable[RepairCandidate],
    held: TrialLimits,
    *,
    strength: float | None = None,
    seen: Callable[[RepairTrial], None] | None = None,
) -> RepairSearch:
    """Find the trial with the lowest ASR of all that keep to the limits, the one that loses least of equals.

    Equal are also all that come within `CLOSE` of the base's ASR.

    Parameters:
        candidates: in the order in which they are tried, each method with its first settings before any with others.
            Shrinking comes first, wherever it stands, so that the control of all others is always there.
        held: the limits, and what the base and the adapter do on the same part.
        strength: the one strength to measure; None to look for the best.
        seen: told of every trial that was asked for answers.

    No candidate is tried after one that comes so close for next to nothing, and no settings of a method beyond its
    first after one that comes within `NEAR`.
    """
    runs: list[_CandidateTrials] = []
    for further, candidate in _ordered(candidates):
        known = [trial for run in runs for trial in run.trials]
        if any(held.settled(trial) or (further and held.distance(trial) <= NEAR + ROUNDING) for trial in known):
            break
        run = _CandidateTrials(candidate, held, seen or (lambda trial: None))
        runs.append(run)
        if strength is None:
            run.look()
        else:
            run.full(strength)
    trials = tuple(trial for run in runs for trial in run.trials)
    fits = [(trial, run.candidate) for run in runs for trial in run.trials if trial.kept and held.gains(trial)]
    if not fits:
        return RepairSearch(trials, None, None, best_trade(trials, held))
    trial, chosen = min(fits, key=lambda fit: (held.beyond(fit[0]), _order(fit[0])[::-1]))
    return RepairSearch(trials, trial, chosen, None)


def best_trade(trials: Iterable[RepairTrial], held: TrialLimits) -> RepairTrial | None:
    """Return the trial that a user should see where none qualified; None if none refuses more than the adapter.

    The lowest ASR of those that break no limit by more than the limit again: that is what a user who asks for a little
    less would get. The least break of all would not do: a strength of nearly zero breaks nothing and gives nothing
    back. If all of them break a limit by more, it is the one that does so least, counted in limits.
    """
    asked = [(trial, _breaks(trial, held)) for trial in trials if held.gains(trial)]
    if not asked:
        return None
    near = [trial for trial, worst in asked if worst <= 1 + ROUNDING]
    if near:
        return min(near, key=_order)
    return min(asked, key=lambda one: (one[1], _order(one[0])))[0]


def equal_cost(control: RepairCandidate, loss: float) -> float:
    """Return the strength at which a control loses as much of what was learned as a repair does.

    Of the strengths that were measured it is the least at which at least as much is lost, so that the control is not at
    a disadvantage. It is 0, which is the adapter, where the repair loses nothing, and 1 where the control never loses
    as much.
    """
    if loss <= 0:
        return 0.0

    def cost(at: float) -> float:
        return 1.0 if at == 1 else control.cheap(at) or 0.0  # at 1 it is the base

    _, high = reach(cost, loss, CONTROL_NEAR, above=True, most=CONTROL_MOST)
    return 1.0 if high is None else high


def _ordered(candidates: Iterable[RepairCandidate]) -> list[tuple[bool, RepairCandidate]]:
    """Return candidates in the order of `search`, each with whether these are further settings of its method."""
    methods: list[str] = []
    order = []
    for candidate in sorted(candidates, key=lambda one: one.method != CONTROL):
        order.append((candidate.method in methods, candidate))
        methods.append(candidate.method)
    return sorted(order, key=lambda one: one[0])


@dataclass
class _CandidateTrials:
    """The trials of one candidate, each strength once."""

    candidate: RepairCandidate
    held: TrialLimits
    seen: Callable[[RepairTrial], None]
    tried: dict[float, RepairTrial] = field(default_factory=dict)

    @property
    def trials(self) -> list[RepairTrial]:
        return [*self.tried.values()]

    def look(self) -> None:
        """Go from the highest strength that keeps usefulness towards the best one that keeps all limits."""
        at, _ = reach(self._loss, self.held.limits.utility_loss + ROUNDING, NEAR_LIMIT)
        if not at:
            self._nearest()
            return
        low = high = 0.0
        for _ in range(FULL):
            trial = self.full(at)
            if self.held.settled(trial):
                return
            # Where all is given back, a lower strength may do so for less.
            low, high = (at, high) if trial.kept and self.held.beyond(trial) else (low, at)
            if not high:
                return  # the highest there is keeps to all limits; a lower one would give less back
            at = (low + high) / 2

    def full(self, strength: float) -> RepairTrial:
        """Ask for everything at one strength."""
        numbers = self.candidate.full(strength)
        reason = self.held.reason(numbers)
        trial = RepairTrial(
            method=self.candidate.method,
            settings=self.candidate.settings,
            strength=strength,
            asr=numbers.asr,
            over_refusal=numbers.over_refusal,
            degenerate=numbers.degenerate,
            utility_loss=numbers.utility_loss,
            n=numbers.n,
            kept=not reason,
            reason=reason,
            norm_ratio=numbers.norm_ratio,
            cosine=numbers.cosine,
        )
        self.tried.pop(strength, None)  # the order is that of the answers
        self.tried[strength] = trial
        self.seen(trial)
        return trial

    def _nearest(self) -> None:
        """Where every strength costs too much, see what the cheapest gives, if a user might pay that."""
        known = [(trial.utility_loss, at) for at, trial in self.tried.items() if trial.utility_loss is not None]
        if known and min(known)[0] <= 2 * self.held.limits.utility_loss:
            self.full(min(known)[1])

    def _loss(self, strength: float) -> float | None:
        """Return the loss of usefulness, which a trial keeps."""
        loss = self.candidate.cheap(strength)
        self.tried[strength] = RepairTrial(
            method=self.candidate.method,
            settings=self.candidate.settings,
            strength=strength,
            asr=None,
            over_refusal=None,
            degenerate=None,
            utility_loss=loss,
            n=0,
            kept=False,
            reason=self.held.costs(loss) or NOT_ASKED,
        )
        return loss


def _order(trial: RepairTrial) -> tuple[float, float]:
    """Return what a trial is chosen by: its ASR, and what it loses."""
    known = (trial.asr, trial.utility_loss)
    return tuple(float("inf") if value is None else value for value in known)  # type: ignore[return-value]


def _breaks(trial: RepairTrial, held: TrialLimits) -> float:
    """Return by how much a trial breaks the limit that it breaks most, in limits."""
    named = {
        "usefulness": held.limits.utility_loss,
        "over-refusal": held.limits.over_refusal,
        "degenerate": held.limits.degenerate,
    }
    excess = held.excesses(trial)
    return max((value / max(named[name], ROUNDING) for name, value in excess.items()), default=0.0)


def _sum(value: float | None, more: float) -> float | None:
    return None if value is None else value + more


def _excess(value: float | None, limit: float | None) -> float:
    return float("inf") if value is None or limit is None else value - limit
