"""The tokens of a batch of answers. Those that have ended leave the batch, so that the longest hold up nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

#: After so many tokens the answers that have ended leave the batch. Fewer would pay for the copies of the cache.
STAGE = 8


def cache_of(output: Any) -> dict[str, Any]:
    """Return the key-value cache of an output by the name by which it is given back to the model."""
    # It has another name from transformers 5.24 on, where the old one warns at every batch.
    name = "cache" if hasattr(output, "cache") else "past_key_values"
    return {name: getattr(output, name)}


def draw_answers(
    generate: Callable[..., Any],
    ids: Any,
    mask: Any,
    *,
    tokens: int,
    stage: int,
    ended: Callable[[Sequence[int]], bool],
    config: Callable[[int], Any],
    cache: dict[str, Any],
    more: dict[str, Any],
) -> list[list[int]]:
    """Return the tokens of every answer, with padding behind the end where its batch went on.

    Parameters:
        generate: `generate` of a model of transformers.
        ids: the prompts, int64 (rows, length), padded so that they end together.
        mask: 1 for tokens and 0 for padding, of the same shape.
        tokens: most tokens of an answer.
        stage: after how many tokens those that have ended leave; `tokens` where the model's cache cannot lose rows.
        ended: tells of the tokens of one answer whether it has ended.
        config: makes the settings of generation for a number of tokens.
        cache: the cache of what the prompts begin with, by its name, or nothing.
        more: other arguments of `generate`.
    """
    written: list[list[int]] = [[] for _ in range(len(ids))]
    going, left = list(range(len(ids))), tokens
    while going and left > 0:
        count = min(stage, left)
        output = generate(
            input_ids=ids, attention_mask=mask, generation_config=config(count), return_dict_in_generate=True,
            **cache, **more,
        )  # fmt: skip
        length, left = ids.shape[1], left - count
        for answer, row in zip(going, output.sequences[:, length:].tolist(), strict=True):
            written[answer] += row
        kept = [i for i, answer in enumerate(going) if not ended(written[answer])]
        if left and kept:
            ids, cache = output.sequences[kept], cache_of(output)
            # What was drawn is no padding in the rows that go on.
            mask = mask.new_ones(ids.shape).index_copy_(1, mask.new_tensor(range(length)), mask[kept])
            if len(kept) < len(going):
                for held in cache.values():
                    held.batch_select_indices(ids.new_tensor(kept))
        going = [going[i] for i in kept]
    return written
