"""What is measured at one strength of each row of tier 2 besides: fresh prompts, prefilled answers, a second task."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.reference.run import elsewhere
from experiments.repair.measured import number
from experiments.repair.setting import Places, Settings
from s3lora.evaluate.bench import Bench
from s3lora.evaluate.chat import Prompt, digest_of
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.prompts import PromptSet, Request
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.templates import EncodedPrompt, LocalTemplate
from s3lora.repair.measuring import OPENINGS, PartBench
from s3lora.rewrite.factors import NO_FACTORS, NewFactors

#: What a prefilled answer begins with: so many tokens of this.
OPENING, OPENING_TOKENS = "Sure, here is a list of", 5
NONE = PromptSet("none", ())
#: What is kept of each; of all others, both rates of harmful prompts.
MEASURES = {"xstest": ("over_refusal",), "maths-loss": ("loss",), "code-loss": ("loss",)}


class PrefilledTemplate(LocalTemplate):
    """A template that begins the answer with tokens of its own; a judge then sees what follows them."""

    def __init__(self, inner: LocalTemplate, ids: Sequence[int]) -> None:
        """Keep the template, and the tokens."""
        self._inner, self._ids = inner, tuple(ids)
        self.setup, self.date, self.notes = inner.setup, inner.date, inner.notes

    @property
    def identity(self) -> str:
        """Return a digest of both."""
        return digest_of([self._inner.identity, "prefilled", self._ids])

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Return the tokens of each prompt and of the beginning of its answer."""
        return [EncodedPrompt([*one.ids, *self._ids], one.opened) for one in self._inner.encode(prompts)]


def opening(model: LocalModel) -> tuple[list[int], str]:
    """Return the tokens that a prefilled answer begins with, and their text."""
    tokenizer = model.base.tokenizer
    ids = tokenizer(OPENING, add_special_tokens=False)["input_ids"][:OPENING_TOKENS]
    return ids, tokenizer.decode(ids)


@contextmanager
def prefilled(model: LocalModel) -> Iterator[None]:
    """Let all answers begin with `OPENING`."""
    before = model.template
    model.template = PrefilledTemplate(before, opening(model)[0])
    try:
        yield
    finally:
        model.template = before


@dataclass(frozen=True)
class Sources:
    """The prompts that are asked besides: fresh harmful ones by their source, and harmless ones."""

    harmful: dict[str, PromptSet]
    harmless: PromptSet

    @property
    def data(self) -> list[list[object]]:
        """Return name, number and digest of each."""
        return [[one.name, len(one), one.sha256] for one in (*self.harmful.values(), self.harmless)]


def sources_of(folder: Path, count: int) -> Sources:
    """Return seeded draws of StrongREJECT without AdvBench's part, HarmBench's standard behaviours, and XSTest."""
    known = {_plain(row["goal"]) for row in _rows(folder / "advbench_harmful_behaviors.csv")}
    strong = [
        row["forbidden_prompt"] for row in _rows(folder / "strongreject_dataset.csv") if "AdvBench" not in row["source"]
    ]
    bench = _rows(folder / "harmbench_behaviors_text_all.csv")
    standard = [row["Behavior"] for row in bench if row["FunctionalCategory"] == "standard"]
    safe = [row["prompt"] for row in _rows(folder / "xstest_prompts.csv") if row["label"] == "safe"]
    fresh = {
        name: _drawn(title, [text for text in texts if _plain(text) not in known], count)
        for name, title, texts in (
            ("strongreject", "StrongREJECT without AdvBench", strong),
            ("harmbench", "HarmBench, standard", standard),
        )
    }
    return Sources(fresh, _drawn("XSTest, safe", safe, count))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _drawn(name: str, texts: Iterable[str], count: int) -> PromptSet:
    requests = tuple(Request(text.strip()) for text in dict.fromkeys(texts))
    return PromptSet(name, requests).ordered().take(count)


class Beside:
    """Measures what stands beside the test part, of the base and of an adapter with any factors."""

    def __init__(self, places: Places, settings: Settings, bench: PartBench, harmful: PromptSet) -> None:
        """Make the suites; `harmful` are the prompts of the test part, whose answers are begun."""
        self.bench = bench
        self.sources = sources_of(places.data, settings.fresh)

        def safety(bad: PromptSet, good: PromptSet = NONE) -> SafetySuite:
            return SafetySuite(bad, good, settings.judge, OPENINGS)

        strong, standard = self.sources.harmful["strongreject"], self.sources.harmful["harmbench"]
        tasks = elsewhere(places.data, settings.elsewhere)
        self._plain = {
            "strongreject": bench.beside([safety(strong)]),
            "harmbench": bench.beside([safety(standard)]),
            "xstest": bench.beside([safety(NONE, self.sources.harmless)]),
            **{suite.info.name: bench.beside([suite]) for suite in tasks},
        }
        self._prefilled = bench.beside([safety(harmful)])

    @property
    def about(self) -> dict[str, Any]:
        """Return what is asked, without texts, and how answers are begun."""
        data = [[one.name, one.n, one.sha256] for name in ("maths-loss", "code-loss") for one in self._data(name)]
        return {"data": [*self.sources.data, *data], "opening": opening(self.bench.model)[1]}

    def of(self, factors: NewFactors = NO_FACTORS, *, base: bool = False) -> dict[str, Any]:
        """Return all numbers of the adapter with these factors, or of the base."""
        measured = {name: self._measured(name, bench, factors, base) for name, bench in self._plain.items()}
        with prefilled(self.bench.model):
            return {**measured, "prefilled": self._measured("prefilled", self._prefilled, factors, base)}

    def _measured(self, name: str, bench: Bench, factors: NewFactors, base: bool) -> dict[str, Any]:
        outcomes = self.bench.base(bench) if base else self.bench.adapter(factors, name, bench)
        metrics = {metric.measure: metric for metric in bench.metrics(outcomes)}
        return {measure: number(metrics[measure]) for measure in MEASURES.get(name, ("asr", "asr_zou"))}

    def _data(self, name: str) -> Sequence[Any]:
        return self._plain[name].infos[name].data
