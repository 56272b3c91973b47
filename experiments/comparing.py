"""A rule in the place of the LLM tool, so that an experiment measures the planner alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from s3lora.evaluate.chat import Decoding, Generation, Prompt

COMPARISON = re.compile(r"Which is (larger|smaller): (\d{1,18}) for (.+), or (\d{1,18}) for (.+)\?")


def compare(text: str) -> str | None:
    """Answer the one question that the reference plans put to the LLM tool, and None for any other text.

    >>> compare("Which is larger: 12 for Torholt, or 7 for Selwick?")
    'Torholt'
    """
    match = COMPARISON.fullmatch(text.strip())
    if match is None:
        return None
    return match[3] if (int(match[2]) > int(match[4])) == (match[1] == "larger") else match[5]


class ComparingModel:
    """A rule in a model's place: it answers `compare`, and nothing else. As a helper it leaves the planner alone."""

    identity = "s3lora comparison rule 1"
    name = "a rule"

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Return one batch of all."""
        return [list(range(len(prompts)))] if prompts else []

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Yield the answers."""
        for i in (i for batch in (self.batches(prompts, decoding) if batches is None else batches) for i in batch):
            text = compare(prompts[i].messages[-1].content) or ""
            yield i, Generation(text, len(text.split()), True)
