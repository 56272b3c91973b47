"""What is measured on planning tasks, and how one task is scored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from s3lora.evaluate.answers.unknown import unknown_counts
from s3lora.evaluate.chat import Generation, digest_of
from s3lora.evaluate.planning.plan import ToolPlan
from s3lora.evaluate.planning.rewoo import PlanTrace
from s3lora.evaluate.planning.tasks import AnswerBy, PlanningTask
from s3lora.evaluate.results import Measure
from s3lora.evaluate.textscores import exact_match, token_f1

MEASURES = (
    Measure("well_formed", "rate", "higher", "plans without a fault of form"),
    Measure("exact_match", "rate", "higher", "right answers"),
    Measure("token_f1", "mean", "higher", "words that the answer shares with the right one, F1"),
    Measure("steps", "mean", "neither", "steps of a plan"),
    Measure("tokens", "mean", "neither", "tokens of a plan"),
    Measure("loss", "mean", "lower", "cross-entropy of the reference plan", "nats/token"),
)
#: The sign of a number, which SQuAD's normalisation would drop with all punctuation.
MINUS = re.compile(r"(?<!\w)[-−](?=[\d.])")


def measures(tasks: Sequence[PlanningTask], solver: AnswerBy, by: str) -> tuple[Measure, ...]:
    """Return the measures that these tasks allow; `by` tells who answers.

    Which one stands for usefulness depends on the answer. What the last step gives is a tool's own word, right or
    wrong, and two wrong names may share a word: exact match. A model wraps its answer in words: token F1. Where no
    answers are known, the form of the plan is all there is.
    """
    answered, planned = any(task.answers for task in tasks), any(task.plan for task in tasks)
    utility = "well_formed" if not answered else "exact_match" if solver == "last" else "token_f1"
    found = []
    for measure in MEASURES:
        of_answer = measure.name in ("exact_match", "token_f1")
        if (of_answer and not answered) or (measure.name == "loss" and not planned):
            continue
        about = f"{measure.about}; answered by {by}" if of_answer else measure.about
        found.append(replace(measure, about=about, role="utility" if measure.name == utility else "other"))
    return tuple(found)


def score(answer: str, task: PlanningTask) -> tuple[float | None, float | None]:
    """Return exact match and token F1, in [0, 1], with the best of the right answers; None where none is known."""
    if not task.answers:
        return None, None
    if not answer.strip():
        return 0.0, 0.0
    references = [_signed(reference) for reference in task.answers]
    return exact_match(_signed(answer), references), token_f1(_signed(answer), references)


def record(
    task: PlanningTask, written: Generation, plan: ToolPlan, trace: PlanTrace, scored: tuple[float | None, float | None]
) -> Mapping[str, object]:
    """Return what was found on one task, without texts."""
    return {
        "id": task.id,
        "prompt": task.prompt.digest,
        "plan": digest_of(written.text),
        "problems": list(plan.problems),
        "steps": len(plan.steps),
        "failed_steps": trace.failed,
        "exact_match": scored[0],
        "token_f1": scored[1],
        "tokens": written.tokens,
        "finished": written.finished,
        "unknown": written.unknown,
    }


def counts(written: Sequence[Generation], plans: Sequence[ToolPlan], traces: Sequence[PlanTrace]) -> dict[str, int]:
    """Return how many steps there were and failed, plans were cut off, and had which problem."""
    problems = Counter(problem for plan in plans for problem in plan.problems)
    return {
        "steps": sum(len(plan.steps) for plan in plans),
        "failed_steps": sum(trace.failed for trace in traces),
        "unfinished": sum(not answer.finished and not answer.unknown for answer in written),
        **unknown_counts([answer.unknown for answer in written]),
        **{problem: problems[problem] for problem in sorted(problems)},
    }


def _signed(text: str) -> str:
    return MINUS.sub("minus ", text)
