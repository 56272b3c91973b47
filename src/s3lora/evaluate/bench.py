"""A model, the suites that measure it, and the store of answers: what evaluation, sweep and tuning have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from s3lora.errors import UsageError
from s3lora.evaluate.aggregate import compare, metrics
from s3lora.evaluate.chat import ChatModel
from s3lora.evaluate.results import Key, LearnedShare, Measure, Metric, PairedComparison, SuiteInfo, SuiteOutcome
from s3lora.evaluate.shares import share_of
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from s3lora.measure.scan import Progress

#: What every suite found, by the suite's name.
Outcomes = Mapping[str, SuiteOutcome]
#: Called with the share of the work that is done, in [0, 1], and what is being measured.
Advance = Callable[[float, str], None]


def _ignore(share: float, label: str) -> None:
    """Tell nobody."""


class Bench:
    """Measures a model in whatever state it is; a state that was measured before is not measured again.

    Parameters:
        suites: what to measure; their names must differ.
        store: answers kept on disk, None for none.
        seed: of every bootstrap.
        expected: how many states will be measured, for the progress.
        advance: told how far the work is.
    """

    def __init__(
        self,
        suites: Sequence[Suite],
        store: AnswerStore | None = None,
        *,
        seed: int = 0,
        expected: int = 1,
        advance: Advance | None = None,
    ) -> None:
        """Refuse suites that cannot be told apart."""
        self.suites = tuple(suites)
        self.infos: dict[str, SuiteInfo] = {suite.info.name: suite.info for suite in suites}
        if not suites or len(self.infos) < len(self.suites):
            raise UsageError("give at least one suite, each of them once")
        self.store = store
        self.seed = seed
        self.expected = expected
        self._advance = advance or _ignore
        self._known: dict[str, Outcomes] = {}
        self._done = 0

    def measure(self, model: ChatModel, label: str) -> Outcomes:
        """Return what every suite finds for the model as it is now."""
        identity = model.identity
        if identity not in self._known:
            outcomes = {}
            for i, suite in enumerate(self.suites):
                part = self._part(i, f"{label}: {suite.info.name}")
                part(0, 1)
                outcomes[suite.info.name] = suite.run(model, self.store, part)
            self._known[identity] = outcomes
        self._done += 1
        self.tell(label)
        return self._known[identity]

    def tell(self, label: str) -> None:
        """Say what is being done now, and how many of the states are done."""
        self._advance(min(1.0, self._done / self.expected), label)

    def metrics(self, outcomes: Outcomes) -> tuple[Metric, ...]:
        """Return every measure with its interval."""
        return tuple(m for name, info in self.infos.items() for m in metrics(info, outcomes[name], self.seed))

    def compare(
        self, variant: str, outcomes: Outcomes, reference: str, reference_outcomes: Outcomes
    ) -> tuple[PairedComparison, ...]:
        """Return the paired differences of every measure."""
        return tuple(
            found
            for name, info in self.infos.items()
            for found in compare(info, (variant, outcomes[name]), (reference, reference_outcomes[name]), self.seed)
        )

    def shares(
        self, variant: str, outcomes: Outcomes, adapter: str, adapter_outcomes: Outcomes, base_outcomes: Outcomes
    ) -> tuple[LearnedShare, ...]:
        """Return how much of what the adapter learned a variant has lost, by each measure of utility."""
        return tuple(
            share
            for (name, _), measure in self.measures("utility").items()
            for mine, full, alone in [(outcomes[name], adapter_outcomes[name], base_outcomes[name])]
            if (share := share_of(name, measure, (variant, mine), (adapter, full), alone)) is not None
        )

    def measures(self, role: str) -> dict[Key, Measure]:
        """Return the measures that stand for `safety` or for `utility`."""
        return {key: measure for key, measure in self.all_measures.items() if measure.role == role}

    @property
    def all_measures(self) -> dict[Key, Measure]:
        """Return every measure of every suite."""
        return {(name, m.name): m for name, info in self.infos.items() for m in info.measures}

    def axis(self, role: str) -> Key | None:
        """Return the measure that stands for `safety` or `utility` on a curve: the first one, None without any."""
        return next(iter(self.measures(role)), None)

    def warnings(self, label: str, outcomes: Outcomes) -> list[str]:
        """Return what the suites say about the answers of one variant."""
        return [f"{label}: {text}" for suite in self.suites for text in suite.warnings(outcomes[suite.info.name])]

    def _part(self, i: int, label: str) -> Progress:
        """Return a progress of one suite, told as that of all states."""

        def tell(done: int, total: int) -> None:
            within = (i + done / max(1, total)) / len(self.suites)
            self._advance(min(1.0, (self._done + within) / self.expected), label)

        return tell


__all__ = ["Advance", "Bench", "Key", "Outcomes"]
