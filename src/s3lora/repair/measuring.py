"""Measuring one part of the data: how often harmful and harmless prompts are refused, and how likely the task is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.evaluate.attach import Attached, State
from s3lora.evaluate.bench import Advance, Bench, Outcomes
from s3lora.evaluate.chat import Decoding
from s3lora.evaluate.likelihood import LossSuite
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.evaluate.results import Data, Measure, Variant
from s3lora.evaluate.safety import NAME as SAFETY
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from s3lora.repair.data import RepairPart, TaskPrompts
from s3lora.repair.targets import task_pairs
from s3lora.repair.trial import numbers_of
from s3lora.rewrite.factors import NO_FACTORS, NewFactors

#: The measures that a repair goes by.
TASK = "task-loss"
ASR, LOSS = (SAFETY, "asr"), (TASK, "loss")
#: Tokens of the adapter's own answers on its task.
ANSWER_TOKENS = 64
BASE, ADAPTER = "base", "adapter"
#: How answers are drawn: their openings tell refusals, and are asked for many times.
OPENINGS = Decoding(max_new_tokens=32)


def task_suite(model: LocalModel, attached: Attached, task: TaskPrompts, name: str = TASK) -> LossSuite:
    """Return the suite that tells how likely the task's answers are: the user's references, or the adapter's own."""
    pairs = task_pairs(model, attached, task, ANSWER_TOKENS)
    of = "reference answers of the task" if task.references else "adapter's own answers on the task"
    data = Data(task.data.name, len(pairs), task.data.sha256, task.built_in)
    instead = "give prompts that the adapter answers"
    known = dict(zip((prompt.digest for prompt in task.prompts), task.ids, strict=True)) if task.ids else {}
    ids = tuple(known.get(pair.prompt.digest, "") for pair in pairs)
    texts = tuple((pair.prompt, pair.answer) for pair in pairs)
    cut = frozenset(place for place, pair in enumerate(pairs) if not pair.whole)
    return LossSuite(name, of, data, texts, instead, task.notes, ids, cut)


@dataclass
class PartBench:
    """A model with an adapter, measured on one part: cheaply by the task alone, or wholly."""

    model: LocalModel
    attached: Attached
    refusals: RefusalJudge
    usefulness: Bench
    whole: Bench

    @classmethod
    def of(
        cls,
        model: LocalModel,
        attached: Attached,
        part: RepairPart,
        refusals: RefusalJudge,
        *,
        store: AnswerStore | None,
        seed: int,
        advance: Advance | None,
        expected: int,
    ) -> PartBench:
        """Make the suites of a part; the adapter answers its task at once where there are no references."""
        task = task_suite(model, attached, part.task)
        safety = SafetySuite(part.harmful, part.harmless, refusals, OPENINGS)
        cheap = Bench([task], store, seed=seed)
        whole = Bench([safety, task], store, seed=seed, expected=expected, advance=advance)
        return cls(model, attached, refusals, cheap, whole)

    @property
    def measure(self) -> Measure:
        """Return the measure of usefulness."""
        return self.whole.all_measures[LOSS]

    def beside(self, suites: Sequence[Suite]) -> Bench:
        """Return a bench of other suites, for the same model."""
        return Bench(suites, self.whole.store, seed=self.whole.seed)

    def base(self, bench: Bench | None = None) -> Outcomes:
        """Measure the base alone."""
        self.model.use()
        return (bench or self.whole).measure(self.model, BASE)

    def adapter(self, factors: NewFactors = NO_FACTORS, label: str = ADAPTER, bench: Bench | None = None) -> Outcomes:
        """Measure the adapter, as it is or with new factors."""
        self.model.adapters.use(State(self.attached, factors=factors))
        return (bench or self.whole).measure(self.model, label)

    def utility_loss(self, factors: NewFactors, label: str, base: Outcomes, adapter: Outcomes) -> float | None:
        """Return the share of what was learned that is lost with new factors: no answer is asked for."""
        outcomes = self.adapter(factors, label, self.usefulness)
        return numbers_of(outcomes, adapter, base, LOSS, self.measure, cheap=True).utility_loss

    def variant(self, name: str, outcomes: Outcomes, adapter: Outcomes, base: Outcomes) -> Variant:
        """Return what was measured of a state, for the report."""
        plain = name in (BASE, ADAPTER)
        return Variant(
            name=name,
            kind="base" if name == BASE else "adapter" if name == ADAPTER else "repaired",
            adapter=None if name == BASE else self.attached.source,
            metrics=self.whole.metrics(outcomes),
            shares=() if plain else self.whole.shares(name, outcomes, ADAPTER, adapter, base),
        )

    def shown(self, base: Outcomes, adapter: Outcomes) -> tuple[Variant, Variant]:
        """Return base and adapter, for the report."""
        return self.variant(BASE, base, adapter, base), self.variant(ADAPTER, adapter, adapter, base)
