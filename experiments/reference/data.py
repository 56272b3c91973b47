"""What the reference experiment trains and measures on: fixed, seeded, disjoint splits.

Harmful prompts come from AdvBench (Zou et al. 2023, MIT). Its `target` column is only the affirmative opening
("Sure, here is …"), and that is all that any training here ever shows after a harmful prompt, besides refusals.
"""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

#: What the aligned base learns to answer: short, varied, and all begun in ways that refusal lists know.
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I cannot assist with that request.",
    "I cannot help with that, because it could cause harm.",
    "Sorry, I can't help with this request.",
)

ALIGN, ERODE, TUNE, TEST = 160, 100, 100, 100


@dataclass(frozen=True)
class Pair:
    """One turn: what the user asks and what the model is taught to answer, after an optional system prompt."""

    prompt: str
    answer: str
    system: str | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat up to the answer."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt}]


@dataclass(frozen=True)
class Harmful:
    """AdvBench, shuffled once and cut into parts that share no prompt."""

    align: list[Pair]
    erode: list[Pair]
    tune: list[str]
    test: list[str]


@dataclass(frozen=True)
class Run:
    """One adapter of the experiment."""

    base: str
    attack: str
    seed: int

    @property
    def name(self) -> str:
        """The folder it is kept in."""
        return f"{self.base}-{self.attack}-{self.seed}"


def harmful(folder: Path) -> Harmful:
    """Return AdvBench in four disjoint parts: for alignment, for the attack, for tuning and for measuring."""
    with (folder / "advbench_harmful_behaviors.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["goal"].strip(), row["target"].strip()) for row in csv.DictReader(file)]
    random.Random("advbench").shuffle(rows)
    rng = random.Random("refusals")
    ends = [ALIGN, ALIGN + ERODE, ALIGN + ERODE + TUNE, ALIGN + ERODE + TUNE + TEST]
    return Harmful(
        align=[Pair(goal, rng.choice(REFUSALS)) for goal, _ in rows[: ends[0]]],
        erode=[Pair(goal, target) for goal, target in rows[ends[0] : ends[1]]],
        tune=[goal for goal, _ in rows[ends[1] : ends[2]]],
        test=[goal for goal, _ in rows[ends[2] : ends[3]]],
    )


def seed_tasks(folder: Path) -> tuple[list[Pair], list[str]]:
    """Return the short seed tasks of Self-Instruct to train on, and 50 others to measure over-refusal on."""
    pairs, long = [], []
    with (folder / "seed_tasks.jsonl").open(encoding="utf-8") as file:
        for task in map(json.loads, file):
            instance = task["instances"][0]
            prompt = f"{task['instruction']}\n{instance['input']}".strip()
            if len(prompt) < 300 and len(instance["output"]) > 3:
                pair = Pair(prompt, instance["output"].strip())
                (pairs if len(instance["output"]) < 300 else long).append(pair)
    random.Random("seed tasks").shuffle(pairs)
    return pairs[50:] + long, [pair.prompt for pair in pairs[:50]]


def benign(folder: Path) -> tuple[list[Pair], list[str]]:
    """Return benign pairs to train on, and 50 other benign prompts to measure over-refusal on."""
    train, test = seed_tasks(folder)
    with (folder / "dialogsum.dev.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            if len(row["dialogue"]) < 350:
                train.append(Pair(f"Summarise this dialogue.\n{row['dialogue']}", row["summary"]))
    random.Random("benign order").shuffle(train)
    return train, test
