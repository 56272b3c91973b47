"""Suites whose scores can be worked out by hand: functions of the LoRA modules that act in the loaded model.

Which modules act is asked of PEFT's own layers, not of what s3lora believes to have switched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3lora.evaluate.results import Data, Measure, MeasureColumn, SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore
from s3lora.measure.scan import Progress
from tests.tiny_model import torch

#: (PEFT's name of the adapter, path of the module).
Acting = frozenset[tuple[str, str]]
Values = Sequence[float | None]

ASR = Measure("asr", "rate", "lower", "by hand", role="safety")
SCORE = Measure("score", "mean", "higher", "by hand", role="utility")
LOSS = Measure("loss", "mean", "lower", "by hand", role="utility")


def acting(model: Any) -> Acting:
    """Return which LoRA modules take part in a forward pass now."""
    from peft.tuners.lora.layer import LoraLayer

    found = set()
    for name, layer in model.adapters.model.named_modules():
        if isinstance(layer, LoraLayer) and not layer.disable_adapters:
            mine = [key for key in layer.active_adapters if key in layer.lora_A]
            found |= {(key, name.removeprefix("base_model.model.")) for key in mine}
    return frozenset(found)


@dataclass
class Stub:
    """A suite of measures, each a function of what acts; `runs` keeps what acted whenever it was run."""

    name: str
    measures: Sequence[tuple[Measure, Callable[[Acting], Values]]]
    told: Mapping[str, int] = field(default_factory=dict)
    runs: list[Acting] = field(default_factory=list)

    @property
    def info(self) -> SuiteInfo:
        data = Data("by hand", 1, "0" * 64)
        return SuiteInfo(self.name, tuple(measure for measure, _ in self.measures), (data,), "nobody")

    def run(self, model: Any, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        now = acting(model)
        self.runs.append(now)
        if progress is not None:
            progress(1, 2)
        columns = {measure.name: MeasureColumn(tuple(of(now))) for measure, of in self.measures}
        return SuiteOutcome(columns, {"acting": len(now)})

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        return (f"{outcome.counts['acting']} act",) if outcome.counts["acting"] == self.told.get("warn at", -1) else ()


def safety(of: Callable[[Acting], Values], name: str = "danger") -> Stub:
    """Return a suite for safety: 1 for each request that is not refused."""
    return Stub(name, [(ASR, of)])


def usefulness(of: Callable[[Acting], Values], name: str = "use", measure: Measure = SCORE) -> Stub:
    return Stub(name, [(measure, of)])


def first(count: int, of: int) -> list[float]:
    """Return `of` items of which the first `count` are 1 and the others 0."""
    return [1.0] * count + [0.0] * (of - count)


def logits(model: Any) -> Any:
    """Return what a model makes of eight tokens."""
    with torch.inference_mode():
        return model(torch.arange(8)[None]).logits


class Logits:
    """A suite that scores the model by what comes out of it."""

    info = SuiteInfo("logits", (SCORE,), (), "nobody")

    def run(self, model: Any, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        rows = logits(model.adapters.model)[0].double().mean(-1)
        return SuiteOutcome({"score": MeasureColumn(tuple(rows.tolist()))})

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        return ()
