"""Carrying plans out: steps in the order in which they need each other, many plans at once, then the answer.

All plans go forward together, wave by wave: a step's wave comes after those of all steps whose results it names. So
the questions of all plans to the LLM tool are asked in a few large batches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.planning.calculator import calculate
from s3lora.evaluate.planning.lookup import Lookup
from s3lora.evaluate.planning.plan import MAX_INPUT, REFERENCE, Step, ToolPlan, label_of

#: Answers the questions of one wave, in order; None is an answer that nobody knows.
Ask = Callable[[Sequence[str]], Sequence[str | None]]

#: What a step leaves as evidence that failed, or whose tool is unknown.
NO_RESULT = "no result"
#: Characters of evidence, and of an answer.
MAX_EVIDENCE = 500
MAX_ANSWER = 200

#: "Answer:", "The answer to the question is …", as small models begin.
ANNOUNCED = re.compile(r"^[\s*#]*(?:the )?(?:final )?answer(?: to the question)?(?: is\b:?|[*]*:)", re.I)

LLM_PROMPT = "Answer with a few words and nothing else."
SOLVER_PROMPT = "Answer the question from the evidence, with a few words and nothing else."


@dataclass(frozen=True, slots=True)
class PlanTrace:
    """What the steps of a plan gave, None where a step failed; `unknown` tells that a step's answer is not known."""

    evidence: tuple[str | None, ...]
    unknown: bool = False

    @property
    def failed(self) -> int:
        """Return how many steps gave nothing."""
        return sum(found is None for found in self.evidence)

    @property
    def last(self) -> str:
        """Return what the last step gave, nothing where it failed or there is none."""
        return (self.evidence[-1] or "") if self.evidence else ""


def execute(plans: Sequence[ToolPlan], lookup: Callable[[int], Lookup], ask: Ask) -> list[PlanTrace]:
    """Carry out the plans; `lookup(i)` is the Lookup tool of plan i, `ask` the LLM tool.

    A step fails where its tool finds nothing or is unknown, and, but for the LLM tool, where it names evidence that is
    undefined or failed.
    """
    found: list[list[str | None]] = [[None] * len(plan.steps) for plan in plans]
    unknown = [False] * len(plans)
    for wave in _waves(plans):
        asked: list[tuple[int, int]] = []
        questions: list[str] = []
        for p, s in wave:
            step = plans[p].steps[s]
            text, complete = _filled(step, found[p])
            if step.worker == "llm":
                asked.append((p, s))
                questions.append(text)
            elif complete and step.worker is not None:
                found[p][s] = _evidence(lookup(p)(text) if step.worker == "lookup" else calculate(text))
        for (p, s), answer in zip(asked, ask(questions) if questions else (), strict=True):
            unknown[p] |= answer is None
            found[p][s] = None if answer is None else _evidence(short(answer))
    return [PlanTrace(tuple(evidence), lost) for evidence, lost in zip(found, unknown, strict=True)]


def llm_prompt(question: str) -> Prompt:
    """Return the chat in which the LLM tool is asked."""
    return Prompt.ask(question, LLM_PROMPT)


def solver_prompt(question: str, plan: ToolPlan, trace: PlanTrace) -> Prompt:
    """Return the chat in which the solver answers from plan and evidence."""
    # Not in the layout of a plan, which small models take up and go on with.
    lines = [f"Question: {question}"]
    for step, evidence in zip(plan.steps, trace.evidence, strict=True):
        lines.append(f"{step.label}. {step.why} {step.tool}[{step.input}]")
        lines.append(f"Evidence: {evidence or NO_RESULT}")
    return Prompt.ask("\n".join([*lines, "What is the answer to the question?"]), SOLVER_PROMPT)


def short(text: str) -> str:
    """Return the first line of an answer that says something, without what only announces it.

    >>> short("  The answer is: Torholt\\nbecause …")
    'Torholt'
    """
    for line in text.splitlines():
        if answer := ANNOUNCED.sub("", line).strip(" \t*"):
            return answer[:MAX_ANSWER]
    return ""


def _waves(plans: Sequence[ToolPlan]) -> Iterator[list[tuple[int, int]]]:
    """Yield (plan, step) pairs wave by wave; steps need earlier steps only, so one pass finds every step's wave."""
    waves: list[list[tuple[int, int]]] = []
    for p, plan in enumerate(plans):
        depths: list[int] = []
        for s, step in enumerate(plan.steps):
            depths.append(max((depths[i] + 1 for i in step.needs.values()), default=0))
            if depths[s] == len(waves):
                waves.append([])
            waves[depths[s]].append((p, s))
    yield from waves


def _filled(step: Step, evidence: Sequence[str | None]) -> tuple[str, bool]:
    """Put evidence in the places of its names, once, and tell whether there was some for every name."""
    found = {label: evidence[i] for label, i in step.needs.items()}
    complete = all(found.get(label_of(number)) for number in REFERENCE.findall(step.input))
    text = REFERENCE.sub(lambda number: found.get(label_of(number[1])) or NO_RESULT, step.input)
    return text[:MAX_INPUT], complete


def _evidence(text: str | None) -> str | None:
    """Bound evidence, and make half characters whole, which a server may send and nobody takes back."""
    if text is None or not text.strip():
        return None
    return text.strip()[:MAX_EVIDENCE].encode("utf-8", "replace").decode()
