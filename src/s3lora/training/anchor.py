"""An anchor at the base's refusals: how far a model that is being trained has moved from them, as a term of a loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

from s3lora.errors import NothingToAuditError, UsageError
from s3lora.evaluate.data.kinds import PromptKind
from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.evaluate.prompts import PromptSet, Request, built_in, read_prompts
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.repair.batches import TokenPair, drawn, tokens_of
from s3lora.repair.learning import REFUSAL_TOKENS
from s3lora.repair.losses import Term, anchors_of, loss_of, row_values
from s3lora.repair.targets import TargetPair, harmless_pairs, refusal_pairs
from s3lora.training.running import LiveModel

#: Prompts as they are given: `built-in`, a file as `s3lora eval` takes it, or texts.
GivenPrompts = str | PathLike[str] | Sequence[str]
BUILT_IN = "built-in"
#: Built-in prompts of each kind that are used; those that `s3lora eval` asks are not among them.
MOST = 32
#: Fewer refusals than this are too few to hold on to, or to tell a rise from chance.
LEAST = 4


class _Held:
    """Answers of the base that are held on to, and the order in which they come."""

    def __init__(self, model: LiveModel, rows: Sequence[TokenPair], batch: int, order: str) -> None:
        """Keep what the model, which is the base now, says at each token."""
        self.rows = tuple(rows)
        self._anchors = anchors_of(model, rows)
        self._place = {id(row): i for i, row in enumerate(self.rows)}
        self._batches: Iterator[list[TokenPair]] = drawn(self.rows, min(batch, len(self.rows)), order)

    def next(self) -> Term:
        """Return the next of them."""
        batch = next(self._batches)
        return Term(batch, anchors=[self._anchors[self._place[id(row)]] for row in batch])

    def all(self) -> Term:
        """Return all of them."""
        return Term(self.rows, anchors=self._anchors)


class RefusalAnchor:
    """KL(base ‖ model) on the base's own refusals, in nats a token: `anchor()` is a scalar with gradients, at least 0.

    At each token of a refusal the 64 likeliest tokens of the base are told apart, and all others count as one, which
    can only make it smaller. The model is in evaluation mode meanwhile, so that dropout adds nothing. Each call takes
    the next `batch` refusals, in an order drawn with `seed` in which each comes once before any comes again. With
    harmless prompts the same divergence on as many of the base's answers to these is added to it.

    `rows` are the refusals as tokens, `answers` those to harmless prompts, `notes` say how many there are.
    """

    def __init__(self, model: LiveModel, refusals: _Held, answers: _Held | None, notes: tuple[str, ...]) -> None:
        """Keep what the base says."""
        self._model = model
        self._held = [refusals] if answers is None else [refusals, answers]
        self.rows = refusals.rows
        self.answers = () if answers is None else answers.rows
        self.notes = notes

    def __len__(self) -> int:
        """Return the number of refusals."""
        return len(self.rows)

    def __call__(self) -> Any:
        """Return the divergence on the next refusals, and answers; gradients pass through."""
        terms = [held.next() for held in self._held]
        with self._model.resting():
            return sum(loss_of(self._model, term) for term in terms)

    def values(self) -> list[float]:
        """Return the divergence on each refusal as it is now, in nats a token."""
        with self._model.resting():
            return row_values(self._model, self._held[0].all())


def refusal_anchor(
    model: Any,
    tokenizer: Any,
    prompts: GivenPrompts = BUILT_IN,
    *,
    harmless: GivenPrompts | None = None,
    batch: int = 4,
    tokens: int = REFUSAL_TOKENS,
    judge: RefusalJudge | None = None,
    seed: int = 0,
) -> RefusalAnchor:
    """Return an anchor at the base's refusals, to be added to a loss with a weight.

    The base answers the prompts once, here, with the adapter switched off, and what it refuses is held on to.

    Examples:
        >>> from s3lora.training import add_to_loss, refusal_anchor
        >>> anchor = refusal_anchor(trainer.model, tokenizer, harmless="built-in")  # doctest: +SKIP
        >>> add_to_loss(trainer, anchor, weight=1.0)  # doctest: +SKIP

    Parameters:
        model: a PEFT model whose base refuses, such as `trainer.model`.
        tokenizer: its tokenizer.
        prompts: harmful prompts: texts, a file as `s3lora eval` takes it, or `built-in` for 32 mild ones.
        harmless: the same of harmless prompts, whose answers are held on to as well; without them the model comes to
            refuse more (docs/training.md).
        batch: refusals, and answers, of one call; each takes one forward pass with gradients.
        tokens: of each refusal and answer, the first so many are held.
        judge: what tells a refusal; by default the evaluator's.
        seed: of the order of the prompts.

    Raises NothingToAuditError where the base refuses fewer than 4 of the prompts, or all of the harmless ones,
    UsageError where `model` is no PEFT model or a number is below 1, DataFileError for what cannot be read.
    """
    if batch < 1 or tokens < 1:
        raise UsageError("refusals of one call, and tokens of each, must be 1 or more")
    live = LiveModel(model, tokenizer)
    asked = prompt_set(prompts)
    good = None if harmless is None else prompt_set(harmless, "benign")
    judge = judge or refusal_judge(None)
    answers = None
    with live.resting(base=True):
        rows = refusal_rows(live, asked, judge, tokens)
        notes = [f"anchored at {len(rows)} of {len(asked)} harmful prompts, which the base refuses"]
        refusals = _Held(live, rows, batch, f"anchor-{seed}")
        if good is not None:
            rows = tokens_of(live, answered_pairs(live, good, judge), tokens)
            if not rows:
                raise NothingToAuditError("no answer to a harmless prompt fits into the context of the model")
            notes += [f"anchored at {len(rows)} of {len(good)} harmless prompts, which the base answers"]
            answers = _Held(live, rows, batch, f"anchor-harmless-{seed}")
    return RefusalAnchor(live, refusals, answers, tuple(notes))


def refusal_rows(model: LiveModel, asked: PromptSet, judge: RefusalJudge, tokens: int) -> list[TokenPair]:
    """Return what the model, as it is now, refuses, as tokens; raise NothingToAuditError where that is too little."""
    rows = tokens_of(model, refusal_pairs(model, asked.prompts, judge), tokens)
    if len(rows) < LEAST:
        what = f"{model.name} itself refuses {len(rows)} of {len(asked)} prompts"
        raise NothingToAuditError(
            f"there are too few refusals to hold on to: {what}",
            fix=f"begin with an aligned model, or give prompts of which it refuses {LEAST} or more",
        )
    return rows


def answered_pairs(model: LiveModel, asked: PromptSet, judge: RefusalJudge) -> list[TargetPair]:
    """Return what the model, as it is now, answers; raise NothingToAuditError where it refuses all of it."""
    found = harmless_pairs(model, asked.prompts, judge)
    if not found:
        raise NothingToAuditError(
            f"{model.name} refuses all {len(asked)} harmless prompts", fix="give harmless prompts that it answers"
        )
    return found


def prompt_set(given: GivenPrompts, kind: PromptKind = "harmful") -> PromptSet:
    """Return prompts of a kind, `harmful` or `benign`; of the built-in ones, those that `eval` does not ask."""
    if isinstance(given, str) and given == BUILT_IN:
        return built_in(kind, "repair").ordered().take(MOST, 0)
    if isinstance(given, str | PathLike):
        return read_prompts(str(given), kind=kind)
    return PromptSet("prompts", tuple(Request(text) for text in dict.fromkeys(given)))
