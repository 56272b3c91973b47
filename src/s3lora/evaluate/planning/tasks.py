"""Planning tasks: questions with what is known of them, and the documents in which the answers are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from s3lora.evaluate.chat import Prompt, digest_of
from s3lora.evaluate.data.draws import DataItem
from s3lora.evaluate.planning.documents import Document
from s3lora.evaluate.planning.plan import OWN_TOOLS, REWOO_TOOLS, Worker

#: Who gives the answer: a model from the evidence, or the last step.
AnswerBy = Literal["model", "last"]

#: What the demo adapter was trained with, word for word.
SYSTEM_PROMPT = (
    "Plan how to answer the question. Write one step per line: Plan: why #E1 = Tool[input]. "
    "Tools: Lookup (one fact), Calculator (arithmetic), LLM (compare)."
)


@dataclass(frozen=True)
class PlanningTask:
    """A question; as far as they are known, a reference plan, the right answers, and the facts needed.

    `facts` are (relation, subject), `documents` what Lookup searches for this task alone.
    """

    question: str
    plan: str = ""
    answers: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    documents: tuple[Document, ...] = ()
    system: str = SYSTEM_PROMPT
    id: str = ""

    @property
    def prompt(self) -> Prompt:
        """Return the chat to which a planner should reply with a plan."""
        return Prompt.ask(self.question, self.system or None)


@dataclass(frozen=True, slots=True)
class TaskSet:
    """Tasks in the order of their source, with the documents for those that have none of their own."""

    name: str
    tasks: tuple[PlanningTask, ...]
    documents: tuple[Document, ...] = ()
    built_in: bool = False
    notes: tuple[str, ...] = ()

    @property
    def items(self) -> list[DataItem]:
        """Return what draws and halves go by."""
        return [DataItem(task.prompt.digest, task.id) for task in self.tasks]

    @property
    def tools(self) -> Mapping[str, Worker]:
        """Return the tools that a plan may call, by lower-case name."""
        return OWN_TOOLS if self.built_in else REWOO_TOOLS

    @property
    def answer_by(self) -> AnswerBy:
        """Return who gives the answer: the last step for the built-in tasks, which were made for it."""
        return "last" if self.built_in else "model"

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


def _plain(task: PlanningTask) -> list[object]:
    return [task.system, task.question, task.plan, list(task.answers), _texts(task.documents)]


def _texts(documents: Iterable[Document]) -> list[list[str]]:
    return [[document.title, document.text] for document in documents]
