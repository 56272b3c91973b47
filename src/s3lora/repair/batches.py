"""Prompts with answers as token ids, and batches of them drawn with a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s3lora.evaluate.local import LocalModel
from s3lora.repair.targets import TargetPair


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Token ids of a prompt and of the answer to it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        """Return how many tokens both have together."""
        return len(self.prompt) + len(self.answer)


def tokens_of(model: LocalModel, pairs: Sequence[TargetPair], limit: int) -> list[TokenPair]:
    """Return the pairs as tokens, of each answer the first `limit`; the end of turn belongs to a whole answer.

    Pairs without a token to learn from, or that do not fit into the model's context, are left out.
    """
    tokenizer = model.base.tokenizer
    found = []
    for encoded, pair in zip(model.template.encode([pair.prompt for pair in pairs]), pairs, strict=True):
        text = pair.answer + (model.turn_end if pair.whole else "")
        answer = tokenizer(text, add_special_tokens=False)["input_ids"][:limit]
        if answer and model.fits(len(encoded.ids) + len(answer)):
            found.append(TokenPair(tuple(encoded.ids), tuple(answer)))
    return found


def drawn(items: Sequence[TokenPair], size: int, seed: str) -> Iterator[list[TokenPair]]:
    """Yield batches of `size` without end; every item comes once before any comes again.

    >>> pairs = [TokenPair((i,), (0,)) for i in range(3)]
    >>> batches = drawn(pairs, 3, "seed")
    >>> sorted(pair.prompt[0] for pair in next(batches))
    [0, 1, 2]
    """
    rng = random.Random(seed)
    left: list[TokenPair] = []
    while True:
        while len(left) < size:
            left += rng.sample(list(items), len(items))
        batch, left = left[:size], left[size:]
        yield batch
