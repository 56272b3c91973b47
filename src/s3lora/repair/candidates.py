"""A method with its settings on the tuning part: learned when it is first asked, and measured at any strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3lora.adapter.model import Adapter
from s3lora.evaluate.bench import Advance, Outcomes
from s3lora.repair.geometry import moved
from s3lora.repair.measuring import LOSS, PartBench
from s3lora.repair.methods.method import Learned, RepairMethod, RepairSubject
from s3lora.repair.trial import TrialNumbers, numbers_of
from s3lora.rewrite.factors import NewFactors

#: What is done with factors before they are measured and written, such as bringing them back to their rank.
Finish = Callable[[NewFactors], NewFactors]


def as_they_are(factors: NewFactors) -> NewFactors:
    """Return the factors."""
    return factors


@dataclass
class MethodCandidate:
    """See `search.RepairCandidate`; `base` and `adapter` are what these do on the tuning part."""

    kind: RepairMethod
    settings: Mapping[str, Any]
    subject: RepairSubject
    bench: PartBench
    base: Outcomes
    adapter: Outcomes
    advance: Advance
    finish: Finish = as_they_are
    _learned: Learned | None = field(default=None, init=False)

    @property
    def method(self) -> str:
        """Return the name of the method."""
        return self.kind.name

    @property
    def learned(self) -> Learned:
        """Return what the method has found, once."""
        if self._learned is None:
            self._learned = self.kind.learn(self.subject, self.settings, self.advance)
        return self._learned

    def factors(self, strength: float) -> NewFactors:
        """Return what would be written at a strength."""
        return self.finish(self.learned.at(strength))

    def cheap(self, strength: float) -> float | None:
        """Return the share of what was learned that is lost."""
        return self.bench.utility_loss(self.factors(strength), self._label(strength), self.base, self.adapter)

    def full(self, strength: float) -> TrialNumbers:
        """Return all numbers."""
        factors = self.factors(strength)
        outcomes = self.bench.adapter(factors, self._label(strength))
        numbers = numbers_of(outcomes, self.adapter, self.base, LOSS, self.bench.measure)
        return with_geometry(numbers, self.subject.adapter, factors)

    def _label(self, strength: float) -> str:
        settings = ", ".join(f"{name} {value:g}" for name, value in self.settings.items() if name != "index")
        return f"{self.method}{f' ({settings})' if settings else ''} at strength {strength:g}"


def with_geometry(numbers: TrialNumbers, adapter: Adapter, factors: NewFactors) -> TrialNumbers:
    """Add how far the update is moved."""
    norm, cosine = moved(adapter.modules, factors)
    return TrialNumbers(
        numbers.asr, numbers.over_refusal, numbers.degenerate, numbers.utility_loss, numbers.n, norm, cosine
    )
