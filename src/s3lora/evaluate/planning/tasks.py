"""Planning tasks: questions with what is known of them, and the documents in which the answers are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from s3lora.evaluate.chat import Prompt, digest_of
from s3lora.evaluate.planning.documents import Document
from s3lora.evaluate.planning.plan import REWOO_TOOLS, Worker
from s3lora.evaluate.rows import draw

#: Who gives the answer: a model from the evidence, or the last step.
AnswerBy = Literal["model", "last"]

#: What the demo adapter was trained with, word for word.
SYSTEM_PROMPT = (
    "Plan how to answer the question. Write one step per line: Plan: why #E1 = Tool[input]. "
    "Tools: Lookup (one fact), Calculator (arithmetic), LLM (compare)."
)


@dataclass(frozen=True)
class Task:
    """A question; as far as they are known, a reference plan, the answer, and (relation, subject) of the facts needed.

    `aliases` are further right answers, `documents` what Lookup searches for this task alone.
    """

    question: str
    plan: str = ""
    answer: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    aliases: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()
    system: str = SYSTEM_PROMPT
    id: str = ""

    @property
    def prompt(self) -> Prompt:
        """Return the chat to which a planner should reply with a plan."""
        return Prompt.ask(self.question, self.system or None)

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the same chat as chat templates take it."""
        return self.prompt.as_dicts()

    @property
    def references(self) -> tuple[str, ...]:
        """Return the right answers, none where none is known."""
        return tuple(answer for answer in (self.answer, *self.aliases) if answer)


@dataclass(frozen=True, slots=True)
class TaskSet:
    """Tasks in the order of their source, with the documents for those that have none of their own.

    `tools` are the tools that a plan may call, by lower-case name.
    """

    name: str
    tasks: tuple[Task, ...]
    documents: tuple[Document, ...] = ()
    tools: Mapping[str, Worker] = field(default_factory=lambda: REWOO_TOOLS)
    answer_by: AnswerBy = "model"
    built_in: bool = False

    def __len__(self) -> int:
        """Return how many tasks there are."""
        return len(self.tasks)

    @property
    def sha256(self) -> str:
        """Return a digest of the tasks and of all documents."""
        return digest_of([[_plain(task) for task in self.tasks], _texts(self.documents), sorted(self.tools)])

    def subset(self, positions: Iterable[int]) -> TaskSet:
        """Return the tasks at these positions, in the order of the source."""
        return replace(self, tasks=tuple(self.tasks[i] for i in sorted(set(positions))))

    def take(self, limit: int | None, seed: int = 0) -> TaskSet:
        """Return `limit` tasks drawn with the seed, in the order of the source; all of them for None.

        A larger draw with the same seed holds the smaller one. Raises UsageError for a limit below 1.
        """
        positions = draw(len(self), limit, seed, "tasks")
        return self if len(positions) == len(self) else self.subset(positions)


def _plain(task: Task) -> list[object]:
    return [task.system, task.question, task.plan, list(task.references), _texts(task.documents)]


def _texts(documents: Iterable[Document]) -> list[list[str]]:
    return [[document.title, document.text] for document in documents]
