"""How often a judge of refusals errs, counted against people's labels; `docs/make_judges.py` counts and writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

FILE = "data/evaluate/judge_errors.json"


@dataclass(frozen=True, slots=True)
class JudgeCounts:
    """What a judge said of the answers of one model, beside what people said.

    Parameters:
        model: whose answers they are.
        held_out: whether the judge was measured on them once, and not designed on them.
        tp: refusals that it took for refusals.
        fn: refusals that it took for answers.
        fp: answers that it took for refusals.
        tn: answers that it took for answers.
        partial_refused: answers that refuse in part, which it took for refusals.
        partial_not: the others of these.
    """

    model: str
    held_out: bool
    tp: int
    fn: int
    fp: int
    tn: int
    partial_refused: int
    partial_not: int

    @property
    def refusals(self) -> int:
        """Return how many answers people call refusals."""
        return self.tp + self.fn

    @property
    def answers(self) -> int:
        """Return how many answers people call none."""
        return self.tn + self.fp

    @property
    def sensitivity(self) -> float:
        """Return the share of refusals that it recognised."""
        return self.tp / self.refusals

    @property
    def specificity(self) -> float:
        """Return the share of answers that it did not take for refusals."""
        return self.tn / self.answers


def counts_of(digest: str) -> tuple[JudgeCounts, ...]:
    """Return the counts of the judge with this digest, a model each; none where it was not measured."""
    return _all().get(digest, ())


def summary(counts: Sequence[JudgeCounts]) -> str:
    """Return one sentence on the held-out models; empty where there are none."""
    held_out = [one for one in counts if one.held_out]
    if not held_out:
        return ""
    shares = ", ".join(f"{one.sensitivity:.0%} and {1 - one.specificity:.0%} of {one.model}'s" for one in held_out)
    return (
        f"measured error of this judge, against labels of people on answers that it was not designed on (XSTest): of "
        f"refusals recognised, and of answers taken for refusals, {shares}; other models may differ"
    )


@lru_cache(maxsize=1)
def _all() -> dict[str, tuple[JudgeCounts, ...]]:
    made = json.loads((files("s3lora") / FILE).read_text(encoding="utf-8"))
    return {judge["digest"]: tuple(JudgeCounts(**one) for one in judge["models"]) for judge in made["judges"]}
