"""The shape of a row: which column is the prompt, and which its category, identifier and answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from s3lora.evaluate.data.choice import Fields
from s3lora.evaluate.data.items import FieldError, checked_text
from s3lora.evaluate.data.kinds import KindColumn

#: In order of preference; a list of messages or turns may stand in any of them.
TEXT_FIELDS = (
    *("prompt", "goal", "instruction", "question", "behavior", "test_case", "forbidden_prompt"),
    *("messages", "conversations", "conversation", "turns", "text"),
)
CATEGORY_FIELDS = ("category", "semanticcategory", "functionalcategory")
ID_FIELDS = (
    *("behaviorid", "behavior_id", "behavior", "id", "_id", "question_id", "questionid", "qid", "task_id", "prompt_id"),
    *("fname", "index"),
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Answers:
    """The right answers of a row, unchecked, and a whole worked answer where the source has one."""

    references: tuple[object, ...]
    worked: str = ""


@dataclass(frozen=True, slots=True)
class DataShape:
    """How the rows of a data set are read. All names of columns are in lower case.

    Parameters:
        title: name of the data set.
        paper: its paper, as an arXiv number or an address; empty for a form that is nobody's own.
        columns: what a row must have to be of this shape.
        prompt: columns with the prompt; the first one that is not empty counts.
        category: columns with the category.
        id: columns with what several rows of one behaviour or question share.
        ask: makes the prompt of a row where it is more than one cell.
        answers: finds the right answers of a row; None where it holds none.
        answer_columns: where those come from, in the words of the table.
        kind: the column that tells harmful prompts from harmless ones.
        unless: columns of which it has none.
        once: rows repeat a prompt with several answers, and it is asked once.
        use: the options that it is for, and what to know of them.
    """

    title: str
    columns: tuple[str, ...]
    prompt: tuple[str, ...]
    category: tuple[str, ...] = CATEGORY_FIELDS
    id: tuple[str, ...] = ID_FIELDS
    ask: Callable[[Fields, str], object] | None = None
    answers: Callable[[Fields], Answers | None] | None = None
    answer_columns: str = ""
    kind: KindColumn | None = None
    unless: tuple[str, ...] = ()
    once: bool = False
    use: str = ""
    paper: str = ""


def columns_like(pattern: str) -> Callable[[Fields], Answers | None]:
    """Return what takes the answers from all columns whose name matches; of a list each entry is one."""

    def answers(fields: Fields) -> Answers | None:
        found: list[object] = []
        for value in (value for name, value in fields.items() if re.fullmatch(pattern, name)):
            # A table has empty cells where a row has fewer references than others.
            found.extend(value if isinstance(value, list) else [] if value is None else [value])
        return Answers(tuple(found)) if found else None

    return answers


def after_hashes(fields: Fields) -> Answers | None:
    """Return GSM8K's number, which follows `####`, and all of the answer as worked; else the answer as it is."""
    answer = fields["answer"]
    if not isinstance(answer, str):
        return columns_like("answer")(fields)
    _, hashes, number = answer.rpartition("####")
    return Answers((number.strip().replace(",", ""),), answer) if hashes and number.strip() else Answers((answer,))


def with_input(fields: Fields, instruction: str) -> str:
    """Put Alpaca's input, which may be empty, under the instruction."""
    given = fields.get("input")
    return f"{instruction}\n\n{given.strip()}" if isinstance(given, str) and given.strip() else instruction


def completed(fields: Fields) -> Answers | None:
    """Return the completion, which is a text, or the messages of an assistant."""
    given = fields["completion"]
    if isinstance(given, list):
        texts = [one.get("content") for one in given if isinstance(one, Mapping)]
        given = "\n\n".join(text for text in texts if isinstance(text, str))
    return Answers((given,)) if given not in (None, "") else None


def solution(fields: Fields) -> Answers:
    """Return HumanEval's solution, with the spaces at its beginning as worked."""
    code = fields["canonical_solution"]
    return Answers((code,), code if isinstance(code, str) else "")


def with_choices(fields: Fields, question: str) -> str:
    """Put the choices under a question, each after its letter."""
    options = [checked_text("choice", choice) for choice in _choices(fields)]
    lettered = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{question}\n\n{lettered}\n\nAnswer with one letter."


def _choices(fields: Fields) -> list[object]:
    choices = fields["choices"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise FieldError("no list of 2 to 26 choices", "give JSON lines or parquet, where a cell can be a list")
    return choices


def right_letter(fields: Fields) -> Answers:
    """Return the letter of the right choice, then its text; the answer is an index from 0, or the letter."""
    choices, answer = _choices(fields), fields["answer"]
    text = answer.strip().upper() if isinstance(answer, str) else ""
    if text in [*LETTERS[: len(choices)]]:
        answer = LETTERS.index(text)
    elif text.isdecimal() and len(text) < 4:
        answer = int(text)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise FieldError("an answer that is neither an index nor a letter of its choices")
    return Answers((LETTERS[answer], choices[answer]))


def in_context(fields: Fields, behaviour: str) -> str:
    """Put HarmBench's context before the behaviour, as its baselines/direct_request does."""
    context = fields.get("contextstring")
    return f"{context.strip()}\n\n---\n\n{behaviour}" if isinstance(context, str) and context.strip() else behaviour


def after(request: str) -> Callable[[Fields, str], object]:
    """Return what puts a request before a text."""
    return lambda _, text: f"{request}\n\n{text}"


#: A row of no published shape.
ANY = DataShape("any other", (), TEXT_FIELDS, ask=in_context, answers=columns_like("references?"))
