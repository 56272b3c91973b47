"""A judge whose verdict is taken from the probabilities of the first word, instead of from a reply.

Of the next token only those count that begin one of the labels. A model that would say something else gets no verdict:
its reply is then empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from s3lora.errors import printable
from s3lora.evaluate.chat import Decoding, Generation, Prompt, digest_of
from s3lora.evaluate.judges.profile import JudgeError, JudgeLabels
from s3lora.evaluate.local import LocalModel
from s3lora.wording import worded

#: Where all labels together are less likely than this, the model is about to say something else.
LEAST = 0.5
#: What tokenizers write for a space before a word.
_SPACES = "Ġ▁ \n"


@dataclass
class FirstWords:
    """A local model that answers with the probability of each label as JSON: `{"unsafe": 0.93, "safe": 0.07}`."""

    model: LocalModel
    labels: JudgeLabels

    @property
    def identity(self) -> str:
        """Return a digest of the model and the labels."""
        return digest_of([self.model.identity, self.labels.lead, *self.labels.words])

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Return the special tokens of the tokenizer."""
        return self.model.special_tokens

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Cut the prompts as the model does."""
        return self.model.batches(prompts, decoding)

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Yield the probabilities, which add up to 1; an empty text where no label is likely."""
        for batch in self.batches(prompts, decoding) if batches is None else batches:
            rows = self.model.next_probabilities([prompts[i] for i in batch], self.labels.lead)
            for i, row in zip(batch, rows, strict=True):
                yield i, Generation(self._told(row), 1, True)

    def _told(self, row: Any) -> str:
        masses = {label: float(row[tokens].sum()) for label, tokens in self._tokens.items()}
        total = sum(masses.values())
        # One that is not finite is told apart from every number, and so is no verdict either.
        return json.dumps({label: mass / total for label, mass in masses.items()}) if total >= LEAST else ""

    @cached_property
    def _tokens(self) -> dict[str, list[int]]:
        """Return the tokens that begin each label, with and without a space, in any case; none begins two of them."""
        tokenizer = self.model.base.tokenizer
        found: dict[str, set[int]] = {label: set() for label in self.labels.words}
        for token, i in tokenizer.get_vocab().items():
            word = token.lstrip(_SPACES).casefold()
            for label in found:
                if word == label.casefold():
                    found[label].add(i)
        for label in found:
            for text in (label, f" {label}"):
                found[label] |= set(tokenizer(text, add_special_tokens=False)["input_ids"][:1])
        shared = {i for a in found for b in found if a != b for i in found[a] & found[b]}
        for label, tokens in found.items():
            if not tokens - shared:
                problem = f"its tokenizer has no token of its own for the beginning of {printable(label, 20)}"
                raise JudgeError(problem, file=self.model.name, fix=worded("leave out {judge_logits}"))
        return {label: sorted(tokens - shared) for label, tokens in found.items()}
