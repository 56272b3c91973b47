"""What the callback asks a model of: the loss of the base's refusals, and whether it refuses what the base answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.evaluate.chat import Decoding, Prompt
from s3lora.evaluate.prompts import PromptSet
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.measure.refusal_looks import RefusalLook
from s3lora.measure.series import RefusalRule, rise_of
from s3lora.repair.batches import TokenPair
from s3lora.repair.learning import REFUSAL_TOKENS
from s3lora.repair.losses import Term, row_values
from s3lora.repair.targets import OPENING
from s3lora.training.anchor import answered_pairs, refusal_rows
from s3lora.training.running import LiveModel


@dataclass(frozen=True)
class RefusalQuestions:
    """The base's refusals as tokens, and the harmless prompts that the base answers; `notes` say how many."""

    rows: Sequence[TokenPair]
    harmless: Sequence[Prompt]
    notes: tuple[str, ...]


def refusal_questions(
    model: LiveModel, harmful: PromptSet, harmless: PromptSet | None, judge: RefusalJudge
) -> RefusalQuestions:
    """Ask the base, with the adapter off; raise NothingToAuditError where it refuses too little."""
    with model.resting(base=True):
        rows = refusal_rows(model, harmful, judge, REFUSAL_TOKENS)
        answered = [] if harmless is None else answered_pairs(model, harmless, judge)
    notes = [f"watched: {len(rows)} of {len(harmful)} harmful prompts, which the base refuses"]
    if harmless is not None:
        notes += [f"watched: {len(answered)} of {len(harmless)} harmless prompts, which the base answers"]
    return RefusalQuestions(rows, [pair.prompt for pair in answered], tuple(notes))


def refusal_losses(model: LiveModel, questions: RefusalQuestions) -> list[float]:
    """Return the loss of each refusal as the model is now, in nats a token."""
    with model.resting():
        return row_values(model, Term(questions.rows))


def look(
    model: LiveModel,
    questions: RefusalQuestions,
    start: Sequence[float],
    rule: RefusalRule,
    judge: RefusalJudge,
    step: int,
) -> RefusalLook:
    """Return what became of the refusals since the start."""
    losses = refusal_losses(model, questions)
    differences = [now - before for now, before in zip(losses, start, strict=True)]
    rise, error = rise_of(differences)
    known = math.isfinite(rise)
    return RefusalLook(
        step=step,
        loss=sum(losses) / len(losses) if known else None,
        rise=rise if known else None,
        error=error if math.isfinite(error) else None,
        prompts=len(losses),
        over_refusal=_over_refusal(model, questions.harmless, judge),
        harmless=len(questions.harmless),
        beyond=rule.beyond(differences),
    )


def _over_refusal(model: LiveModel, prompts: Sequence[Prompt], judge: RefusalJudge) -> float | None:
    if not prompts:
        return None
    with model.resting():
        answers = dict(model.generate(prompts, Decoding(max_new_tokens=OPENING)))
    known = [one.text for one in answers.values() if not one.unknown]
    return sum(map(judge.refused, known)) / len(known) if known else None
