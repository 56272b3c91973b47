"""From the tokens of an answer to the answer: where it ends, and what of it is reasoning."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from s3lora.evaluate.answers.reasoning import mark_tokens, read_answer
from s3lora.evaluate.chat import Generation


class TokenReader:
    """What a tokenizer tells of the tokens of an answer.

    Parameters:
        tokenizer: the one of the model.
        ends: tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        """Tell apart the special tokens: decoding leaves all of them out, and some are marks of reasoning."""
        self._tokenizer, self._ends = tokenizer, frozenset(ends)
        names = tokenizer.all_special_tokens
        named = dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True))
        self._marks = mark_tokens(named)
        self._special = frozenset(named.values()) - self._marks

    def has_ended(self, tokens: Sequence[int], stop: Sequence[str]) -> bool:
        """Tell whether an answer has ended: by a token that ends it, or at a stop string."""
        return not self._ends.isdisjoint(tokens) or (bool(stop) and self.stops_at(tokens, stop))

    def stops_at(self, tokens: Sequence[int], stop: Sequence[str]) -> bool:
        """Tell whether the text of tokens holds a stop string."""
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return any(string in text for string in stop)

    def answer(self, row: Sequence[int], stop: Sequence[str], *, opened: bool) -> Generation:
        """Return the answer that tokens are; behind its end is padding. `opened`: the prompt opened reasoning."""
        end = next((i for i, token in enumerate(row) if token in self._ends), None)
        used = list(row if end is None else row[: end + 1])
        text = self._tokenizer.decode(used, skip_special_tokens=True)
        cut = [at for string in stop if (at := text.find(string)) >= 0]
        if not cut:
            return read_answer(self._marked(used, text), len(used), end is not None, opened=opened, plain=text)
        # Behind the stop string is padding, as long as the longest answer of the batch.
        tokens = bisect_left(range(len(used)), True, key=lambda n: self.stops_at(used[:n], stop))
        text, marked = text[: min(cut)], self._marked(used, text)
        marked = marked[: min(at for string in stop if (at := f"{marked}{string}".find(string)) >= 0)]
        return read_answer(marked, tokens, True, opened=opened, plain=text)

    def _marked(self, tokens: Sequence[int], text: str) -> str:
        """Return what is decoded, with those special tokens that are marks of reasoning."""
        if self._marks.isdisjoint(tokens):
            return text
        shown = [token for token in tokens if token not in self._special]
        return str(self._tokenizer.decode(shown, skip_special_tokens=False))
