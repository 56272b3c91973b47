"""Learning a few numbers of a repair from a few prompts: the loss, its anchors, and the steps of Adam."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from s3lora.evaluate.attach import Attached
from s3lora.evaluate.bench import Advance
from s3lora.evaluate.local import LocalModel
from s3lora.needs import need
from s3lora.repair.batches import TokenPair, drawn, tokens_of
from s3lora.repair.losses import Anchor, Term, anchors_of, gradients
from s3lora.repair.targets import Targets

#: Of Adam: gradients below it count as rounding, whose sign would be a step of its own.
EPSILON = 1e-6
#: Tokens of each answer that are learned from: how an answer opens decides between a refusal and an answer.
REFUSAL_TOKENS, HARMLESS_TOKENS, TASK_TOKENS = 8, 8, 64


@dataclass(frozen=True, slots=True)
class Steps:
    """How something is learned.

    Parameters:
        steps: steps of Adam.
        rate: its rate, which falls to a tenth by half a cosine.
        harmful: prompts of a step, and so `harmless` and `task`.
        harmless_weight: of the KL divergence on harmless prompts, against 1 of the refusals.
        task_weight: the same on the task.
    """

    steps: int = 40
    rate: float = 0.05
    harmful: int = 6
    harmless: int = 4
    task: int = 2
    harmless_weight: float = 1.0
    task_weight: float = 2.0


@dataclass(frozen=True)
class LearningRows:
    """The rows that are learned from: anchored at the base on harmless prompts, and at the adapter on its task."""

    refusals: Sequence[TokenPair]
    harmless: Sequence[TokenPair]
    task: Sequence[TokenPair]
    harmless_anchors: Sequence[Anchor]
    task_anchors: Sequence[Anchor]

    def terms(self) -> tuple[Term, Term]:
        """Return the losses of what was lost, and of what was learned, over all rows."""
        return Term(self.refusals), Term(self.task, anchors=self.task_anchors)


def learning_rows(model: LocalModel, attached: Attached, targets: Targets) -> LearningRows:
    """Return the targets as tokens with their anchors; afterwards the adapter is on.

    Harmless prompts are anchored at the base, whose answers they have: it tells them from harmful ones, and an anchor
    at the adapter would hold back what gives refusals back.
    """
    refusals = tokens_of(model, targets.refusals, REFUSAL_TOKENS)
    harmless = tokens_of(model, targets.harmless, HARMLESS_TOKENS)
    task = tokens_of(model, targets.task, TASK_TOKENS)
    model.use()
    harmless_anchors = anchors_of(model, harmless)
    model.use(attached)
    return LearningRows(refusals, harmless, task, harmless_anchors, anchors_of(model, task))


def learn(
    model: LocalModel,
    rows: LearningRows,
    leaves: Sequence[Any],
    how: Steps,
    *,
    seed: int,
    label: str,
    advance: Advance,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Take the steps; `after` each, what was learned may be put back into its range."""
    torch = need("torch")
    optimizer = torch.optim.Adam(leaves, lr=how.rate, eps=EPSILON)
    refusals = drawn(rows.refusals, how.harmful, f"refusals-{seed}")
    harmless = _anchored(rows.harmless, rows.harmless_anchors, how.harmless, f"harmless-{seed}")
    task = _anchored(rows.task, rows.task_anchors, how.task, f"task-{seed}")
    for step in range(how.steps):
        for group in optimizer.param_groups:
            group["lr"] = how.rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / how.steps)))
        terms = [Term(next(refusals)), harmless(how.harmless_weight), task(how.task_weight)]
        _, found = gradients(model, [term for term in terms if term.rows and term.weight], leaves)
        for leaf, gradient in zip(leaves, found, strict=True):
            leaf.grad = gradient.to(leaf.dtype)
        optimizer.step()
        after()
        advance((step + 1) / how.steps, label)


def _anchored(rows: Sequence[TokenPair], anchors: Sequence[Anchor], size: int, seed: str) -> Callable[[float], Term]:
    """Return what makes a term of the next few rows, each with its anchor."""
    place = {id(row): i for i, row in enumerate(rows)}
    batches = drawn(rows, size, seed) if rows and size else iter(list, None)

    def term(weight: float) -> Term:
        batch = next(batches)
        return Term(batch, weight, [anchors[place[id(row)]] for row in batch])

    return term
