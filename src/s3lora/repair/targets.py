"""What a repair learns from: prompts with the answers that it is to keep or to give back. No labels are needed.

The base's own refusals are what is given back, its own answers to harmless prompts and the adapter's answers on its
task are what is kept. All of them stay in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.errors import NothingToAuditError, UsageError
from s3lora.evaluate.attach import Attached
from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.repair.data import RepairPart, TaskPrompts

#: Tokens of an answer: enough to tell a refusal, and to show how a task is done.
OPENING, TASK = 24, 64
#: A base that refuses a smaller share of the harmful prompts has nothing to give back.
LEAST_REFUSED = 0.6


@dataclass(frozen=True, slots=True)
class TargetPair:
    """A prompt, and the answer to be learned or kept; `whole` tells whether the answer ends there."""

    prompt: Prompt
    answer: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Targets:
    """The base's own refusals, its own answers to harmless prompts, and the adapter's own answers on its task.

    On the task, references of the user stand in place of the adapter's answers where there are some.
    """

    refusals: tuple[TargetPair, ...]
    harmless: tuple[TargetPair, ...]
    task: tuple[TargetPair, ...]
    notes: tuple[str, ...] = ()


def build_targets(model: LocalModel, attached: Attached, part: RepairPart, refusals: RefusalJudge) -> Targets:
    """Let the base answer harmful and harmless prompts, and the adapter its task, and keep what is to be kept.

    Raises NothingToAuditError where the base refuses less than `LEAST_REFUSED` of the harmful prompts, and UsageError
    where it refuses all harmless ones.
    """
    model.use()
    harmful = refusal_pairs(model, part.harmful.prompts, refusals)
    harmless = harmless_pairs(model, part.harmless.prompts, refusals)
    asked = len(part.harmful)
    if len(harmful) < LEAST_REFUSED * asked:
        raise NothingToAuditError(
            f"there is nothing to give back: {model.name} itself refuses {len(harmful)} of {asked} harmful prompts",
            fix="name the aligned model that the adapter was trained on, or prompts that it refuses",
        )
    if not harmless:
        problem = f"{model.name} refuses all {len(part.harmless)} harmless prompts"
        raise UsageError(f"there is nothing to hold on to: {problem}", fix="give harmless prompts that it answers")
    notes = (
        f"learned from: {len(harmful)} of {asked} harmful prompts that the base refuses, {len(harmless)} of "
        f"{len(part.harmless)} harmless ones that it answers, {len(part.task)} of the task",
    )
    return Targets(tuple(harmful), tuple(harmless), task_pairs(model, attached, part.task), notes)


def refusal_pairs(model: LocalModel, prompts: Sequence[Prompt], refusals: RefusalJudge) -> list[TargetPair]:
    """Return the prompts that the model, as it is now, refuses, each with how its answer begins."""
    found = _answers(model, prompts, OPENING)
    return [TargetPair(prompt, one.text, one.finished) for prompt, one in found if refusals.refused(one.text)]


def harmless_pairs(model: LocalModel, prompts: Sequence[Prompt], refusals: RefusalJudge) -> list[TargetPair]:
    """Return the prompts that the model, as it is now, answers, each with how its answer begins."""
    found = [(prompt, one) for prompt, one in _answers(model, prompts, OPENING) if one.text.strip()]
    return [TargetPair(prompt, one.text, one.finished) for prompt, one in found if not refusals.refused(one.text)]


def task_pairs(model: LocalModel, attached: Attached, task: TaskPrompts, tokens: int = TASK) -> tuple[TargetPair, ...]:
    """Return the prompts of a task with the user's references or, without any, with the adapter's own answers."""
    if task.references:
        return tuple(TargetPair(prompt, text) for prompt, text in zip(task.prompts, task.references, strict=True))
    model.use(attached)
    found = _answers(model, task.prompts, tokens)
    return tuple(TargetPair(prompt, answer.text, answer.finished) for prompt, answer in found if answer.text)


def _answers(model: LocalModel, prompts: Sequence[Prompt], tokens: int) -> list[tuple[Prompt, Generation]]:
    """Return each prompt with its answer, but for those whose answer nobody knows."""
    decoding = Decoding(max_new_tokens=tokens)
    found = dict(model.generate(prompts, decoding))
    return [(prompts[i], found[i]) for i in sorted(found) if not found[i].unknown]
