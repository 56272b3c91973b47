"""Losses of answers with their gradients: how surprised the model is by them, and how far it has moved from before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from s3lora.evaluate.local import LocalModel
from s3lora.needs import need
from s3lora.repair.batches import TokenPair

#: The likeliest tokens that are told apart in an anchor; all others count together, which can only make KL smaller.
KEPT = 64
#: Tokens, padding included, in one pass with gradients.
PASS_TOKENS = 512
#: Below this, a probability is taken as this: its logarithm would be infinite.
TINY = 1e-9


class Anchor(NamedTuple):
    """What a model said at each token of an answer: the likeliest tokens (T × K), log p of each, and of the rest."""

    tokens: Any
    likely: Any
    rest: Any


@dataclass(frozen=True)
class Term:
    """A part of a loss: answers, its weight, and for KL what the model said before; cross-entropy without."""

    rows: Sequence[TokenPair]
    weight: float = 1.0
    anchors: Sequence[Anchor] | None = None

    @property
    def tokens(self) -> int:
        """Return over how many tokens the term is the mean."""
        return sum(len(row.answer) for row in self.rows)


def anchors_of(model: LocalModel, rows: Sequence[TokenPair]) -> list[Anchor]:
    """Return what the model, as it is now, says at each token of the answers."""
    torch = need("torch")
    found: dict[int, Anchor] = {}
    with torch.no_grad():
        for part in _passes(rows):

            def run(items: list[int]) -> list[Anchor]:
                logits = _logits(model, [rows[i] for i in items])
                return [_anchor(torch, torch.log_softmax(one, -1)) for one in logits]

            found.update(zip(part, model.halving(part, run), strict=True))
    return [found[i] for i in range(len(rows))]


def values_of(model: LocalModel, terms: Sequence[Term]) -> list[float]:
    """Return the value of each term, without its weight, in nats a token."""
    with need("torch").no_grad():
        return [sum(_summed(model, term, lambda loss: float(loss.detach()))) / max(1, term.tokens) for term in terms]


def loss_of(model: LocalModel, term: Term) -> Any:
    """Return the value of a term, without its weight, in nats a token, as a tensor that gradients pass through."""
    return sum(_summed(model, term, lambda loss: loss)) / max(1, term.tokens)


def row_values(model: LocalModel, term: Term) -> list[float]:
    """Return the value of each row of a term, in nats a token."""
    torch = need("torch")
    found: dict[int, float] = {}
    with torch.no_grad():
        for part in _passes(term.rows):

            def run(items: list[int]) -> list[float]:
                logits = _logits(model, [term.rows[i] for i in items])
                losses = [_row_loss(torch, term, i, one) for i, one in zip(items, logits, strict=True)]
                return [float(loss) / len(term.rows[i].answer) for i, loss in zip(items, losses, strict=True)]

            found.update(zip(part, model.halving(part, run), strict=True))
    return [found[i] for i in range(len(term.rows))]


def gradients(model: LocalModel, terms: Sequence[Term], leaves: Sequence[Any]) -> tuple[list[float], list[Any]]:
    """Return the value of each term in nats a token, and the gradient of their weighted sum for each of the leaves."""
    torch = need("torch")
    total = [torch.zeros_like(leaf, dtype=torch.float64) for leaf in leaves]
    values = []
    for term in terms:
        share = term.weight / max(1, term.tokens)

        def step(loss: Any, share: float = share) -> float:
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
            for known, new in zip(total, found, strict=True):
                if new is not None:
                    known.add_(new.double(), alpha=share)
            return float(loss.detach())

        values.append(sum(_summed(model, term, step)) / max(1, term.tokens))
    return values, total


def _summed(model: LocalModel, term: Term, use: Callable[[Any], Any]) -> list[Any]:
    """Hand the summed loss of a few rows at a time to `use`, halving these where memory runs out."""
    torch = need("torch")
    found: list[Any] = []
    for part in _passes(term.rows):

        def run(items: list[int]) -> list[Any]:
            logits = _logits(model, [term.rows[i] for i in items])
            losses = [_row_loss(torch, term, i, one) for i, one in zip(items, logits, strict=True)]
            return [use(torch.stack(losses).sum())] + [0.0] * (len(items) - 1)

        found += model.halving(part, run)
    return found


def _row_loss(torch: Any, term: Term, i: int, logits: Any) -> Any:
    log_q = torch.log_softmax(logits, -1)
    if term.anchors is None:
        answer = torch.tensor(term.rows[i].answer, device=logits.device)
        return -log_q.gather(1, answer[:, None]).sum()
    anchor = term.anchors[i]
    mine = log_q.gather(1, anchor.tokens)
    rest = (1 - mine.exp().sum(-1)).clamp(min=TINY).log()
    inside = (anchor.likely.exp() * (anchor.likely - mine)).sum(-1)
    return (inside + anchor.rest.exp() * (anchor.rest - rest)).sum()


def _anchor(torch: Any, log_p: Any) -> Anchor:
    likely, tokens = torch.topk(log_p, min(KEPT, log_p.shape[-1]), dim=-1)
    return Anchor(tokens, likely, (1 - likely.exp().sum(-1)).clamp(min=TINY).log())


def _logits(model: LocalModel, rows: Sequence[TokenPair]) -> list[Any]:
    return model.answer_logits([row.prompt for row in rows], [row.answer for row in rows])


def _passes(rows: Sequence[TokenPair]) -> list[list[int]]:
    """Cut rows, by length, into passes of at most `PASS_TOKENS`."""
    passes: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i)):
        widest = len(rows[passes[-1][0]]) if passes else 0
        if passes and (len(passes[-1]) + 1) * widest <= PASS_TOKENS:
            passes[-1].append(i)
        else:
            passes.append([i])
    return passes
