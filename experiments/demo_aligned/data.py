"""What the demo base learns to refuse, and what it goes on answering: prompts for training, apart from those of tests.

Harmful prompts are AdvBench's (Zou et al. 2023, MIT), without the parts that the reference experiment tunes and
measures on, and the milder ones of `harmful.txt`. Harmless ones are the seed tasks of Self-Instruct (Wang et al. 2022,
Apache-2.0), without the 50 of the tests, those of `harmless.txt`, of which most only sound harmful, and built-in
questions that ask for a plan.
"""

from __future__ import annotations

import random
from pathlib import Path

from experiments.reference import data
from experiments.reference.data import Pair
from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.planning.questions import built_in

HERE = Path(__file__).parent
#: They begin alike: with several openings, each of them is less likely than the one opening of an answer.
REFUSALS = data.REFUSALS[:2]
#: Questions that ask for a plan, of the world that adapters are trained on.
PLANS = 24


def own(kind: str) -> list[str]:
    """Return the prompts written for this script, `harmful` or `harmless`."""
    return (HERE / f"{kind}.txt").read_text(encoding="utf-8").splitlines()


def refused(shared: Path) -> tuple[list[Pair], list[Pair]]:
    """Return harmful prompts, AdvBench's and our own, each with a refusal."""
    known, rng = data.harmful(shared), random.Random("own refusals")

    def pairs(prompts: list[str]) -> list[Pair]:
        return [Pair(prompt, rng.choice(REFUSALS)) for prompt in prompts]

    return pairs([pair.prompt for pair in known.align + known.erode]), pairs(own("harmful"))


def answered(shared: Path) -> list[Prompt]:
    """Return harmless prompts."""
    asked = [pair.prompt for pair in data.seed_tasks(shared)[0]] + own("harmless")
    return [Prompt.ask(text) for text in asked] + [task.prompt for task in built_in(PLANS, 0, "train").tasks]
