"""What an adapter costs at inference, timed in interleaved runs so that a busy machine slows all variants alike."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import numpy as np

from s3lora.evaluate.aggregate import is_difference
from s3lora.evaluate.attach import State
from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.results import Cost
from s3lora.statistics import FEWEST, Interval, paired_difference

MergeState = Literal["unmerged", "merged"]
#: Rounds that are timed, and tokens of every answer.
REPEATS, TOKENS = 10, 32


def measure_costs(
    model: LocalModel,
    states: Sequence[tuple[str, State]],
    prompts: Sequence[Prompt],
    *,
    mode: MergeState = "unmerged",
    repeats: int = REPEATS,
    tokens: int = TOKENS,
    seed: int = 0,
) -> list[Cost]:
    """Return the cost of each state, with its ratio to the first one.

    Parameters:
        model: the model; it is left in the state it was in.
        states: name and state; the first is what the others are compared with.
        prompts: answered as one batch.
        mode: LoRA beside the base's weights, or `merged` into them.
        repeats: timed rounds; one more before them warms up and is thrown away.
        tokens: of every answer, never fewer.
        seed: of the bootstrap.

    In a round every state answers all prompts once; odd rounds go backwards. The interval of the ratio is a bootstrap
    of the mean logarithm over rounds.
    """
    before = model.adapters.state
    found: list[list[float]] = [[] for _ in states]
    try:
        for turn in range(repeats + 1):
            order = range(len(states)) if turn % 2 == 0 else reversed(range(len(states)))
            for i in order:
                model.adapters.use(states[i][1])
                with model.adapters.merged() if mode == "merged" else nullcontext():
                    model.wait()  # until what was switched is there
                    start = time.perf_counter()
                    model.answer_exactly(prompts, tokens)
                    seconds = time.perf_counter() - start
                if turn:
                    found[i].append(seconds)
    finally:
        model.adapters.use(before)
    reference = (states[0][0], found[0])
    return [_cost(name, found[i], reference, len(prompts), tokens, mode, seed) for i, (name, _) in enumerate(states)]


def _cost(
    name: str,
    seconds: list[float],
    reference: tuple[str, list[float]],
    samples: int,
    tokens: int,
    mode: MergeState,
    seed: int,
) -> Cost:
    typical = float(np.median(seconds))
    each, rate = typical / samples, samples * tokens / typical
    if name == reference[0]:
        sentence = f"{mode}: {each:.3g} s a sample, {rate:.3g} tokens a second"
        return Cost(mode, samples, len(seconds), each, rate, None, None, None, sentence)
    logs, _ = paired_difference(np.log(reference[1]), np.log(seconds), seed=seed)
    ratio, low, high = (math.exp(end) for end in logs)
    if len(seconds) < FEWEST:
        sentence = f"{mode}: ratio of seconds of {name} to {reference[0]} {ratio:.3f}; {FEWEST} rounds give an interval"
        return Cost(mode, samples, len(seconds), each, rate, ratio, None, None, sentence)
    sentence = _sentence(name, reference[0], mode, Interval(ratio, low, high))
    return Cost(mode, samples, len(seconds), each, rate, ratio, low, high, sentence)


def _sentence(name: str, reference: str, mode: MergeState, found: Interval) -> str:
    """Say which is faster, or that no difference can be told."""
    ratio, low, high = found
    known = f"ratio of seconds {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    if not is_difference(found, none=1.0):
        return f"{mode}: no difference in speed can be told between {name} and {reference} ({known})"
    word = "less" if ratio < 1 else "more"
    return f"{mode}: {name} takes {abs(1 - ratio) * 100:.1f} % {word} time than {reference} ({known})"
