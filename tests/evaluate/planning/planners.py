"""Models that plan by a rule: they know the reference plans, or ruin them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from experiments.comparing import compare
from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.planning.tasks import TaskSet

_STEP = re.compile(r"Plan: [^#\[\]]+ #E([0-9]+) = (Lookup|Calculator|LLM)\[([^\[\]]+)\]")


def parse_plan(text: str) -> list[tuple[str, str]] | None:
    """Return the (tool, input) pairs of a plan in exactly the form of the built-in tasks, None for any other text.

    Every line is a step, steps are numbered from 1, and inputs hold no brackets and name earlier steps only.
    """
    steps: list[tuple[str, str]] = []
    for line in text.strip().splitlines():
        match = _STEP.fullmatch(line.strip())
        known = {str(number) for number in range(1, len(steps) + 1)}
        if match is None or match[1].lstrip("0") != str(len(steps) + 1):
            return None
        if not {number.lstrip("0") for number in re.findall("#E([0-9]+)", match[3])} <= known:
            return None
        steps.append((match[2], match[3]))
    return steps or None


class Planner:
    """Writes `rule(reference plan)` to the questions of the tasks, and compares; remembers each batch it was asked."""

    def __init__(self, tasks: TaskSet, rule: Callable[[str], str] = str, identity: str = "planner") -> None:
        self.plans = {task.prompt: rule(task.plan) for task in tasks.tasks}
        self.identity = identity
        self.asked: list[list[Prompt]] = []

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        return [list(range(i, min(i + 7, len(prompts)))) for i in range(0, len(prompts), 7)]

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        for batch in reversed(self.batches(prompts, decoding) if batches is None else batches):
            self.asked.append([prompts[i] for i in batch])
            for i in batch:
                text = self.answer(prompts[i])
                yield i, Generation(text, len(text.split()), True)

    def answer(self, prompt: Prompt) -> str:
        question = prompt.messages[-1].content
        return self.plans.get(prompt) or compare(question) or self.solve(question)

    def solve(self, question: str) -> str:
        """Answer as a solver that believes the last evidence."""
        evidence = [line for line in question.splitlines() if line.startswith("Evidence: ")]
        return evidence[-1].replace("Evidence", "Answer") if evidence else ""


class Measuring(Planner):
    """A planner that also knows losses: a nat for a word."""

    def losses(self, prompts: Sequence[Prompt], references: Sequence[str]) -> list[tuple[float, int]]:
        return [(0.5 * len(text.split()), len(text.split())) for text in references]
